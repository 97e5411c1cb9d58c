"""--lesion-mask through the command line: a person with a lesion, one without, and a wrong mask."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from hetseg_bids import segment
from hetseg_bids.errors import MaskError, OptionError
from support.commands import QUICK, run_cli, run_here
from support.corruptions import brain, good
from support.datasets import t1w_path, write_dataset
from support.tiny_model import write_tiny_model

MASK = "derivatives/manual/sub-{0}/anat/sub-{0}_label-lesion_mask.nii.gz"
LESION = (slice(12, 22), slice(40, 52), slice(30, 42))
ML = 10 * 12 * 12 * 1.35**3 / 1000


def write_mask(bids: Path, subject: str, where: tuple[slice, ...]) -> Path:
    image = nib.load(t1w_path(bids, subject))
    mask = np.zeros(image.shape, np.uint8)
    mask[where] = 1
    path = bids / MASK.format(subject)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(mask, image.affine), path)
    return path


def read(out: Path, subject: str) -> tuple[np.ndarray, np.ndarray, dict, pd.DataFrame]:
    """Labels, flip probabilities, sidecar and volumes."""
    start = out / f"sub-{subject}" / "anat" / f"sub-{subject}_seg-hetseg"
    q = nib.load(f"{start}_desc-labelflip_probseg.nii.gz").get_fdata(dtype=np.float32)
    record = json.loads(Path(f"{start}_dseg.json").read_text())
    table = pd.read_csv(f"{start}_morph.tsv", sep="\t")
    return np.asarray(nib.load(f"{start}_dseg.nii.gz").dataobj), q, record, table


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The dataset, OUT, the command and how it ended."""
    root = tmp_path_factory.mktemp("lesions")
    bids, out, model = write_dataset(root / "bids"), root / "out", write_tiny_model(root / "model")
    for subject in ("01", "02", "03"):
        good(t1w_path(bids, subject))
    write_mask(bids, "01", LESION)
    write_mask(bids, "03", (slice(None),) * 3)
    options = (*QUICK, "--model", model, "--lesion-mask")
    command = ("hetseg", bids, out, "participant", *options)
    return bids, out, command, run_cli(*command)


def test_a_wrong_mask_fails_its_scan_only_and_in_one_line(finished):
    bids, out, _, done = finished
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if "FAILED" in line]
    assert "covers most of the brain" in line
    assert str(bids / MASK.format("03")) in line
    assert not (out / "sub-03").exists()
    assert (out / "sub-01.html").exists()


def test_a_lesion_has_no_label_and_half_a_doubt(finished):
    _, out, _, _ = finished
    dseg, q, record, table = read(out, "01")
    assert not dseg[LESION].any()
    assert dseg.any()
    np.testing.assert_allclose(q[LESION].max(axis=-1), 0.5, atol=1e-6)
    assert (q[LESION].min(axis=-1) < 0.4).any()  # what isn't likely there isn't doubted
    lesion = record["HetsegLesion"]
    assert lesion["source"] == f"bids:raw:{MASK.format('01')}"
    assert lesion["source"] in record["Sources"]
    assert lesion["volume_ml"] == pytest.approx(ML, abs=0.001)
    touched = table[table["lesion_mm3"] > 0]
    assert lesion["structures"] == list(touched["name"])
    assert table["lesion_mm3"].sum() == pytest.approx(1000 * ML, rel=1e-4)
    assert touched["lesion_share"].between(0, 1, inclusive="right").all()
    assert (touched["volume_ci95_high_mm3"] >= touched["lesion_mm3"]).all()


def test_the_page_and_the_group_tables_name_it(finished):
    bids, out, _, _ = finished
    page = (out / "sub-01.html").read_text()
    assert f"a lesion mask of {ML:.1f} ml covers" in page
    assert "outline of the lesion mask" in page
    assert run_here("hetseg", bids, out, "group").code == 0
    quality = pd.read_csv(out / "group_qc.tsv", sep="\t").set_index("scan")
    assert quality.loc["sub-01", "lesion_ml"] == pytest.approx(ML, abs=0.001)
    assert "a lesion mask of" in quality.loc["sub-01", "reasons"]
    assert np.isnan(quality.loc["sub-02", "lesion_ml"])
    assert "lesion_share" in pd.read_csv(out / "group_morph.tsv", sep="\t")


def test_a_scan_without_a_mask_is_as_without_the_option_and_says_so(finished, tmp_path):
    bids, out, command, _ = finished
    dseg, q, record, table = read(out, "02")
    assert record["HetsegLesion"] is None
    assert record["HetsegSettings"]["lesion_mask"] == "auto"
    assert table[["lesion_mm3", "lesion_share"]].isna().all(axis=None)
    assert "none for this scan" in (out / "sub-02.html").read_text()
    plain = ("hetseg", bids, tmp_path, *command[3:-1], "--participant-label", "02")
    assert run_cli(*plain).code == 0
    other_dseg, other_q, _, other_table = read(tmp_path, "02")
    np.testing.assert_array_equal(dseg, other_dseg)
    np.testing.assert_array_equal(q, other_q)
    pd.testing.assert_frame_equal(table, other_table)


def test_the_tissue_around_can_be_labelled_and_a_changed_mask_makes_results_again(finished):
    bids, out, command, _ = finished
    command = (*command, "auto", "--participant-label", "01")
    assert "complete already" in run_cli(*command).out
    before = read(out, "01")
    assert run_cli(*command, "--lesion-label", "surrounding", "--write-probseg").code == 0
    dseg, q, _, table = read(out, "01")
    assert dseg[LESION].mean() > 0
    np.testing.assert_array_equal(q, before[1])
    start = out / "sub-01" / "anat" / "sub-01_seg-hetseg"
    p = nib.load(f"{start}_probseg.nii.gz").get_fdata(dtype=np.float32)
    assert (np.abs(p[LESION] - 0.5).min(axis=-1) < 0.003).all()
    columns = ["lesion_mm3", "lesion_share", "volume_ci95_high_mm3"]
    np.testing.assert_allclose(table[columns], before[3][columns], rtol=1e-3)
    write_mask(bids, "01", (slice(12, 15), *LESION[1:]))
    again = run_cli(*command, "--lesion-label", "surrounding", "--write-probseg")
    assert "complete already" not in again.out
    assert read(out, "01")[2]["HetsegLesion"]["volume_ml"] == pytest.approx(0.3 * ML, abs=0.001)


def test_the_api_takes_a_lesion(tmp_path):
    path, mask = tmp_path / "a_T1w.nii.gz", tmp_path / "lesion.nii.gz"
    good(path)
    data = np.zeros(brain().shape, np.uint8)
    data[LESION] = 1
    nib.save(nib.Nifti1Image(data, nib.load(path).affine), mask)
    options = {"model": str(write_tiny_model(tmp_path / "model")), "views": ["axial"]}
    result = segment(path, lesion_mask=mask, brain_extraction="skip", mirror=False, **options)
    assert not np.asarray(result.dseg.dataobj)[LESION].any()
    assert result.volumes["lesion_mm3"].sum() == pytest.approx(1000 * ML, rel=1e-4)
    with pytest.raises(OptionError, match="surrounding"):
        segment(path, lesion_mask=mask, lesion_label="around", **options)
    with pytest.raises(MaskError, match="no such file"):
        segment(path, lesion_mask=tmp_path / "none.nii", brain_extraction="skip", **options)
