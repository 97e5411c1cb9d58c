"""--structures aseg through the command line: every label, in every output."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import hetseg_bids
from hetseg_bids.quality.verdict import Verdict, judge
from hetseg_bids.segmentation.wholes import SUMS
from hetseg_bids.structures.aseg import ASEG, PARTS, WHOLE_ASEG
from hetseg_bids.structures.divisions import FIFTHS
from hetseg_bids.structures.label_sets import bare_name
from support.commands import run_cli, run_here
from support.corruptions import good
from support.datasets import t1w_path, write_dataset
from support.tiny_model import write_tiny_model

WHOLES = 1 + len(SUMS)  # rows of the whole head
FAST = ("--views", "axial", "--no-mirror", "--skip-bids-validation")
SURE = {bare_name(name) for name in (*ASEG.names, "cerebellum_cortex")}
# as FreeSurferColorLUT.txt spells them
NAMES = {
    4: "Left-Lateral-Ventricle",
    5: "Left-Inf-Lat-Vent",
    7: "Left-Cerebellum-White-Matter",
    8: "Left-Cerebellum-Cortex",
    10: "Left-Thalamus",
    14: "3rd-Ventricle",
    16: "Brain-Stem",
    24: "CSF",
    26: "Left-Accumbens-area",
    28: "Left-VentralDC",
    30: "Left-vessel",
    31: "Left-choroid-plexus",
    44: "Right-Inf-Lat-Vent",
    46: "Right-Cerebellum-White-Matter",
    47: "Right-Cerebellum-Cortex",
    62: "Right-vessel",
    63: "Right-choroid-plexus",
    77: "WM-hypointensities",
    85: "Optic-Chiasm",
    251: "CC_Posterior",
    252: "CC_Mid_Posterior",
    253: "CC_Central",
    254: "CC_Mid_Anterior",
    255: "CC_Anterior",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A dataset of one scan, labelled both ways; the model; both output folders."""
    root = tmp_path_factory.mktemp("aseg")
    bids, model = write_dataset(root / "bids"), write_tiny_model(root / "model", parts=True)
    good(t1w_path(bids, "01"))
    for structures in ("paper", "aseg"):
        command = ("hetseg", bids, root / structures, "participant", "--model", model, *FAST)
        done = run_cli(*command, "--structures", structures)
        assert done.code == 0, done.err
    return root


def stem(folder):
    return folder / "sub-01" / "anat" / "sub-01_seg-hetseg"


def test_every_output_has_all_labels(finished):
    start = stem(finished / "aseg")
    for ending, column in (("dseg.tsv", "index"), ("morph.tsv", "index")):
        table = pd.read_csv(f"{start}_{ending}", sep="\t")
        assert list(table[column].dropna()) == [s.label for s in WHOLE_ASEG.structures]
    dseg = np.asarray(nib.load(f"{start}_dseg.nii.gz").dataobj)
    found = set(np.unique(dseg))
    assert found <= {0, *table["index"]}
    assert found & {s.label for s in (*PARTS, *FIFTHS)}, "random weights label some parts"
    assert nib.load(f"{start}_desc-labelflip_probseg.nii.gz").shape[3] == 43
    record = json.loads((finished / "aseg/sub-01/anat/sub-01_seg-hetseg_dseg.json").read_text())
    assert record["Description"] == "43 brain structures, FreeSurfer aseg ids"
    assert record["HetsegSettings"]["structures"] == "aseg"
    assert "43 structures" in (finished / "aseg" / "sub-01.html").read_text()


def test_structures_with_parts_are_those_of_the_other_run(finished):
    paper, aseg = (
        np.asarray(nib.load(f"{stem(finished / name)}_dseg.nii.gz").dataobj)
        for name in ("paper", "aseg")
    )
    beside = np.isin(aseg, (24, 30, 31, 62, 63, 77, 85))
    other = ASEG.collapse(aseg)[~beside] != paper[~beside]
    assert other.mean() < 0.001  # logits of bfloat16 are rounded otherwise with more outputs


def test_the_same_folder_labelled_another_way_is_not_complete(finished):
    bids, out = finished / "bids", finished / "again"
    command = ("hetseg", bids, out, "participant", "--model", finished / "model")
    command += (*FAST, "--structures")
    assert run_cli(*command, "aseg").code == 0
    assert "complete already" in run_cli(*command, "aseg").out
    redone = run_cli(*command, "paper")
    assert redone.code == 0
    assert "complete already" not in redone.out
    assert len(pd.read_csv(f"{stem(out)}_morph.tsv", sep="\t")) == 28 + WHOLES


