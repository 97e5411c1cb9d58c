"""The same input gives the same output: runs, threads, passes, mirrors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from hetseg_bids.images import Grid
from hetseg_bids.network.fitted import Border, Pooling
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.network.systems import LabelFlip, PooledEnsemble
from hetseg_bids.preprocessing.normalisation import BACKGROUND, standardise
from hetseg_bids.segmentation import inference, smoothing, views
from hetseg_bids.segmentation.inference import Logits, predict
from hetseg_bids.segmentation.labels import segment
from hetseg_bids.structures.aseg import ASEG, STRUCTURES
from support.phantoms import stripped_phantom
from support.tiny_model import write_tiny_model

_TOLERANCE = 1e-3  # logits; float32 sums in another order
_LOW, _HIGH = 30, 110  # axial slices of the MNI152 with some of every structure
_LAST_DIGIT = 1 / 15  # a little above that of a bfloat16 logit of 8 to 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = write_tiny_model(tmp_path_factory.mktemp("model"))
    model = load_model(str(folder), torch.device("cpu"))
    # of the noise that random weights give, rounding decides what is a piece of its own
    structures = tuple(replace(s, single=False) for s in ASEG.structures)
    return replace(model, plan=replace(model.plan, label_set=replace(ASEG, structures=structures)))


@pytest.fixture(scope="module")
def brain() -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.from_numpy(stripped_phantom()[::2, ::2, ::2].copy())
    mask = image > 0
    return torch.where(mask, (image - 700) / 200, -3.0), mask


@pytest.fixture(scope="module")
def reference(model, brain) -> Logits:
    return predict(model, *brain)


def assert_same(one: Logits, other: Logits, tolerance: float) -> None:
    for a, b in ((one.label, other.label), (one.second_output, other.second_output)):
        assert a is not None
        assert b is not None
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_runs_are_the_same_bit_for_bit(model, brain, reference):
    assert_same(predict(model, *brain), reference, 0)


def test_threads_change_no_bit_of_logits_labels_and_probabilities(model, brain):
    image, mask = (part[20:56, 20:60, 20:41].contiguous() for part in brain)
    here, finer = Grid(image.shape, np.eye(4)), Grid((51, 53, 30), np.diag([0.7, 0.75, 0.7, 1]))
    results = {}
    for threads in (1, 3, 5):  # 21 axial slices in passes of 8: all have a rest for 3 and for 5
        with on_threads(threads):
            logits = predict(pooled(model, 0.8, 0.2), image, mask, views=["axial"])
            results[threads] = [
                logits,
                *(segment(logits, here, grid, probability=True) for grid in (here, finer)),
            ]
    alone = results.pop(1)
    for several in results.values():
        assert_same(several[0], alone[0], 0)
        for one, other in zip(alone[1:], several[1:], strict=True):
            np.testing.assert_array_equal(one.dseg, other.dseg)
            np.testing.assert_array_equal(
                one.flip_probability.levels, other.flip_probability.levels
            )
            np.testing.assert_array_equal(one.probability.levels, other.probability.levels)
            assert str(one.uncertainty) == str(other.uncertainty)


@pytest.mark.parametrize("slices", [1, 3, 64])
def test_slices_a_pass_change_nothing_but_rounding(model, brain, reference, slices, monkeypatch):
    monkeypatch.setitem(views._CHUNK, "cpu", slices)
    with on_threads(1):  # two share out a pass of one slice, and bf16 sums differ
        assert_same(predict(model, *brain), reference, _TOLERANCE)


def test_empty_space_around_the_brain_changes_nothing(model, brain, reference):
    image, mask = (
        torch.nn.functional.pad(x.float(), (9, 4, 0, 7, 3, 11), value=v)
        for x, v in zip(brain, (-3.0, 0.0), strict=True)
    )
    moved = predict(model, image, mask > 0)
    assert [s.stop - s.start for s in moved.box] == [s.stop - s.start for s in reference.box]
    assert_same(moved, reference, 0)


@pytest.mark.parametrize("mirror", [False, True])
def test_what_is_not_near_the_brain_is_not_computed_and_nothing_else_changes(model, brain, mirror):
    image, mask = brain
    box = inference.brain_box(mask)
    near, seen = inference.near_mask(mask[box]), views.views_of(model, mirror=mirror)
    whole = inference.mean_outputs(model, image[box], seen)
    part = inference.mean_outputs(model, image[box], seen, near=near)
    torch.testing.assert_close(part[:, near], whole[:, near], rtol=0, atol=_TOLERANCE)
    assert (part[:, ~near] == views.OUTSIDE_LOGIT).all()
    assert 0.3 < float(near.float().mean()) < 0.9
    logits = predict(model, image, mask, mirror=mirror)
    q = logits.system.flip_probability(logits.label, logits.second_output)
    deep = ~inference.near_mask(near)  # smoothing moves nothing further
    assert (logits.label[:, deep] < 0).all()
    assert float(q[:, deep].max()) < 1e-6


def test_a_mirrored_scan_gets_the_mirrored_logits(model, brain, reference):
    image, mask = (x.flip(0) for x in brain)
    order = torch.from_numpy(model.plan.label_set.mirror_permutation())[: len(reference.label)]
    turned = predict(model, image, mask)
    both = replace(
        turned, label=turned.label.flip(1)[order], second_output=turned.second_output.flip(1)[order]
    )
    assert_same(both, reference, _TOLERANCE)
    alone = predict(model, *brain, mirror=False)
    assert (alone.label - reference.label).abs().max() > 100 * _TOLERANCE


def pooled(model: Model, views: float, ensemble: float) -> Model:
    return replace(model, plan=replace(model.plan, pooling=Pooling(views, ensemble)))


def test_pooling_leaves_labels_and_the_flip_map_of_a_single_view(model, brain, monkeypatch):
    monkeypatch.setattr(smoothing, "_NEIGHBOUR", 0.0)  # smoothing turns some answers round
    alone = predict(model, *brain, views=["coronal"], mirror=False)
    one = predict(pooled(model, 1.0, 0.0), *brain, views=["coronal"], mirror=False)
    assert (alone.system, one.system) == (LabelFlip(), PooledEnsemble())
    torch.testing.assert_close(one.label, alone.label, rtol=0, atol=0)
    q = alone.system.flip_probability(alone.label, alone.second_output)
    found = one.system.flip_probability(one.label, one.second_output)
    torch.testing.assert_close(found, q, rtol=0, atol=1e-5)


def test_a_plan_says_what_is_known_of_a_structure(model, brain):
    pooling = Pooling(1.0, 0.0, 0.2, {"left_thalamus": -1.0})
    known = predict(replace(model, plan=replace(model.plan, pooling=pooling)), *brain)
    bare = predict(replace(model, plan=replace(model.plan, pooling=Pooling(1.0, 0.0, 0.2))), *brain)
    here = Grid(brain[0].shape, np.eye(4))
    one, other = (segment(logits, here, here).uncertainty for logits in (known, bare))
    place = model.plan.label_set.names.index("left_thalamus")
    assert one[place].flip_variance > other[place].flip_variance
    assert str(one[:place] + one[place + 1 :]) == str(other[:place] + other[place + 1 :])
    part = known.of_structures()
    assert len(part.system.structures) == len(part.label)


def test_pooling_adds_the_ensembles_own_logit_and_treats_both_sides_alike(model, brain, reference):
    said = predict(pooled(model, 1.0, 0.0), *brain).second_output
    both = predict(pooled(model, 0.5, 0.25), *brain)
    torch.testing.assert_close(both.second_output, 0.5 * said + 0.25 * both.label)
    torch.testing.assert_close(both.label, reference.label, rtol=0, atol=0)
    image, mask = (x.flip(0) for x in brain)
    order = torch.from_numpy(model.plan.label_set.mirror_permutation())[: len(both.label)]
    turned = predict(pooled(model, 0.5, 0.25), image, mask)
    torch.testing.assert_close(
        turned.second_output.flip(1)[order], both.second_output, rtol=0, atol=_LAST_DIGIT
    )


def test_smoothing_mixes_a_voxel_with_its_neighbours_along_each_axis():
    label = torch.randn(3, 7, 5, 6, generator=torch.Generator().manual_seed(0))
    expected = label.numpy()
    for axis in (1, 2, 3):
        expected = ndimage.correlate1d(expected, [1 / 8, 6 / 8, 1 / 8], axis, mode="nearest")
    smoothing.smooth_(label)
    np.testing.assert_allclose(label.numpy(), expected, atol=1e-6)


def test_a_plan_may_soften_the_brain_but_not_its_background(model, brain):
    image, mask = brain
    soft = replace(model, plan=replace(model.plan, smoothing=2))
    seen = image.numpy()
    for axis in (0, 1, 2) * 2:
        seen = ndimage.correlate1d(seen, [1 / 8, 6 / 8, 1 / 8], axis, mode="nearest")
    seen = torch.from_numpy(np.where(image == BACKGROUND, BACKGROUND, seen))
    assert_same(predict(soft, image, mask), predict(model, seen, mask), _LAST_DIGIT)
    assert torch.equal(smoothing.soften(image, 0), image)


@pytest.mark.slow
def test_a_mirrored_brain_gets_mirrored_labels(mni152):
    """The shipped model on the symmetric MNI152: sides are swapped, little else differs."""
    model = load_model("label-flip", torch.device("cpu"))
    image = torch.from_numpy(np.asarray(mni152.dataobj, np.float32))
    mask = image > 0
    scores = standardise(image, mask)
    mask[:, :, :_LOW] = mask[:, :, _HIGH:] = False
    seen = {"views": ("axial",), "mirror": False}  # what both see would be alike by itself
    says = predict(model, scores, mask, **seen).label > 0
    mirrored = predict(model, scores.flip(0), mask.flip(0), **seen).label.flip(1) > 0
    names = [structure.name for structure in STRUCTURES]
    for i, name in enumerate(names):
        if int(says[i].sum()) < 2000:
            continue  # a hundred voxels more or less are much of a small structure
        swap = name.replace("left_", "@").replace("right_", "left_").replace("@", "right_")
        other = mirrored[names.index(swap)]
        dice = 2 * (says[i] & other).sum() / (says[i].sum() + other.sum())
        assert dice > 0.84, (name, float(dice))


def test_what_resampling_smooths_is_not_smoothed_twice(model, brain):
    image, mask = (part[20:56, 20:60, 20:41].contiguous() for part in brain)
    plain, none, some = (
        predict(model, image, mask, views=["axial"], mirror=False, blur=blur).label
        for blur in ((0, 0, 0), (1, 1, 1), (0.16, 0, 0))
    )
    rough = none.clone()
    smoothing.smooth_(rough)
    torch.testing.assert_close(rough, plain)
    share = 1 - 0.75 * 0.16 / 0.25
    smoothing.smooth_(none, torch.tensor([[share, 1, 1]]).expand(len(none), 3))
    torch.testing.assert_close(none, some)


def test_a_plan_says_how_the_border_of_a_structure_is_drawn(model, brain):
    image, mask = (part[20:56, 20:60, 20:41].contiguous() for part in brain)
    own = {"left_thalamus": Border(0.0, 0.5), "corpus_callosum": Border(0.5)}
    smooth, rough, mixed = (
        predict(
            replace(model, plan=replace(model.plan, borders=borders)),
            *(image, mask),
            views=["axial"],
            mirror=False,
        ).label
        for borders in ({}, dict.fromkeys(model.plan.label_set.names, Border(0.0)), own)
    )
    half = rough.clone()
    smoothing.smooth_(half, torch.full((len(half), 3), 0.5))
    for place, name in enumerate(model.plan.label_set.names):
        wanted = {"left_thalamus": rough + 0.5, "corpus_callosum": half}.get(name, smooth)[place]
        torch.testing.assert_close(mixed[place], wanted, msg=name)
    assert (smooth != rough).any()
