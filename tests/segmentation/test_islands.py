"""Small detached pieces of a structure, and what becomes of them."""

from __future__ import annotations

import pytest
import torch

from hetseg_bids.segmentation.islands import dismiss_islands_
from hetseg_bids.segmentation.labels import decide
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.structures.label_sets import LabelSet, Structure

_INDEX = {name: i for i, name in enumerate(ASEG.names)}


def _logits(**boxes: list[tuple[slice, slice, slice]]) -> torch.Tensor:
    logits = torch.full((len(ASEG.structures), 24, 24, 24), -6.0)
    for name, places in boxes.items():
        for box in places:
            logits[(_INDEX[name], *box)] = 2.0
    return logits


def _box(start: int, size: int) -> tuple[slice, slice, slice]:
    return (slice(start, start + size),) * 3


def _count(logits: torch.Tensor, name: str) -> int:
    label = ASEG.structures[_INDEX[name]].label
    return int((decide(logits, ASEG) == label).sum())


def test_a_small_piece_far_from_the_body_goes_and_the_body_stays():
    logits = _logits(left_putamen=[_box(2, 8), _box(18, 3)])
    before = logits.clone()
    dismiss_islands_(logits, ASEG)
    assert _count(logits, "left_putamen") == 8**3
    changed = (logits != before).any(dim=0)
    assert int(changed.sum()) == 3**3
    assert changed[_box(18, 3)].all()


def test_two_pieces_of_like_size_both_stay():
    logits = _logits(left_putamen=[_box(2, 8), _box(14, 6)])
    before = logits.clone()
    dismiss_islands_(logits, ASEG)
    assert torch.equal(logits, before)


def test_pieces_that_touch_at_a_corner_are_one():
    logits = _logits(left_putamen=[_box(2, 8), _box(10, 2)])
    before = logits.clone()
    dismiss_islands_(logits, ASEG)
    assert torch.equal(logits, before)


def test_the_lateral_ventricle_may_be_in_pieces():
    logits = _logits(left_lateral_ventricle=[_box(2, 8), _box(18, 3)])
    before = logits.clone()
    dismiss_islands_(logits, ASEG)
    assert torch.equal(logits, before)


@pytest.mark.parametrize(("white", "kept"), [(-0.3, True), (-5.0, False)])
def test_a_dismissed_voxel_goes_to_what_is_probable_without_the_structure(white, kept):
    logits = _logits(corpus_callosum=[_box(2, 8), _box(18, 3)])
    logits[(_INDEX["corpus_callosum"], *_box(18, 3))] = 0.3
    logits[(_INDEX["left_cerebral_white_matter"], *_box(18, 3))] = white
    dismiss_islands_(logits, ASEG)
    assert _count(logits, "corpus_callosum") == 8**3
    assert _count(logits, "left_cerebral_white_matter") == (3**3 if kept else 0)


def test_a_voxel_does_not_go_to_another_structure_far_from_its_body():
    logits = _logits(
        left_cerebral_white_matter=[_box(2, 8), _box(18, 3)], corpus_callosum=[_box(11, 6)]
    )
    logits[(_INDEX["corpus_callosum"], *_box(18, 3))] = 1.5
    logits[(_INDEX["left_cerebral_cortex"], *_box(18, 3))] = -1.0
    dismiss_islands_(logits, ASEG)
    assert _count(logits, "left_cerebral_white_matter") == 8**3
    assert _count(logits, "corpus_callosum") == 6**3


def test_certain_logits_stay_finite():
    logits = _logits(corpus_callosum=[_box(2, 8), _box(18, 3)])
    logits[(_INDEX["corpus_callosum"], *_box(18, 3))] = 60.0  # p is 1 in float32
    logits[(_INDEX["brainstem"], *_box(18, 3))] = -500.0
    dismiss_islands_(logits, ASEG)
    assert torch.isfinite(logits).all()
    assert _count(logits, "corpus_callosum") == 8**3


def test_structures_of_ones_own_keep_all_their_pieces():
    own = LabelSet((Structure("lesion", 1, (1,), (255, 0, 0)),))
    logits = torch.full((1, 24, 24, 24), -6.0)
    for box in (_box(2, 8), _box(18, 3)):
        logits[(0, *box)] = 2.0
    before = logits.clone()
    dismiss_islands_(logits, own)
    assert torch.equal(logits, before)


def test_nothing_found_is_no_error():
    logits = _logits()
    before = logits.clone()
    dismiss_islands_(logits, ASEG)
    assert torch.equal(logits, before)
