"""`benchmarks/brainchop.py` reads a model of TensorFlow.js and says what brainchop would."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
LIA = np.array([[-1.0, 0, 0, 128], [0, 0, 1, -128], [0, -1, 0, 128], [0, 0, 0, 1]])


@pytest.fixture
def brainchop(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import brainchop

    return brainchop


def convolution(name, kernel, dilation):
    config = {
        "name": name,
        "strides": [1] * 3,
        "padding": "same",
        "data_format": "channels_last",
        "dilation_rate": [dilation] * 3,
        "activation": "linear",
    }
    weights = [
        {"name": f"{name}/kernel", "shape": kernel, "dtype": "float32"},
        {"name": f"{name}/bias", "shape": kernel[-1:], "dtype": "float32"},
    ]
    return {"class_name": "Conv3D", "name": name, "config": config}, weights


def write_model(folder, rng):
    """Two layers, 1 -> 2 -> 3 channels; returns their weights as TensorFlow orders them."""
    first, of_first = convolution("first", [3, 3, 3, 1, 2], 2)
    last, of_last = convolution("last", [1, 1, 1, 2, 3], 1)
    relu = {"class_name": "Activation", "name": "relu", "config": {"activation": "relu"}}
    manifest = {"paths": ["weights.bin"], "weights": [*of_first, *of_last]}
    arrays = [rng.normal(size=w["shape"]).astype("<f4") for w in manifest["weights"]]
    layers = [{"class_name": "InputLayer", "config": {}}, first, relu, last]
    topology = {"model_config": {"config": {"layers": layers}}}
    text = json.dumps({"modelTopology": topology, "weightsManifest": [manifest]})
    (folder / "model.json").write_text(text)
    (folder / "weights.bin").write_bytes(b"".join(a.tobytes() for a in arrays))
    return arrays


def test_a_model_is_run_in_slabs_as_tensorflow_would_run_it_at_once(
    brainchop, tmp_path, monkeypatch
):
    monkeypatch.setattr(brainchop, "_SLAB", 2)
    rng = np.random.default_rng(1)
    kernel, bias, last, last_bias = write_model(tmp_path, rng)
    image = rng.normal(size=(7, 5, 6)).astype(np.float32)
    padded = np.pad(image, 2)  # "same", dilation 2
    shifts = [(i, j, k) for i in range(3) for j in range(3) for k in range(3)]
    hidden = bias + sum(
        padded[2 * i : 2 * i + 7, 2 * j : 2 * j + 5, 2 * k : 2 * k + 6, None] * kernel[i, j, k, 0]
        for i, j, k in shifts
    )
    expected = (np.maximum(hidden, 0) @ last[0, 0, 0] + last_bias).argmax(-1)
    found = brainchop.MeshNet.read(tmp_path)(torch.from_numpy(image))
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(found, expected)


def test_classes_become_ids_of_an_aseg(brainchop):
    names = ["BG", "ctx-lh-insula", "ctx-rh-cuneus", "Left-Thalamus-Proper*", "CC_Central", "CSF"]
    names += ["Right-Cerebellum-Cortex", "Left-Inf-Lat-Vent", "Right-VentralDC", "3rd-Ventricle"]
    assert list(brainchop.aseg_ids(names)) == [0, 3, 42, 10, 253, 24, 47, 5, 60, 14]


def test_a_scan_of_another_grid_is_conformed_and_a_conformed_one_is_not(brainchop):
    data = np.zeros((20, 30, 25), np.float32)
    data[3:9, 10:20, 12:20] = 7
    placed = nib.Nifti1Image(data, np.diag([2.0, 1, 1, 1]))
    moved = brainchop.conformed_image(placed)
    assert (moved.shape, nib.aff2axcodes(moved.affine)) == ((256,) * 3, ("L", "I", "A"))
    voxels = np.asarray(moved.dataobj)
    assert (voxels.dtype, voxels.max()) == (np.uint8, 255)
    assert voxels[voxels == 255].size == pytest.approx(12 * 10 * 8, rel=0.2)
    whole = nib.Nifti1Image(np.zeros((256,) * 3, np.uint8), LIA)
    assert brainchop.conformed_image(whole) is whole