def test_a_script_gets_the_same(finished):
    path, model = t1w_path(finished / "bids", "01"), str(finished / "model")
    seen = {"views": ["axial"], "mirror": False}
    result = hetseg_bids.segment(path, model=model, device="cpu", structures="aseg", **seen)
    written = nib.load(f"{stem(finished / 'aseg')}_dseg.nii.gz")
    assert np.array_equal(np.asarray(result.dseg.dataobj), np.asarray(written.dataobj))
    assert len(result.volumes) == 43 + WHOLES


def test_parts_are_scored_by_themselves_or_merged(finished, tmp_path):
    result = f"{stem(finished / 'aseg')}_dseg.nii.gz"
    image = nib.load(result)
    labels = np.asarray(image.dataobj)
    # a reference that has no part: cerebellum and ventricles are whole, the callosum is one
    merged = ASEG.collapse(labels)
    references = tmp_path / "references"
    references.mkdir()
    table = tmp_path / "scores.tsv"
    for reference, structures, count in ((labels, "aseg", 43), (merged, "paper", 28)):
        nib.save(nib.Nifti1Image(reference, image.affine), references / "sub-01_dseg.nii.gz")
        command = ("hetseg-evaluate", references, finished / "aseg", "--out", table)
        done = run_cli(*command, "--structures", structures)
        assert done.code == 0, done.err
        scores = pd.read_csv(table, sep="\t").set_index("name")
        assert (scores["dice"] == 1).all()
        assert 5 < len(scores) <= count
    assert not scores.index.str.contains("inferior|cc_").any()
    both = run_cli("hetseg-evaluate", finished / "aseg", finished / "paper", "--out", table)
    assert both.code == 0, both.err
    assert pd.read_csv(table, sep="\t")["dice"].mean() > 0.5, "as far as parts beside allow"
    refused = run_cli(
        "hetseg-evaluate", references, finished / "paper", "--structures", "aseg", "--out", table
    )
    assert refused.code == 2
    assert "not made with --structures aseg" in refused.err


def test_group_and_export_know_freesurfers_names(finished):
    out = finished / "aseg"
    record = Path(f"{stem(out)}_dseg.json")  # as if the image weren't stripped
    text = record.read_text().replace('IntracranialVolume": null', 'IntracranialVolume": 1.5e6')
    record.write_text(text)
    done = run_cli("hetseg", finished / "bids", out, "group", "--normalise", "icv")
    assert done.code == 0, done.err
    raw, shares = (pd.read_csv(out / f"group_volumes{end}.tsv", sep="\t") for end in ("", "_icv"))
    assert list(raw.columns[-43 - len(SUMS) :]) == [*WHOLE_ASEG.names, *SUMS]
    assert raw.loc[0, "total_grey"] > 0
    assert shares.loc[0, "total_grey"] == pytest.approx(raw.loc[0, "total_grey"] / 1.5e6, abs=1e-9)
    assert len(pd.read_csv(out / "group_morph.tsv", sep="\t")) == 43 + WHOLES
    done = run_cli("hetseg-export", out, finished / "subjects")
    assert done.code == 0, done.err
    text = (finished / "subjects/sub-01/stats/aseg.stats").read_text()
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    names = {int(row[1]): row[4] for row in rows}
    assert len(names) == 43
    assert {label: names[label] for label in NAMES} == NAMES
    assert "hold the inferior" not in text


def test_scans_are_judged_by_whole_structures():
    dice = [0.9 if bare_name(name) in SURE else 0.6 for name in WHOLE_ASEG.names]
    table = pd.DataFrame({"name": WHOLE_ASEG.names, "volume_mm3": 30_000.0, "expected_dice": dice})
    vessel = table["name"] == "left_vessel"
    table.loc[vessel, "volume_mm3"] = table.loc[vessel, "expected_dice"] = 0.0
    assert judge(table) == Verdict("pass", ())
    table.loc[table["name"].str.startswith("cc_"), "volume_mm3"] = 0.0
    assert judge(table).reasons == ("not found: corpus callosum",)
    table.loc[table["name"] == "left_cerebellum_cortex", "expected_dice"] = 0.1
    assert "expected Dice below 0.5: left cerebellum" in judge(table).reasons


def test_a_model_without_parts_is_refused_before_anything_is_written(tmp_path):
    bids, model = write_dataset(tmp_path / "bids"), write_tiny_model(tmp_path / "model")
    good(t1w_path(bids, "01"))
    command = ("hetseg", bids, tmp_path / "out", "participant", "--model", model)
    done = run_here(*command, "--skip-bids-validation", "--structures", "aseg")
    assert done.code == 2
    assert "--structures aseg: model tiny doesn't tell apart all that an aseg does" in done.err
    assert not (tmp_path / "out").exists()
