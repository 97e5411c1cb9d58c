"""With the network on a GPU, volumes are there from the image to the labels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from hetseg_bids.images import Grid
from hetseg_bids.network.layers import InstanceNorm
from hetseg_bids.network.models import load_model
from hetseg_bids.preprocessing.conform import resample_inside
from hetseg_bids.preprocessing.lesions import Lesion
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.segmentation import labels, views
from hetseg_bids.segmentation.inference import predict
from hetseg_bids.segmentation.labels import Segmentation, segment
from hetseg_bids.segmentation.plausibility import doubt_implausible_
from support.phantoms import centred_affine, stripped_phantom
from support.pretend_card import CARD, OnCard, pretend_card
from support.tiny_model import write_tiny_model

SHAPE = (50, 60, 47)
ALONG, FINER, TURNED = (centred_affine(SHAPE, zoom) for zoom in (1.0, 0.9, 1.1))
TURNED[:3, :3] = nib.eulerangles.euler2mat(0.1, 0.2, 0.0) @ TURNED[:3, :3]


@pytest.fixture(autouse=True)
def _as_on_the_cpu(monkeypatch):
    """Every bit is the same with one number format, statistics and size of the pieces."""
    monkeypatch.setattr(views, "inference_format", lambda _: torch.float32)
    monkeypatch.setattr(InstanceNorm, "forward", InstanceNorm._kernel)
    monkeypatch.setitem(views._CHUNK, "cuda", views._CHUNK["cpu"])
    monkeypatch.setattr(labels, "_GPU_SLAB_VALUES", labels._SLAB_VALUES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"), parts=True)


def segmented(
    folder, device: torch.device, affine: np.ndarray, structures: str, lesion: Lesion | None
) -> tuple[Segmentation, torch.Tensor]:
    """The steps of a scan that hold volumes, and the logits."""
    model = load_model(str(folder), device)
    native, working = Grid(SHAPE, affine), Grid(SHAPE, ALONG)
    image = stripped_phantom()[::3, ::3, ::3]
    how = {"outside": BACKGROUND, "device": device}
    seen = resample_inside((image - 700) / 200, image > 0, native, working, **how)
    division = model.plan.division(structures)
    views = {"views": ["axial"], "mirror": False, "parts": division.of_parts}
    logits = predict(model, *seen, **views)
    doubt_implausible_(logits, working, lesion)
    how = {"division": division, "probability": True, "lesion": lesion}
    return segment(logits, working, native, **how), logits.label


@pytest.mark.parametrize(
    ("affine", "structures"), [(ALONG, "paper"), (FINER, "aseg"), (TURNED, "paper")]
)
def test_a_scan_goes_in_once_and_labels_and_maps_come_out(folder, affine, structures):
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[20:30, 20:30, 20:30] = structures == "aseg"
    given = (affine, structures, Lesion(lesion, Grid(SHAPE, affine)) if lesion.any() else None)
    wanted, _ = segmented(folder, CPU, *given)
    with pretend_card() as moved:
        found, logits = segmented(folder, CARD, *given)
    assert isinstance(logits, OnCard)
    np.testing.assert_array_equal(found.dseg, wanted.dseg)
    assert len(np.unique(found.dseg)) > 3
    for name in ("flip_probability", "probability"):
        one, other = getattr(found, name), getattr(wanted, name)
        np.testing.assert_array_equal(one.levels, other.levels)
    np.testing.assert_allclose(found.probability_sums, wanted.probability_sums, rtol=1e-6)
    for one, other in zip(found.uncertainty, wanted.uncertainty, strict=True):
        assert vars(one) == pytest.approx(vars(other), rel=1e-6, nan_ok=True)
    # no logits, which are many times as large
    results = found.dseg.nbytes + 2 * found.probability.levels.nbytes
    volume = 4 * np.prod(SHAPE)
    assert results < moved["out"] < results + 4 * volume
    assert moved["in"] < 6 * volume


def test_the_pretended_card_refuses_what_a_card_refuses():
    with pretend_card() as moved:
        there, here = torch.zeros(3, device=CARD), torch.zeros(3)
        for wrong in (
            lambda: there + here,
            lambda: torch.where(here > 0, there, 0),
            lambda: here[there.long()],
            lambda: here.add_(there),
            lambda: there.__setitem__(here.long(), here),
        ):
            with pytest.raises(RuntimeError, match="on the CPU"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert not moved["out"]
        assert (there + 1 + torch.ones(()))[here.long()].cpu().numpy().tolist() == [2, 2, 2]
        assert (moved["out"], moved["copies out"]) == (12, 1)
