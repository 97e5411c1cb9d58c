"""hetseg through its command line, on real work."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from hetseg_bids.config import RunConfig, Settings
from hetseg_bids.dataset import validator
from hetseg_bids.dataset.discovery import scan_of_dataset
from hetseg_bids.network.fitted import Pooling
from hetseg_bids.network.models import load_model, read_plan
from hetseg_bids.runs.jobs import Job
from hetseg_bids.structures.aseg import STRUCTURES
from support.commands import lasting, run_cli, run_here
from support.corruptions import brain, good
from support.datasets import t1w_path, write_dataset
from support.phantoms import centred_affine, phantom_labels, phantom_t1w, reorient, three_quarters
from support.tiny_model import write_tiny_model

FAST = ("--views", "axial", "--no-mirror")


def outputs(out: Path, subject: str) -> dict[str, Path]:
    anat = out / f"sub-{subject}" / "anat"
    return {
        "dseg": anat / f"sub-{subject}_seg-hetseg_dseg.nii.gz",
        "flip": anat / f"sub-{subject}_seg-hetseg_desc-labelflip_probseg.nii.gz",
        "mask": anat / f"sub-{subject}_desc-brain_mask.nii.gz",
        "morph": anat / f"sub-{subject}_seg-hetseg_morph.tsv",
        "record": anat / f"sub-{subject}_seg-hetseg_dseg.json",
        "report": out / f"sub-{subject}.html",
    }


def page_text(page: Path) -> str:
    return page.read_text().lower()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, phantom) -> tuple[Path, Path]:
    """A dataset with one stripped phantom in LPS, segmented."""
    root = tmp_path_factory.mktemp("run")
    bids, out = write_dataset(root / "bids"), root / "out"
    nib.save(reorient(phantom, "LPS"), t1w_path(bids, "01"))
    done = run_cli("hetseg", bids, out, "participant", *FAST, "-v")
    assert done.code == 0, done.err
    assert "sub-01.html" in done.out
    steps = ("looking for T1w", "segment: 1", "BIDS validator", "sub-01: brain extraction")
    for step in (*steps, "sub-01: segmentation", "sub-01: writing", "sub-01: report"):
        assert step in done.err, "nothing is said for minutes"
    return bids, out


def test_results_lie_on_the_grid_of_the_input(finished):
    bids, out = finished
    source = nib.load(t1w_path(bids, "01"))
    files = outputs(out, "01")
    for kind in ("dseg", "flip", "mask"):
        image = nib.load(files[kind])
        assert image.shape[:3] == source.shape
        np.testing.assert_allclose(image.affine, source.affine, atol=1e-4)
        # the source has a sform only; both say the same in what is written
        assert image.header["sform_code"] == image.header["qform_code"]
        assert image.header["sform_code"] == source.header["sform_code"]
    assert nib.load(files["flip"]).shape[3] == 28


def test_labels_and_probabilities_are_in_range(finished):
    _, out = finished
    files = outputs(out, "01")
    labels = set(np.unique(np.asarray(nib.load(files["dseg"]).dataobj)))
    assert labels <= {0, *(s.label for s in STRUCTURES)}
    q = nib.load(files["flip"]).get_fdata(dtype=np.float32)
    assert q.min() >= 0
    assert q.max() <= 0.5
    assert q.max() > 0.05


def test_the_table_agrees_with_the_image(finished):
    _, out = finished
    files = outputs(out, "01")
    dseg = np.asarray(nib.load(files["dseg"]).dataobj)
    table = pd.read_csv(files["morph"], sep="\t")
    structures = table.iloc[: len(STRUCTURES)]
    assert list(structures["index"]) == [s.label for s in STRUCTURES]
    for _, row in structures.iterrows():
        assert row["volume_mm3"] == pytest.approx((dseg == row["index"]).sum(), abs=0.01)
    dictionary = json.loads(files["morph"].with_suffix(".json").read_text())
    assert set(dictionary) == set(table.columns)
    whole = table.iloc[len(STRUCTURES) :].set_index("name")["volume_mm3"]
    assert list(whole.index)[:2] == ["intracranial", "total_brain"]
    assert np.isnan(whole["intracranial"]), "the image is stripped"
    tissue = structures[~structures["name"].str.contains("ventricle|brainstem")]
    assert whole["total_brain"] == pytest.approx(tissue["volume_mm3"].sum())
    assert not list(out.rglob("*intracranial*"))
    assert "intracranial volume: n/a (the image is stripped" in page_text(files["report"])


def test_sidecars_say_how_the_result_came_to_be(finished):
    bids, out = finished
    record = json.loads(outputs(out, "01")["record"].read_text())
    assert record["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"]
    assert record["SpatialReference"] == "bids:raw:sub-01/anat/sub-01_T1w.nii.gz"
    assert record["HetsegBrainExtraction"] == "skip"
    assert record["HetsegIntracranialVolume"] is None
    assert "stripped" in record["HetsegIntracranialReason"]
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["DatasetLinks"] == {"raw": bids.as_uri()}


def test_a_second_run_does_nothing_and_overwrite_gives_the_same_bytes(finished):
    bids, out = finished
    files = outputs(out, "01")
    before = {k: (p.stat().st_mtime_ns, lasting(p)) for k, p in files.items()}
    again = run_cli("hetseg", bids, out, "participant", *FAST)
    assert again.code == 0
    assert "complete already" in again.out
    assert {k: p.stat().st_mtime_ns for k, p in files.items()} == {
        k: v[0] for k, v in before.items()
    }
    redone = run_cli("hetseg", bids, out, "participant", *FAST, "--overwrite", fresh=True)
    assert redone.code == 0
    for kind, path in files.items():
        assert lasting(path) == before[kind][1], kind


def test_a_lost_file_is_made_again(finished):
    bids, out = finished
    flip = outputs(out, "01")["flip"]
    content = flip.read_bytes()
    flip.unlink()
    assert run_cli("hetseg", bids, out, "participant", *FAST).code == 0
    assert flip.read_bytes() == content


@pytest.mark.parametrize("fault", ["older", "cut off"])
def test_a_table_that_lacks_something_is_no_complete_result(finished, fault):
    bids, out = finished
    morph = outputs(out, "01")["morph"]
    content = morph.read_bytes()
    table = pd.read_csv(morph, sep="\t", dtype=str, keep_default_na=False)
    lacking = table.drop(columns="volume_repeat_sd_mm3") if fault == "older" else table[:-1]
    lacking.to_csv(morph, sep="\t", index=False)
    done = run_cli("hetseg", bids, out, "participant", *FAST, "--reports-only")
    morph.write_bytes(content)
    assert done.code == 1
    assert "no complete results" in done.err


def test_views_pooled_otherwise_are_another_model(finished, tmp_path):
    bids, _ = finished
    model, out = write_tiny_model(tmp_path / "model"), tmp_path / "out"
    command = ("hetseg", bids, out, "participant", *FAST, "--model", model)
    assert run_cli(*command).code == 0
    files = outputs(out, "01")
    labels, q = files["dseg"].read_bytes(), files["flip"].read_bytes()
    assert json.loads(files["record"].read_text())["HetsegPooling"] is None
    replace(read_plan(model), pooling=Pooling(0.8, 0.25)).save(model)
    redone = run_cli(*command)
    assert redone.code == 0
    assert "complete already" not in redone.out
    assert files["dseg"].read_bytes() == labels
    assert files["flip"].read_bytes() != q
    assert json.loads(files["record"].read_text())["HetsegPooling"]["ensemble"] == 0.25
    assert "complete already" in run_cli(*command).out


def test_a_model_without_mirror_image_runs_and_is_recorded_as_such(tmp_path):
    bids, model = write_dataset(tmp_path / "bids"), write_tiny_model(tmp_path / "model")
    good(t1w_path(bids, "01"))
    replace(read_plan(model), mirror=False).save(model)
    command = ("hetseg", bids, tmp_path / "out", "participant", "--model", model)
    command += ("--views", "axial", "--skip-bids-validation")
    done = run_cli(*command)
    assert done.code == 0, done.err
    files = outputs(tmp_path / "out", "01")
    assert json.loads(files["record"].read_text())["HetsegSettings"]["mirror"] is False
    assert "mirror image" not in files["report"].read_text()
    assert "complete already" in run_cli(*command, "--no-mirror").out, "asks for the same"


def test_no_temporary_file_stays(finished):
    _, out = finished
    assert not list(out.rglob(".tmp-*"))


def test_group_gathers_the_volumes(finished):
    _, out = finished
    done = run_cli("hetseg", finished[0], out, "group")
    assert done.code == 0, done.err
    table = pd.read_csv(out / "group_morph.tsv", sep="\t")
    assert len(table) == 28 + 5  # structures, then the whole head
    assert set(table["participant_id"]) == {"sub-01"}


def test_dry_run_lists_and_writes_nothing(finished, tmp_path):
    done = run_cli("hetseg", finished[0], tmp_path / "out", "participant", "--dry-run")
    assert done.code == 0
    assert done.out.strip().endswith("sub-01_T1w.nii.gz")
    assert not (tmp_path / "out").exists()


def test_outputs_are_valid_bids_derivatives(finished):
    bids, out = finished
    assert run_cli("hetseg", bids, out, "group").code == 0
    heard: list[str] = []
    with validator.validated(out, heard.append):
        pass
    assert not heard


def test_the_validator_is_heard_but_not_fatal(tmp_path):
    bids, model = write_dataset(tmp_path / "bids"), write_tiny_model(tmp_path / "model")
    good(t1w_path(bids, "01"))
    (bids / "sub-01" / "anat" / "notes.txt").write_text("not BIDS")
    command = ("hetseg", bids, tmp_path / "out", "participant", *FAST, "--model", model)
    heard = run_cli(*command)
    assert heard.code == 0, heard.err
    assert "NOT_INCLUDED in /sub-01/anat/notes.txt" in heard.err
    spared = run_cli(*command, "--skip-bids-validation")
    assert "NOT_INCLUDED" not in spared.err
    one = run_cli(*command, "--participant-label", "01")
    assert "NOT_INCLUDED" not in one.err


def test_reports_can_be_written_again(finished):
    bids, out = finished
    page = outputs(out, "01")["report"]
    content = page.read_bytes()
    page.unlink()
    done = run_cli("hetseg", bids, out, "participant", *FAST, "--reports-only")
    assert done.code == 0, done.err
    assert page.read_bytes() == content


def test_the_page_of_a_whole_head_is_the_same_when_its_file_is_read_again(tmp_path):
    labels, affine = phantom_labels(), np.diag([1.3, 1, 1, 1])  # interpolated, air isn't 0
    mask = ((labels > 0) & (labels != 211)).astype(np.uint8)
    nib.save(nib.Nifti1Image(phantom_t1w(labels) + 50, affine), tmp_path / "T1.nii.gz")
    nib.save(nib.Nifti1Image(mask, affine), tmp_path / "T1_mask.nii.gz")
    model, out = write_tiny_model(tmp_path / "model"), tmp_path / "out"
    options = (*FAST, "--model", model, "--brain-extraction", "mask")
    done = run_cli("hetseg", tmp_path / "T1.nii.gz", out, *options)
    assert done.code == 0, done.err
    record = json.loads((out / "T1" / "T1_seg-hetseg_dseg.json").read_text())
    assert "stripped" not in (record["HetsegIntracranialReason"] or "")
    page = out / "T1.html"
    content = page.read_bytes()
    assert run_cli("hetseg", tmp_path / "T1.nii.gz", out, *options, "--reports-only").code == 0
    assert page.read_bytes() == content


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (lambda _: None, (), "no such folder"),
        (lambda d: d.mkdir(), (), "no dataset_description.json"),
        (lambda d: write_dataset(d), (), "no participants"),
        (lambda d: t1w_path(write_dataset(d), "01").with_suffix(".json").touch(), (), "no sub-*"),
        (
            lambda d: t1w_path(write_dataset(d), "01").touch(),
            ("--participant-label", "02"),
            "no participant sub-02",
        ),
        (lambda d: t1w_path(write_dataset(d), "01").touch(), ("--model", "nope"), "nope"),
        (lambda d: t1w_path(write_dataset(d), "01").touch(), ("--device", "cuda:7"), "cuda:7"),
        (lambda d: t1w_path(write_dataset(d), "01").touch(), ("--views", "oblique"), "oblique"),
        (lambda d: write_dataset(d), ("--participant-label", "../x"), "not a BIDS label"),
    ],
)
def test_unusable_input_ends_with_code_2_and_a_reason(tmp_path, prepare, arguments, message):
    bids = tmp_path / "bids"
    prepare(bids)
    done = run_here("hetseg", bids, tmp_path / "out", "participant", *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.glob("out/sub-*"))


def test_output_must_not_be_the_dataset(tmp_path):
    bids = write_dataset(tmp_path / "bids")
    t1w_path(bids, "01").touch()
    done = run_here("hetseg", bids, bids, "participant")
    assert done.code == 2
    assert "dataset itself" in done.err


@pytest.mark.slow
def test_a_whole_head_goes_through_the_brain_extraction(tmp_path):
    # a phantom isn't a head, so the mask is given; deepbet itself runs on the real scans
    bids, out = write_dataset(tmp_path / "bids"), tmp_path / "out"
    labels = three_quarters(phantom_labels())
    affine = centred_affine(labels.shape)
    path = t1w_path(bids, "01")
    nib.save(nib.Nifti1Image(phantom_t1w(labels), affine), path)
    command = ("hetseg", bids, out, "participant", *FAST, "--brain-extraction", "mask")
    command += ("--model", write_tiny_model(tmp_path / "model"))
    failed = run_cli(*command)
    assert failed.code == 1
    assert "sub-01_desc-brain_mask.nii.gz" in failed.err
    brain = ((labels > 0) & (labels != 211)).astype(np.uint8)
    nib.save(nib.Nifti1Image(brain, affine), path.with_name("sub-01_desc-brain_mask.nii.gz"))
    done = run_cli(*command)
    assert done.code == 0, done.err
    mask = np.asarray(nib.load(outputs(out, "01")["mask"]).dataobj)
    np.testing.assert_array_equal(mask, brain)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_is_read_only(tmp_path):
    bids = write_dataset(tmp_path / "bids")
    t1w_path(bids, "01").touch()
    (tmp_path / "out").mkdir(mode=0o555)
    done = run_cli("hetseg", bids, tmp_path / "out", "participant")
    assert done.code == 2
    assert "can't write" in done.err


def volumes(out: Path, subject: str) -> dict[str, float]:
    table = pd.read_csv(outputs(out, subject)["morph"], sep="\t")
    return dict(zip(table["name"], table["volume_mm3"], strict=True))


def centre_x(path: Path, label: int) -> float:
    image = nib.load(path)
    index = np.argwhere(np.asarray(image.dataobj) == label)
    assert len(index), label
    return float((image.affine @ np.append(index.mean(axis=0), 1))[0])


@pytest.mark.slow
def test_left_is_left(tmp_path, mni152):
    """The MNI152 head without its left cerebellar hemisphere.

    Two other orders are those of a real scan in test_real_scans.py, all of them in test_conform.py.

    That what is averaged over mirror images keeps its sides is tested in test_inference.py.
    """
    bids, out = write_dataset(tmp_path / "bids"), tmp_path / "out"
    data = mni152.get_fdata(dtype=np.float32).copy()
    index = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing="ij"), axis=-1)
    world = index @ mni152.affine[:3, :3].T + mni152.affine[:3, 3]
    x, y, z = np.moveaxis(world, -1, 0)
    data[(x < -4) & (y < -38) & (z < -18)] = 0
    image = nib.Nifti1Image(data, mni152.affine)
    nib.save(reorient(image, "RAS"), t1w_path(bids, "01"))
    done = run_cli("hetseg", bids, out, "participant", *FAST)
    assert done.code == 0, done.err
    found = volumes(out, "01")
    assert found["right_cerebellum"] > 40_000
    assert found["left_cerebellum"] < 0.4 * found["right_cerebellum"]
    dseg = outputs(out, "01")["dseg"]
    for structure in STRUCTURES:
        if structure.name == "left_cerebellum":
            continue  # what is left of it lies at the midline
        if structure.hemisphere == "L":
            assert centre_x(dseg, structure.label) < 0, structure.name
        elif structure.hemisphere == "R":
            assert centre_x(dseg, structure.label) > 0, structure.name


def test_a_mask_that_an_earlier_run_wrote_is_not_the_users(tmp_path):
    bids = write_dataset(tmp_path / "bids")
    scan = scan_of_dataset(t1w_path(bids, "01"), "sub-01")
    good(scan.path)
    name = "sub-01/anat/sub-01_desc-brain_mask"
    for pipeline in ("hetseg", "manual"):
        mask = bids / "derivatives" / pipeline / f"{name}.nii.gz"
        mask.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(brain().astype(np.uint8), np.eye(4)), mask)
    (bids / "derivatives" / "hetseg" / f"{name}.json").write_text('{"HetsegVersion": "0.1.0"}')
    settings = Settings(brain_extraction="mask")
    config = RunConfig(bids, tmp_path / "out", settings=settings)
    job = Job.of(scan, config, load_model("label-flip", torch.device("cpu")))
    assert job.mask_path == (bids / "derivatives" / "manual" / f"{name}.nii.gz").resolve()
