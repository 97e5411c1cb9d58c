"""hetseg in a script gives what the command line writes."""

from __future__ import annotations

import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import hetseg_bids
from hetseg_bids.errors import DatasetError, HetsegError, ImageError, ModelError, OptionError
from hetseg_bids.structures.aseg import N_STRUCTURES
from support.commands import run_cli
from support.corruptions import ZOOM, brain, good
from support.datasets import t1w_path, write_dataset
from support.phantoms import centred_affine, reorient, stripped_phantom, three_quarters
from support.tiny_model import write_tiny_model


def test_result_is_that_of_the_command_line(tmp_path):
    data = three_quarters(stripped_phantom())[::2, ::2, ::2]
    bids, model = write_dataset(tmp_path / "bids"), write_tiny_model(tmp_path / "model")
    path = t1w_path(bids, "01")
    nib.save(reorient(nib.Nifti1Image(data, centred_affine(data.shape, 2)), "LSP"), path)
    result = hetseg_bids.segment(path, model=str(model), device="cpu")
    done = run_cli("hetseg", bids, tmp_path / "out", "participant", "--model", model)
    assert done.code == 0, done.err
    stem = tmp_path / "out/sub-01/anat/sub-01_seg-hetseg"
    dseg = nib.load(f"{stem}_dseg.nii.gz")
    assert np.allclose(dseg.affine, result.dseg.affine)
    assert np.array_equal(np.asarray(dseg.dataobj), np.asarray(result.dseg.dataobj))
    written = nib.load(f"{stem}_desc-labelflip_probseg.nii.gz")
    for image in (result.probability, result.flip_probability, written):
        assert image.shape == (*dseg.shape, N_STRUCTURES)
    np.testing.assert_array_equal(result.flip_probability.get_fdata(), written.get_fdata())
    np.testing.assert_allclose(result.flip_probability.affine, dseg.affine, atol=1e-5)
    # one byte a voxel, scaled when asked for, one structure at a time if that is all that's wanted
    for image, step in ((result.flip_probability, 0.5 / 255), (result.probability, 1 / 255)):
        levels = image.dataobj.get_unscaled()
        assert levels.dtype == np.uint8
        np.testing.assert_allclose(image.dataobj[..., 3], levels[..., 3] * step, rtol=1e-6)
    p, q = result.probability.get_fdata(), result.flip_probability.get_fdata()
    # p is q or 1 - q, each rounded by itself
    assert np.minimum(abs(p - q), abs(1 - p - q)).max() <= 1 / 510 + 1 / 1020 + 1e-9
    morph = pd.read_csv(f"{stem}_morph.tsv", sep="\t", na_values="n/a")
    assert list(result.volumes["name"]) == list(morph["name"])
    for column in ("volume_mm3", "volume_repeat_sd_mm3"):
        assert np.allclose(result.volumes[column], morph[column], atol=0.1, equal_nan=True)
    assert (morph["volume_repeat_sd_mm3"][:N_STRUCTURES] > 0).all()
    assert result.intracranial is None
    assert "stripped" in result.intracranial_reason


def test_what_cannot_be_used_raises_one_line(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        hetseg_bids.segment(tmp_path / "absent.nii.gz")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"views": "axail"}, "views"),
        ({"views": ()}, "views"),
        ({"views": ("axial", "axial")}, "each once"),
        ({"brain_extraction": "bet"}, "brain_extraction"),
        ({"mask": "mask.nii.gz"}, "brain_extraction='mask' only"),
        ({"lesion_label": "tissue"}, "lesion_label"),
        ({"structures": "all"}, "paper or aseg"),
    ],
)
def test_options_that_mean_nothing_are_refused_at_once(tmp_path, option, message):
    with pytest.raises(OptionError, match=message):
        hetseg_bids.segment(tmp_path / "absent.nii.gz", **option)
    if not {"mask", "lesion_label"} & set(option):
        with pytest.raises(OptionError, match=message):
            hetseg_bids.segment_all([], **option)


def test_many_images_give_results_as_they_come(tmp_path, capsys):
    model = str(write_tiny_model(tmp_path / "model"))
    scans = tmp_path / "scans"
    scans.mkdir()
    good(scans / "T1.nii.gz")
    image = nib.MGHImage(brain(), centred_affine(brain().shape, ZOOM))
    nib.save(image, scans / "T1.mgz")
    (scans / "broken.nii").write_text("no image")
    (scans / "T1_mask.nii.gz").write_text("not looked at")
    quick = {"views": "axial", "mirror": False, "brain_extraction": "skip", "device": "cpu"}
    coming = hetseg_bids.segment_all(scans, model=model, **quick)
    path, mgz = next(coming)
    assert path == scans / "T1.mgz"
    assert isinstance(mgz, hetseg_bids.Segmented)
    assert "1/3" not in capsys.readouterr().err
    (_, nifti), (_, error) = coming
    assert "3/3" in capsys.readouterr().err
    assert np.array_equal(np.asarray(mgz.dseg.dataobj), np.asarray(nifti.dseg.dataobj))
    assert mgz.volumes.equals(nifti.volumes)
    assert isinstance(error, ImageError)
    assert error.path == scans / "broken.nii"
    # named one by one, nothing is left out by its name, and a missing one costs no other
    given = [scans / "T1_mask.nii.gz", str(scans / "absent.nii")]
    results = list(hetseg_bids.segment_all(given, model=model, progress=False, **quick))
    assert [path for path, _ in results] == [scans / "T1_mask.nii.gz", scans / "absent.nii"]
    assert all(isinstance(result, HetsegError) for _, result in results)
    assert "no such file" in str(results[1][1])
    assert capsys.readouterr().err == ""


def test_what_no_image_could_be_segmented_with_is_raised_at_once(tmp_path):
    with pytest.raises(ModelError):
        hetseg_bids.segment_all([], model=str(tmp_path / "nope"), device="cpu")
    with pytest.raises(DatasetError, match="no image"):
        hetseg_bids.segment_all(tmp_path, device="cpu")


def test_importing_the_package_imports_no_torch():
    code = "import sys, hetseg_bids; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
