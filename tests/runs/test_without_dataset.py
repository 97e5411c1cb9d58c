"""Runs without a BIDS dataset: `hetseg T1W [T1W ...] OUT`, `hetseg FOLDER OUT --no-bids`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from support.browsing import Tags
from support.commands import run_cli, run_here
from support.corruptions import ZOOM, brain, good
from support.datasets import t1w_path, write_dataset
from support.phantoms import centred_affine, reorient
from support.tiny_model import write_tiny_model

QUICK = ("--views", "axial", "--no-mirror", "--brain-extraction", "skip")
HOSTILE = "it's <img src=x onerror=alert(1)> & 50% #1"


def as_conformed() -> nib.Nifti1Image:
    """The good image with the axes of FreeSurfer's conformed images, in their type."""
    data = brain()
    voxels = (data * (255 / data.max())).round().astype(np.uint8)
    return reorient(nib.Nifti1Image(voxels, centred_affine(data.shape, ZOOM)), "LIA")


def write_mgz(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = as_conformed()
    nib.save(nib.MGHImage(np.asarray(image.dataobj), image.affine), path)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder of images, segmented: `scans`, `out`, `model`, and what was printed in `err`."""
    root = tmp_path_factory.mktemp("files")
    scans = root / "scans"
    write_mgz(scans / "bert" / "mri" / "orig.mgz")
    # as other programs convert it: the same voxels in the same places
    mgz = nib.load(scans / "bert" / "mri" / "orig.mgz")
    converted = nib.Nifti1Image(np.asarray(mgz.dataobj), mgz.affine)
    converted.set_qform(mgz.affine, 1)
    converted.set_sform(mgz.affine, 1)
    nib.save(converted, scans / "converted.nii.gz")
    good(scans / f"{HOSTILE}.nii.gz")
    (scans / "broken.nii.gz").write_text("no image")
    (scans / "converted_mask.nii.gz").write_text("no T1w")
    (scans / "participants.tsv").write_text(
        f"participant_id\tsex\nconverted\tF\n{HOSTILE}\tM\nnobody\tM\n"
    )
    write_tiny_model(root / "model")
    done = run_cli("hetseg", *command(root))
    assert done.code == 1, done.err
    (root / "err").write_text(done.err)
    return root


def command(root: Path, *more: object) -> tuple[object, ...]:
    folders = (root / "scans", root / "out", *more, "--no-bids")
    return (*folders, "--model", root / "model", *QUICK)


def test_one_bad_file_costs_no_other_its_result(root):
    err = (root / "err").read_text()
    assert "converted_mask.nii.gz': named as a mask or label image; left out" in err
    assert "broken: FAILED" in err
    assert "1 of 4 scans failed" in err
    assert len(list((root / "out" / "logs").glob("crash-broken-*.txt"))) == 1
    assert sorted(path.stem for path in (root / "out").glob("*.html")) == sorted(
        ["bert_orig", "converted", HOSTILE]
    )


def test_results_keep_the_names_of_the_files(root):
    out = root / "out"
    assert {path.name for path in (out / "converted").iterdir()} == {
        f"converted_{ending}"
        for ending in (
            *("seg-hetseg_dseg.nii.gz", "seg-hetseg_dseg.json", "seg-hetseg_dseg.tsv"),
            *("seg-hetseg_desc-labelflip_probseg.nii.gz", "seg-hetseg_desc-labelflip_probseg.json"),
            *("seg-hetseg_morph.tsv", "seg-hetseg_morph.json"),
            *("desc-brain_mask.nii.gz", "desc-brain_mask.json"),
        )
    }
    assert (out / "logs" / "converted_run.json").exists()
    assert not (out / "dataset_description.json").exists(), "it isn't a BIDS dataset"
    record = json.loads((out / "bert_orig" / "bert_orig_seg-hetseg_dseg.json").read_text())
    assert record["Sources"] == ["../scans/bert/mri/orig.mgz"]
    assert record["SpatialReference"] == "../scans/bert/mri/orig.mgz"
    page = (out / "bert_orig.html").read_text()
    assert "organised as BIDS" not in page
    assert "T1-weighted images were segmented" in page


def test_names_mean_no_harm(root):
    tags = Tags((root / "out" / f"{HOSTILE}.html").read_text()).found
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert (root / "out" / HOSTILE / f"{HOSTILE}_seg-hetseg_dseg.nii.gz").exists()


def test_freesurfers_format_gives_the_result_of_nifti(root):
    images = {}
    for name in ("bert_orig", "converted"):
        stem = root / "out" / name / f"{name}_seg-hetseg"
        for ending in ("dseg", "desc-labelflip_probseg"):
            images[name, ending] = nib.load(f"{stem}_{ending}.nii.gz")
    source = as_conformed()
    for ending in ("dseg", "desc-labelflip_probseg"):
        ours, theirs = images["bert_orig", ending], images["converted", ending]
        assert np.array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
        assert ours.shape[:3] == source.shape
        np.testing.assert_allclose(ours.affine, source.affine, atol=1e-4)
        assert (ours.header["qform_code"], ours.header["sform_code"]) == (1, 1)
    assert nib.aff2axcodes(images["bert_orig", "dseg"].affine) == ("L", "I", "A")


def test_a_second_run_finds_everything_done_wherever_it_starts(root, tmp_path, monkeypatch):
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    records = sorted(moved.glob("out/*/*_dseg.json"))
    model = root / "model"  # a part of the settings
    before = [path.stat().st_mtime_ns for path in records]
    (moved / "scans" / "broken.nii.gz").unlink()
    (moved / "scans").rename(moved / "elsewhere")
    monkeypatch.chdir(moved)
    again = run_cli("hetseg", "elsewhere", "out", "--no-bids", "--model", model, *QUICK)
    assert again.code == 0, again.err
    assert again.out.count("complete already") == 3
    assert [path.stat().st_mtime_ns for path in records] == before


def test_group_gathers_them_and_names_who_is_missing(root):
    out = root / "out"
    done = run_cli("hetseg", root / "scans", out, "group", "--no-bids")
    assert done.code == 0, done.err
    assert done.out.strip() == str(out / "group.html")
    morph = pd.read_csv(out / "group_morph.tsv", sep="\t")
    assert set(morph["participant_id"]) == {"bert_orig", "converted", HOSTILE}
    missing = pd.read_csv(out / "group_missing.tsv", sep="\t", keep_default_na=False)
    missing = missing.set_index("participant_id")
    assert sorted(missing.index) == ["broken", "nobody"]
    assert "not a readable NIfTI image" in missing.loc["broken", "reason"]
    assert missing.loc["nobody", "reason"] == "only in participants.tsv"
    page = (out / "group.html").read_text()
    assert '"sex"' in page, "participants.tsv gives the filters"
    assert not any(
        name.startswith("on") for _, attributes in Tags(page).found for name in attributes
    )


def test_group_goes_by_the_files_that_are_given(root):
    scans, out = root / "scans", root / "out"
    done = run_cli("hetseg", scans / "converted.nii.gz", scans / "lost.nii", out, "group")
    assert done.code == 0, done.err
    assert "2 finished scans are not among the images given" in done.err
    missing = pd.read_csv(out / "group_missing.tsv", sep="\t", keep_default_na=False)
    assert list(missing["scan"]) == ["broken", "lost"]
    done = run_cli("hetseg", root / "archived", out, "group", "--no-bids")
    assert done.code == 0, done.err
    assert "it can't be told which images are missing" in done.err
    assert not (out / "group_missing.tsv").exists()


def test_freesurfers_tools_get_them(root, tmp_path):
    done = run_cli("hetseg-export", root / "out", tmp_path)
    assert done.code == 0, done.err
    ours = nib.load(tmp_path / "bert_orig" / "mri" / "aseg.mgz")
    source = nib.load(root / "scans" / "bert" / "mri" / "orig.mgz")
    np.testing.assert_allclose(ours.affine, source.affine, atol=1e-4)
    assert ours.shape == source.shape


def test_files_of_one_name_never_replace_each_others_results(root, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    good(tmp_path / "a" / "T1.nii.gz")
    shutil.copy(root / "scans" / "converted.nii.gz", tmp_path / "b" / "T1.nii.gz")
    t1ws, out = [tmp_path / name / "T1.nii.gz" for name in ("a", "b")], tmp_path / "out"
    options = ("--model", root / "model", *QUICK)
    # one call: both; two calls, which know nothing of each other: the second is refused
    assert run_cli("hetseg", t1ws[0], out, *options).code == 0
    record = (out / "T1" / "T1_seg-hetseg_dseg.json").read_bytes()
    second = run_cli("hetseg", t1ws[1], out, *options, "--overwrite")
    assert second.code == 1
    assert "holds the results of another image (../a/T1.nii.gz)" in second.err
    assert (out / "T1" / "T1_seg-hetseg_dseg.json").read_bytes() == record
    together = run_cli("hetseg", *t1ws, out, *options, "--nprocs", 2)
    assert together.code == 0, together.err
    sources = [
        json.loads((out / name / f"{name}_seg-hetseg_dseg.json").read_text())["Sources"]
        for name in ("a_T1", "b_T1")
    ]
    assert sources == [["../a/T1.nii.gz"], ["../b/T1.nii.gz"]]


def test_a_mask_beside_the_image_is_used(tmp_path):
    image = as_conformed()
    voxels = np.asarray(image.dataobj)
    write_mgz(tmp_path / "T1.mgz")
    inside = (voxels > 0).astype(np.uint8)
    inside[:, :15] = 0
    nib.save(nib.MGHImage(inside, image.affine), tmp_path / "T1_mask.mgz")
    model = write_tiny_model(tmp_path / "model")
    options = ("--views", "axial", "--no-mirror", "--model", model, "--brain-extraction", "mask")
    done = run_cli("hetseg", tmp_path / "T1.mgz", tmp_path / "out", *options)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "out/T1/T1_seg-hetseg_dseg.json").read_text())
    assert record["Sources"] == ["../T1.mgz", "../T1_mask.mgz"]
    mask = np.asarray(nib.load(tmp_path / "out/T1/T1_desc-brain_mask.nii.gz").dataobj)
    assert (mask != inside).mean() < 0.01


def test_dry_run_lists_and_writes_nothing(tmp_path):
    good(tmp_path / "T1.nii.gz")
    done = run_here("hetseg", tmp_path / "T1.nii.gz", tmp_path / "out", "--dry-run")
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "T1.nii.gz"))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    good(tmp_path / "T1.nii.gz")
    shutil.copy("T1.nii.gz", "other.nii.gz")
    (tmp_path / "scan.dcm").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "x_mask.nii.gz").touch()
    Path("empty").mkdir()
    good(t1w_path(write_dataset(tmp_path / "bids"), "01"))
    write_dataset(tmp_path / "derivatives")
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("T1.nii.gz", "T1.nii.gz: named as an image; the last word is the folder"),
        ("T1.nii.gz other.nii.gz", "other.nii.gz: named as an image; the last word is the folder"),
        ("T1.nii.gz segmented.nii.gz", "segmented.nii.gz: named as an image"),  # as for SynthSeg
        ("out --no-bids", "the folder for the results is missing, or the images (given: out)"),
        ("empty out", "empty: a folder; `hetseg FOLDER OUT --no-bids` segments all images"),
        ("bids out", "`hetseg BIDS_DIR OUT_DIR participant` those of a BIDS dataset"),
        ("bids out particpant", "bids: a folder"),
        ("empty out --no-bids", "empty: no image (.nii.gz, .nii, .mgz, .mgh) in it"),
        ("absent.nii.gz out", "absent.nii.gz: no such file"),
        ("absent out --no-bids", "not named as an image"),
        (f"{'n' * 300}.nii out", "no such file"),
        (f"{'n' * 300} out --no-bids", "not named as an image"),
        ("scan.dcm out", "scan.dcm': not named as an image (.nii.gz, .nii, .mgz, .mgh); DICOM"),
        ("x_mask.nii.gz out", "x_mask.nii.gz': named as a mask or label image"),
        ("T1.nii.gz out --participant-label 01", "--participant-label is for BIDS datasets"),
        ("T1.nii.gz out --bids-filter-file=x", "--bids-filter-file is for BIDS datasets"),
        ("T1.nii.gz out --skip-bids-validation", "--skip-bids-validation is for BIDS datasets"),
        ("T1.nii.gz derivatives", "derivatives: it is a BIDS dataset"),
        ("bids bids --no-bids", "bids: the output folder is the input folder"),
        ("bids/dataset_description.json out", "not named as an image"),
        ("T1.nii.gz scan.dcm/x", "scan.dcm/x: can't write there"),
        ("T1.nii.gz out --model nope", "nope"),
    ],
)
def test_a_mistake_gets_one_line_and_nothing_is_written(words, said):
    before = sorted(Path().rglob("*"))
    done = run_here("hetseg", *words.split())
    assert done.code == 2, done.err
    assert said in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert sorted(Path().rglob("*")) == before


@pytest.mark.usefixtures("here")
def test_the_words_of_both_forms_are_told_apart():
    for words, listed in (
        ("bids out participant", ["bids/sub-01/anat/sub-01_T1w.nii.gz"]),
        ("bids out --no-bids", ["bids/sub-01/anat/sub-01_T1w.nii.gz"]),
        ("bids out participant --no-bids", ["bids/sub-01/anat/sub-01_T1w.nii.gz"]),
        ("T1.nii.gz other.nii.gz out", ["T1.nii.gz", "other.nii.gz"]),
        ("T1.nii.gz --omp-nthreads 1 other.nii.gz out", ["T1.nii.gz", "other.nii.gz"]),
        ("T1.nii.gz out participant", ["T1.nii.gz"]),
        ("T1.nii.gz group", ["T1.nii.gz"]),  # a folder of that name
        ("T1.nii.gz other.nii.gz group", ["T1.nii.gz", "other.nii.gz"]),
        ("T1.nii.gz bids out --no-bids", ["T1.nii.gz", "bids/sub-01/anat/sub-01_T1w.nii.gz"]),
    ):
        done = run_here("hetseg", *words.split(), "--dry-run")
        assert done.code == 0, done.err
        assert done.out.split() == [str(Path.cwd() / name) for name in listed], words


def test_both_forms_are_in_the_help():
    assert "hetseg T1W [T1W ...] OUT" in run_here("hetseg", "--help").out
    usage = run_here("hetseg", "--no-bids", "--help").out
    assert usage.startswith("usage: hetseg T1W [T1W ...] OUT [options]")
    assert "--participant-label" not in usage


def test_a_mask_that_is_a_broken_link_is_not_taken_for_none(tmp_path):
    good(tmp_path / "X.nii.gz")
    (tmp_path / "X_label-lesion_mask.nii.gz").symlink_to("gone")
    done = run_here(
        "hetseg", tmp_path / "X.nii.gz", tmp_path / "out", "--lesion-mask", "--device", "cpu"
    )
    assert done.code == 1
    assert "X_label-lesion_mask.nii.gz: broken link" in done.err
