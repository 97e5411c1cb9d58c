"""Labels where a structure never lies: found, doubted and named, on a brain made from the atlas."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from hetseg_bids.images import Grid
from hetseg_bids.network.systems import (
    Heteroscedastic,
    LabelFlip,
    PooledEnsemble,
    PredictiveVariance,
)
from hetseg_bids.preprocessing.lesions import Lesion
from hetseg_bids.segmentation.inference import Logits
from hetseg_bids.segmentation.labels import Segmentation
from hetseg_bids.segmentation.lesioned import Covered
from hetseg_bids.segmentation.morphometry import measure
from hetseg_bids.segmentation.plausibility import Finding, Plausibility, doubt_implausible_
from hetseg_bids.segmentation.uncertainty import FlipSums
from hetseg_bids.structures.alignment import centroids, template_affine
from hetseg_bids.structures.atlas import ATLAS, load_atlas, to_cells
from hetseg_bids.structures.label_sets import Structure
from hetseg_bids.structures.label_tables import make_label_set
from support.commands import QUICK, run_cli
from support.datasets import t1w_path, write_dataset
from support.pretend_card import CARD, pretend_card
from support.results import level_maps

KNOWN = load_atlas().label_set  # the structures of the atlas
YES, NO, SURE = 4.0, -4.0, 0.02
SYSTEMS = (PooledEnsemble(), PooledEnsemble(0.5), LabelFlip(), PredictiveVariance())


def sure_second(system: Heteroscedastic, label: torch.Tensor) -> torch.Tensor:
    """Second outputs whose q is 0.02 everywhere."""
    if isinstance(system, PooledEnsemble):
        right = float(np.log((1 - SURE) / SURE)) - system.answer
        return torch.full_like(label, right).copysign(label)
    one = label.reshape(-1)[:1]  # sizes of logits are all alike
    second = system.raised(one, torch.full_like(one, -15.0), torch.full_like(one, SURE))
    return torch.full_like(label, float(second))


def atlas_brain() -> tuple[np.ndarray, Grid]:
    """The likeliest structure of each cell: 1 + its number, 0 outside the brain."""
    share = load_atlas().share
    winner = np.where(share.sum(axis=0) > 0.5, share.argmax(axis=0) + 1, 0)
    return winner.astype(np.uint8), Grid(winner.shape, np.linalg.inv(to_cells()))


def logits_of(winner: np.ndarray, system: Heteroscedastic = SYSTEMS[0]) -> Logits:
    label = torch.full((len(KNOWN.structures), *winner.shape), NO)
    for i in range(len(KNOWN.structures)):
        label[i][torch.from_numpy(winner == i + 1)] = YES
    box = tuple(slice(0, n) for n in winner.shape)
    return Logits(label, sure_second(system, label), system, box, KNOWN)


def ball(grid: Grid, centre: tuple[float, float, float], ml: float) -> np.ndarray:
    places = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    mm = places @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    radius = (ml * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    return ((mm - centre) ** 2).sum(axis=-1) <= radius**2


def number(name: str) -> int:
    return KNOWN.names.index(name)


def finding(result: Plausibility, name: str) -> Finding:
    return next((f for f in result.findings if f.structure == name), Finding(name))


def test_a_brain_as_in_the_atlas_is_not_doubted():
    winner, grid = atlas_brain()
    logits = logits_of(winner)
    before = logits.second_output.clone()
    result = doubt_implausible_(logits, grid)
    assert (result.findings, result.fits) == ((), True)
    assert result.atlas == load_atlas().version
    assert torch.equal(logits.second_output, before)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_ball_of_ventricle_in_white_matter_is_named_and_doubted(system):
    winner, grid = atlas_brain()
    lesion = ball(grid, (-32, -25, 30), 30)
    winner[lesion] = number("left_lateral_ventricle") + 1
    logits = logits_of(winner, system)
    label = logits.label.clone()
    result = doubt_implausible_(logits, grid)
    found = finding(result, "left_lateral_ventricle")
    assert 12 < found.misplaced_ml <= 30
    assert 0.3 * found.misplaced_ml < found.surplus_ml < 0.5 * found.misplaced_ml
    q = system.flip_probability(logits.label, logits.second_output)
    core = torch.from_numpy(ball(grid, (-40, -25, 30), 3))
    assert (q[number("left_lateral_ventricle")][core] > 0.45).all()
    assert q[number("left_cerebral_white_matter")][core].mean() > 0.2  # what belongs there
    assert q.max() <= 0.5
    assert torch.equal(logits.label, label)
    right = [i for i, name in enumerate(KNOWN.names) if name.startswith("right_")]
    assert q[right].max() == pytest.approx(SURE, abs=0.005)


@pytest.mark.parametrize("system", SYSTEMS)
def test_logits_on_a_gpu_are_doubted_there(system):
    winner, grid = atlas_brain()
    winner[ball(grid, (-32, -25, 30), 30)] = number("left_lateral_ventricle") + 1
    winner[ball(grid, (32, -25, 30), 30)] = 0
    here = logits_of(winner, system)
    wanted = doubt_implausible_(here, grid)
    assert len(wanted.findings) > 1
    with pretend_card() as moved:
        given = logits_of(winner, system)
        outputs = {"label": given.label.to(CARD), "second_output": given.second_output.to(CARD)}
        size, there = moved.pop("in"), replace(given, **outputs)
        assert doubt_implausible_(there, grid) == wanted
        assert moved["in"] + moved["out"] < size / 2
        assert torch.equal(there.second_output.cpu(), here.second_output)


def test_what_a_given_lesion_covers_is_not_blamed():
    """Neither fluid that is labelled there, nor white matter that is missing."""
    winner, grid = atlas_brain()
    cyst, hole = ball(grid, (-32, -25, 30), 30), ball(grid, (32, -25, 30), 30)
    winner[cyst], winner[hole] = number("left_lateral_ventricle") + 1, 0
    assert len(doubt_implausible_(logits_of(winner), grid).findings) >= 2
    logits = logits_of(winner)
    before = logits.second_output.clone()
    lesion = Lesion((cyst | hole).astype(np.uint8), grid)
    result = doubt_implausible_(logits, grid, lesion)
    assert (result.findings, result.fits) == ((), True)
    assert torch.equal(logits.second_output, before)
    beside = Lesion(ball(grid, (30, 40, 10), 30).astype(np.uint8), grid)
    assert (
        finding(doubt_implausible_(logits, grid, beside), "left_lateral_ventricle").surplus_ml > 5
    )


def test_a_turned_head_tells_the_same():
    winner, grid = atlas_brain()
    winner[ball(grid, (-32, -25, 30), 30)] = number("left_lateral_ventricle") + 1
    upright = doubt_implausible_(logits_of(winner), grid)
    turn = np.eye(4)
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    turn[:2, :2], turn[:3, 3] = [[c, -s], [s, c]], (40, -10, 25)
    turned = doubt_implausible_(logits_of(winner), Grid(grid.shape, turn @ grid.affine))
    assert turned.misfit_mm == pytest.approx(upright.misfit_mm, abs=0.01)
    for ours, theirs in zip(upright.findings, turned.findings, strict=True):
        assert ours.structure == theirs.structure
        assert ours.misplaced_ml == pytest.approx(theirs.misplaced_ml, rel=0.05)


def test_white_matter_that_is_gone_where_all_brains_have_it_is_named_and_doubted():
    winner, grid = atlas_brain()
    white = number("right_cerebral_white_matter")
    hole = load_atlas().share[white] >= 0.8
    winner[hole & (winner == white + 1)] = 0
    logits = logits_of(winner)
    result = doubt_implausible_(logits, grid)
    assert [f.structure for f in result.findings] == ["right_cerebral_white_matter"]
    assert result.findings[0].missing_ml > 1
    q = logits.system.flip_probability(logits.label, logits.second_output)[white]
    assert q[torch.from_numpy(hole)].max() == pytest.approx(0.5)


def test_a_structure_larger_than_any_seen_is_doubted_as_a_whole():
    winner, grid = atlas_brain()
    inside = winner == number("fourth_ventricle") + 1
    grown = ndimage.binary_dilation(inside, iterations=2)
    winner[grown] = number("fourth_ventricle") + 1
    logits = logits_of(winner)
    found = finding(doubt_implausible_(logits, grid), "fourth_ventricle")
    assert found.times_largest > 1.5
    i = number("fourth_ventricle")
    q = logits.system.flip_probability(logits.label, logits.second_output)[i]
    excess = 1 - 1 / found.times_largest
    assert q[torch.from_numpy(grown)].min() >= min(0.5, excess) - 0.001


def test_other_structures_and_no_structures_are_left_alone():
    winner, grid = atlas_brain()
    logits = logits_of(np.zeros_like(winner))
    assert doubt_implausible_(logits, grid).atlas is None
    other = make_label_set((Structure("a", 1, (1,), (0, 0, 0)),))
    logits = replace(
        logits, label=logits.label[:1], second_output=None, system=None, label_set=other
    )
    assert doubt_implausible_(logits, grid).atlas is None


def test_a_model_without_a_flip_map_gets_the_words():
    winner, grid = atlas_brain()
    winner[ball(grid, (-32, -25, 30), 30)] = number("left_lateral_ventricle") + 1
    result = doubt_implausible_(replace(logits_of(winner), second_output=None, system=None), grid)
    assert finding(result, "left_lateral_ventricle").misplaced_ml > 12


def test_structures_in_no_order_fit_no_brain():
    winner, grid = atlas_brain()
    mixed = np.random.default_rng(0).permutation(len(KNOWN.structures)) + 1
    winner = np.concatenate([[0], mixed])[winner].astype(np.uint8)
    result = doubt_implausible_(logits_of(winner), grid)
    assert not result.fits
    assert result.findings == ()


def test_one_moved_structure_hardly_moves_the_affine():
    winner, grid = atlas_brain()
    values = np.array([0, *(s.label for s in KNOWN.structures)], np.uint8)
    found = centroids(values[winner], grid, KNOWN.structures)
    moved = found | {"left_lateral_ventricle": found["left_lateral_ventricle"] + [-15, -10, 15]}
    corner = np.array([60.0, -90.0, 60.0, 1.0])
    away = (template_affine(moved) - template_affine(found)) @ corner
    assert np.linalg.norm(away) < 1.5  # of 23 mm


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_raised_flip_logit_gives_the_probability_asked_for_and_never_less(system):
    label = torch.tensor([3.0, -3.0, 3.0, -3.0])
    second = sure_second(system, label)
    for least in (0.005, 0.1, 0.3, 0.5):
        raised = system.raised(label, second, torch.full_like(label, least))
        q = system.flip_probability(label, raised)
        assert q == pytest.approx(np.full(4, max(least, SURE)), abs=0.004)


def test_the_record_gives_back_what_was_found():
    found = Plausibility("abc", 2.25, (Finding("left_thalamus", 1.5, 0.5, 2.0, 0.75),))
    assert Plausibility.of_record({"HetsegPlausibility": found.for_record()}) == found
    assert Plausibility.of_record({}).atlas is None
    for junk in ("x", [1], {"findings": [1]}, {"findings": [{"structure": "a"}]}):
        with pytest.raises(ValueError, match="HetsegPlausibility"):
            Plausibility.of_record({"HetsegPlausibility": junk})


def one_structure(labelled: int, q_inside: float, q_outside: float) -> Segmentation:
    """1,000 voxels of 1 mm3, some of which are a structure."""
    structure = Structure("a", 1, (1,), (0, 0, 0))
    dseg = np.zeros((10, 10, 10), np.uint8)
    dseg.reshape(-1)[:labelled] = 1
    q = np.where(dseg == 1, q_inside, q_outside).astype(np.float32)[None]
    box = (slice(0, 10),) * 3
    grid = Grid(dseg.shape, np.eye(4))
    sums = FlipSums.of(dseg, q).summaries()
    return Segmentation(
        grid, box, dseg, level_maps(q, 0.5), None, make_label_set((structure,)), sums
    )


@pytest.mark.parametrize("labelled", [False, True])
def test_the_interval_goes_from_nothing_of_a_lesion_to_all_of_it(labelled):
    """100 of 500 mm3 of a structure lie in a lesion."""
    plain = measure(one_structure(400, 0.1, 0.0)).loc[0]
    result = one_structure(500 if labelled else 400, 0.1, 0.0)
    q = np.where(np.arange(1000) < 400, 0.1, np.where(np.arange(1000) < 500, 0.5, 0.0))
    sums = FlipSums.of(result.dseg.reshape(-1), q[None]).summaries()
    covered = Covered(np.array([100.0]), np.array([400.0]))
    row = measure(replace(result, uncertainty=sums, covered=covered)).loc[0]
    assert row["volume_ci95_low_mm3"] == pytest.approx(plain["volume_ci95_low_mm3"])
    assert row["volume_ci95_high_mm3"] == pytest.approx(plain["volume_ci95_high_mm3"] + 100)
    assert row["volume_sd_mm3"] == pytest.approx(np.hypot(plain["volume_sd_mm3"], 50))
    assert row["expected_dice"] < plain["expected_dice"]
    assert (row["lesion_mm3"], row["lesion_share"]) == (100, pytest.approx(0.2))
    assert plain[["lesion_mm3", "lesion_share"]].isna().all()


def test_what_q_cannot_say_lowers_expected_dice_and_the_middle_of_the_interval():
    result = one_structure(500, 0.5, 0.0)
    plain, doubted = measure(result).loc[0], measure(result, surplus_mm3={"a": 240.0}).loc[0]
    assert plain["expected_dice"] == pytest.approx(2 * 250 / 750)
    assert doubted["expected_dice"] == pytest.approx(2 * 10 / 510)
    middles = [t["volume_ci95_high_mm3"] - 1.959964 * t["volume_sd_mm3"] for t in (plain, doubted)]
    assert middles == pytest.approx([250, 10])
    assert doubted["volume_sd_mm3"] == plain["volume_sd_mm3"]  # nothing is surer for it
    assert doubted["volume_mm3"] == 500
    pd.testing.assert_frame_equal(measure(result, surplus_mm3={"b": 9.0}), measure(result))


def test_surplus_of_a_structure_is_shared_by_its_labels_by_size():
    sizes = {"body": 400, "horn": 100}
    label_set = make_label_set(
        tuple(Structure(name, i, (i,), (i, i, i)) for i, name in enumerate(sizes, start=1))
    )
    dseg = np.repeat(np.uint8([1, 2, 0]), (*sizes.values(), 500)).reshape(10, 10, 10)
    q = np.full((2, *dseg.shape), 0.1, np.float32)
    sums = FlipSums.of(dseg, q).summaries()
    box = (slice(0, 10),) * 3
    result = Segmentation(Grid(dseg.shape, np.eye(4)), box, dseg, None, None, label_set, sums)
    divided = {"whole": tuple(sizes)}
    table = measure(result, surplus_mm3={"whole": 50.0}, divided=divided).set_index("name")
    plain = measure(result).set_index("name")
    middle = [t["volume_ci95_high_mm3"] - 1.959964 * t["volume_sd_mm3"] for t in (plain, table)]
    np.testing.assert_allclose(middle[0] - middle[1], [40, 10], atol=1e-3)


def test_the_interval_of_a_structure_that_is_gone_holds_zero():
    for labelled in (0, 5):
        row = measure(one_structure(labelled, 0.1, 0.45)).loc[0]
        assert row["volume_ci95_low_mm3"] == 0
        assert row["volume_ci95_high_mm3"] > 400
        assert row["expected_dice"] < 0.1
    there = measure(one_structure(900, 0.02, 0.02)).loc[0]
    assert there["volume_ci95_low_mm3"] > 500


def test_the_atlas_is_small():
    assert ATLAS.stat().st_size < 300_000


def test_a_cyst_in_white_matter_is_named_and_doubted_from_the_command_line(tmp_path, mni152):
    """Issue 29: 25 ml became ventricle with q 0.03, expected Dice 0.95 and a true Dice of 0.36."""
    bids, out = write_dataset(tmp_path / "bids"), tmp_path / "out"
    data = np.asarray(mni152.dataobj, np.float32)
    grid = Grid(data.shape, mni152.affine)
    fluid, white = 0.325, 0.847  # medians of the ventricles and of white matter
    noise = np.random.default_rng(0).normal(0, 0.02 * white, data.shape)
    cyst = ball(grid, (-30, -25, 28), 30)
    image = np.where(cyst, fluid + noise, data).astype(np.float32)
    nib.save(nib.Nifti1Image(image, mni152.affine), t1w_path(bids, "01"))
    done = run_cli("hetseg", bids, out, "participant", *QUICK)
    assert done.code == 0, done.err
    results = out / "sub-01" / "anat" / "sub-01_seg-hetseg"
    table = pd.read_csv(f"{results}_morph.tsv", sep="\t").set_index("name")
    assert table.loc["left_lateral_ventricle", "expected_dice"] < 0.55
    assert table.loc["left_lateral_ventricle", "volume_ci95_low_mm3"] < 13_000  # 12 ml without it
    assert table.loc["right_lateral_ventricle", "expected_dice"] > 0.8
    flip = nib.load(f"{results}_desc-labelflip_probseg.nii.gz")
    q = np.asarray(flip.dataobj[..., number("left_lateral_ventricle")])
    assert np.median(q[ball(grid, (-36, -25, 32), 5)]) > 0.45
    record = Path(f"{results}_dseg.json")
    assert "ml lie where it was never seen" in (out / "sub-01.html").read_text()
    # the atlas is part of the result
    other = json.loads(record.read_text())
    other["HetsegPlausibility"]["atlas"] = "another"
    record.write_text(json.dumps(other))
    again = run_cli("hetseg", bids, out, "participant", "--reports-only", *QUICK)
    assert "no complete results" in again.err
