"""Errors say in fields what users see as one line, and callers tell domains apart by class."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hetseg_bids import errors, segment
from hetseg_bids.config import RunConfig, Selection, Settings
from hetseg_bids.errors import (
    ASIDE,
    COLON,
    DatasetError,
    HeaderError,
    HeldError,
    HetsegError,
    ImageError,
    MaskError,
    ModelError,
    OptionError,
    OutputError,
)
from hetseg_bids.runs.locks import claimed
from hetseg_bids.runs.participants import run_participants
from support.commands import run_here
from support.corruptions import good, truncated
from support.datasets import t1w_path, write_dataset
from support.phantoms import centred_affine
from support.tiny_model import write_tiny_model

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, HetsegError)]
FIELDS = ("problem", "remedy", "path", "option", "scan", "form")
SCAN, MASK = Path("/in/sub-01_T1w.nii.gz"), Path("/in/mask.nii")


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "it is odd"),
        ({"remedy": "mend it"}, "it is odd; mend it"),
        ({"remedy": "mend it", "form": COLON}, "it is odd: mend it"),
        ({"remedy": "a {}; mend it", "form": ASIDE}, "it is odd (a {}; mend it)"),
        ({"form": ASIDE}, "it is odd"),
        ({"path": MASK, "remedy": "mend it"}, "/in/mask.nii: it is odd; mend it"),
        ({"option": "--model x"}, "--model x: it is odd"),
        ({"option": "--labels", "path": MASK}, "--labels /in/mask.nii: it is odd"),
        ({"path": MASK, "scan": SCAN}, "/in/sub-01_T1w.nii.gz: /in/mask.nii: it is odd"),
    ],
)
def test_the_line_is_made_from_the_fields(fields, line):
    assert str(HetsegError("it is odd", **fields)) == line


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("duplicate", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])  # noqa: S301
def test_errors_keep_class_and_fields_on_their_way_between_processes(kind, duplicate):
    error = kind("odd", "mend it", path=MASK, option="--mask", scan=SCAN, form=ASIDE)
    again = duplicate(error)
    assert type(again) is kind
    assert [getattr(again, name) for name in FIELDS] == [getattr(error, name) for name in FIELDS]
    assert str(again) == str(error) == f"{SCAN}: --mask {MASK}: odd (mend it)"


def test_at_a_scan_an_error_keeps_the_file_at_fault():
    error = MaskError("no brain found", "check the contrast").at(SCAN)
    assert (type(error), error.path, error.scan) == (MaskError, SCAN, None)
    assert str(error) == f"{SCAN}: no brain found; check the contrast"
    of_the_mask = MaskError("empty", "copy it", path=MASK, form=ASIDE).at(SCAN)
    assert (of_the_mask.path, of_the_mask.scan) == (MASK, SCAN)
    assert str(of_the_mask) == f"{SCAN}: {MASK}: empty (copy it)"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_tiny_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def t1w(tmp_path):
    path = tmp_path / "sub-01_T1w.nii.gz"
    good(path)
    return path


def raised_by_segment(kind: type[HetsegError], *arguments: object, **options: object):
    with pytest.raises(HetsegError) as refusal:
        segment(*arguments, **({"device": "cpu"} | options))
    assert type(refusal.value) is kind
    return refusal.value


def test_segment_tells_what_is_wrong_with_the_image(tmp_path, t1w, model):
    error = raised_by_segment(ImageError, tmp_path / "absent.nii", model=model)
    assert (error.path, error.problem) == (tmp_path / "absent.nii", "no such file")
    truncated(t1w)
    error = raised_by_segment(ImageError, t1w, model=model)
    assert error.path == t1w
    assert error.problem.startswith("truncated or corrupt (")
    assert error.remedy == "copy the file again"


def test_segment_tells_what_is_wrong_with_the_header(tmp_path, model):
    path = tmp_path / "a.nii"
    path.write_bytes(bytes(128) + b"DICM" + bytes(300))
    error = raised_by_segment(HeaderError, path, model=model)
    assert isinstance(error, ImageError)
    assert (error.path, error.problem) == (path, "not a readable NIfTI image")
    assert error.remedy == "DICOM; convert the series with dcm2niix"
    assert str(error) == f"{path}: {error.problem} ({error.remedy})"
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9, 2), np.float32), np.eye(4)), path)
    error = raised_by_segment(HeaderError, path, model=model)
    assert (error.path, error.problem) == (path, "4-D image of shape (9, 9, 9, 2)")
    assert "average or split the frames" in error.remedy
    affine = centred_affine((50, 50, 50), 1e-3)
    nib.save(nib.Nifti1Image(np.ones((50, 50, 50), np.float32), affine), path)
    error = raised_by_segment(HeaderError, path, model=model)
    assert error.problem.startswith("sform: voxels of ")
    assert error.remedy == "check the header's units"


def test_segment_tells_what_is_wrong_with_the_mask(tmp_path, t1w, model):
    mask = tmp_path / "mask.nii.gz"
    options = {"model": model, "brain_extraction": "mask", "mask": mask}
    mask.write_bytes(b"")
    error = raised_by_segment(MaskError, t1w, **options)
    assert (error.path, error.scan) == (mask, t1w)
    assert error.remedy == "empty; copy or convert it again"
    assert str(error) == f"{t1w}: {mask}: not a readable NIfTI image ({error.remedy})"
    image = nib.load(t1w)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), mask)
    error = raised_by_segment(MaskError, t1w, **options)
    assert (error.path, error.scan) == (t1w, None)
    assert error.problem == "brain mask of 0 ml is not one brain (300-2800 ml expected)"
    assert error.remedy == "give a mask with --brain-extraction mask, or check the scan"
    error = raised_by_segment(MaskError, t1w, **(options | {"mask": None}))
    assert (error.path, error.problem) == (t1w, "no brain mask found")


def test_segment_tells_what_is_wrong_with_the_model_and_the_device(tmp_path, t1w, model):
    error = raised_by_segment(ModelError, t1w, model="absent")
    assert (error.path, error.option) == (None, "--model absent")
    folder = write_tiny_model(tmp_path / "tiny")
    (folder / "weights.safetensors").unlink()
    error = raised_by_segment(ModelError, t1w, model=str(folder))
    assert (error.path, error.problem) == (folder, "weights.safetensors is missing")
    assert error.remedy == "install the model again"
    error = raised_by_segment(OptionError, t1w, model=model, device="tpu")
    assert (error.problem, error.path) == ("--device tpu", None)
    assert error.remedy == "use auto, cpu, cuda, cuda:N or mps"


@pytest.fixture
def bids(tmp_path):
    root = write_dataset(tmp_path / "bids")
    good(t1w_path(root, "01"))
    return root


def same_from_the_command_line(config: RunConfig, *options: object) -> HetsegError:
    """The error of a run; the command ends with its line and exit code 2."""
    with pytest.raises(HetsegError) as refusal:
        run_participants(config)
    done = run_here("hetseg", config.bids_dir, config.out_dir, "participant", *options)
    assert done.code == 2
    assert done.err.splitlines()[-1] == f"hetseg: {refusal.value}"
    return refusal.value


def test_the_command_line_prints_what_the_run_raises(bids, tmp_path):
    out, quiet = tmp_path / "out", "--skip-bids-validation"
    unchecked = Selection(validate=False)

    absent = tmp_path / "absent"
    error = same_from_the_command_line(RunConfig(absent, out))
    assert (type(error), error.path, error.problem) == (DatasetError, absent, "no such folder")
    assert error.remedy == "the first argument is the BIDS dataset"

    wanted = tmp_path / "filter.json"
    wanted.write_text('{"t1w": ["ses-1"]}')
    error = same_from_the_command_line(
        RunConfig(bids, out, Selection(filter_file=wanted)), "--bids-filter-file", wanted
    )
    assert (type(error), error.path, error.option) == (OptionError, wanted, "--bids-filter-file")

    error = same_from_the_command_line(
        RunConfig(bids, out, unchecked, Settings(model="absent")), quiet, "--model", "absent"
    )
    assert (type(error), error.option) == (ModelError, "--model absent")

    error = same_from_the_command_line(RunConfig(bids, bids, unchecked), quiet)
    assert (type(error), error.path, error.remedy) == (OutputError, bids, "choose another")
    assert not out.exists()


def test_who_comes_second_learns_what_is_held(tmp_path):
    lock = tmp_path / "logs" / ".lock"
    with claimed(lock, SCAN), pytest.raises(OutputError) as refusal, claimed(lock, SCAN):
        pass
    assert (type(refusal.value), refusal.value.path) == (HeldError, SCAN)
    assert refusal.value.remedy == "give the command again when that has ended"
