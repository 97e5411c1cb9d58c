"""The sample stream, exact resume, and hetseg-train itself."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from hetseg_bids.config import RECIPE_NAMES
from hetseg_bids.errors import ImageError, ModelError
from hetseg_bids.network.architecture import HetsegNet, NetworkConfig, StackDepth
from hetseg_bids.network.models import Pooling, load_model, model_folder, read_plan
from hetseg_bids.network.systems import LabelFlip, Plain, PredictiveVariance, system_named
from hetseg_bids.planes import PLANES
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.structures.aseg import ASEG, N_TASKS, STRUCTURES
from hetseg_bids.training.augmentation import AugmentationConfig, StackTransform, sample_transform
from hetseg_bids.training.initialisation import start_from_
from hetseg_bids.training.pace import paced
from hetseg_bids.training.paired import PairedSource
from hetseg_bids.training.recipes import RECIPES, TrainingConfig, paper_recipe, small_recipe
from hetseg_bids.training.samples import (
    BlockDataset,
    Cut,
    SamplingConfig,
    draw_cut,
    resample_stacks,
)
from hetseg_bids.training.schedules import Schedule
from hetseg_bids.training.synthesis.label_maps import derive_corpus_callosum, read_label_map
from hetseg_bids.training.synthesis.label_noise import (
    CLEAN,
    LabelNoiseConfig,
    add_sporadic_errors_,
    displace,
    weaken,
)
from hetseg_bids.training.synthesis.painting import (
    SynthesisConfig,
    SyntheticScans,
    SyntheticSource,
    paint,
)
from hetseg_bids.training.synthesis.sizes import find_places, resize_
from hetseg_bids.training.trainer import RunOptions, Trainer, build_network
from hetseg_bids.training.validation import ValidationScan, even_stacks, structure_dice
from hetseg_bids.training.volumes import LabelledVolume
from support.commands import run_cli, run_here
from support.datasets import write_pair
from support.phantoms import centred_affine, phantom_labels

SAMPLING = SamplingConfig(patch=(48, 40), volumes_per_block=2, stacks_per_volume=4)


@pytest.fixture(scope="module")
def maps(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("maps")
    labels = phantom_labels()
    nib.save(nib.Nifti1Image(labels, centred_affine(labels.shape)), folder / "a_dseg.nii.gz")
    return folder


@pytest.fixture(scope="module")
def source(maps) -> SyntheticSource:
    return SyntheticSource(sorted(maps.glob("*.nii.gz")))


@pytest.fixture(scope="module")
def scans(source) -> SyntheticScans:
    """Scans drawn once, for what doesn't depend on where they come from."""
    return SyntheticScans(source, 3, seed=2)


@pytest.fixture(scope="module")
def volume(source) -> LabelledVolume:
    return source.draw(np.random.default_rng(1))


def small_config(system: str = "label-flip", samples: int = 48) -> TrainingConfig:
    network = NetworkConfig(
        system_named(system).n_outputs(N_TASKS), (4, 4, 8), (8, 8, 12), (1, 2), 8
    )
    return TrainingConfig(
        system=system,
        network=network,
        sampling=SAMPLING,
        samples=samples,
        schedule=Schedule(warmup=2),
    )


def losses_of(
    config: TrainingConfig, source: SyntheticSource, out: Path, **options: object
) -> tuple[list[float], Trainer]:
    run = RunOptions(out, torch.device("cpu"), **{"workers": 0, **options})
    trainer = Trainer(config, source, run)
    trainer.resume()
    return [report.loss for report in trainer.run()], trainer


def test_a_synthetic_scan_is_standardised_and_stripped(volume):
    inside = volume.image > BACKGROUND
    assert abs(float(volume.image[inside].mean())) < 0.1
    assert 0.8 < float(volume.image[inside].std()) < 1.1
    assert inside.float().mean() < 0.7
    assert {2, 41, 3, 42, 16} <= set(volume.labels.unique().tolist())


def test_white_matter_is_brighter_than_cortex_and_cortex_than_ventricle(source):
    means = []
    for seed in range(4):
        drawn = source.draw(np.random.default_rng(seed))
        means.append([float(drawn.image[drawn.labels == i].median()) for i in (41, 42, 43)])
    white, grey, ventricle = np.mean(means, axis=0)
    assert white > grey > ventricle


def test_equal_seeds_give_equal_scans(source):
    first, second = (source.draw(np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.labels, second.labels)


def test_label_noise_moves_boundaries_but_not_insides():
    labels = torch.from_numpy(phantom_labels())
    quiet = LabelNoiseConfig(jitter=(0.3, 0.9), sporadic_rate=0, missing_rate=0)
    weak = weaken(np.random.default_rng(0), labels, quiet)
    changed = weak != labels
    assert 0.005 < float(changed.float().mean()) < 0.15
    core = torch.from_numpy(phantom_labels()) == 51
    centre = torch.nonzero(core).float().mean(dim=0).round().int()
    assert int(weak[tuple(centre.tolist())]) == 51


def test_sporadic_errors_add_blobs():
    labels = torch.from_numpy(phantom_labels())
    config = LabelNoiseConfig(jitter=(0, 0), sporadic_rate=20, missing_rate=0)
    weak = weaken(np.random.default_rng(0), labels, config)
    assert 20 < int((weak != labels).sum()) < labels.numel() * 0.05


def test_label_noise_is_moved_boundaries_and_then_sporadic_errors():
    labels = torch.from_numpy(phantom_labels())
    config = LabelNoiseConfig(sporadic_rate=3)
    rng = np.random.default_rng(5)
    weak = displace(rng, labels, config)
    add_sporadic_errors_(rng, weak, config)
    assert torch.equal(weak, weaken(np.random.default_rng(5), labels, config))


def test_swapped_structures_change_sides_and_nothing_else():
    labels = torch.from_numpy(phantom_labels())
    weak = labels.clone()
    swap = LabelNoiseConfig(sporadic_rate=0, missing_rate=0, swap_rate=1)
    for seed in range(20):  # until a structure that the phantom has is drawn
        add_sporadic_errors_(np.random.default_rng(seed), weak, swap)
        if not torch.equal(weak, labels):
            break
    changed = weak != labels
    assert changed.any()
    table = torch.from_numpy(ASEG.mirror_labels())
    assert torch.equal(weak[changed], table[labels[changed].long()])
    assert len(labels[changed].unique()) == 2


def test_a_volume_knows_which_slices_hold_a_structure(volume):
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        for label in (0, 12, 16, 77):
            expected = (volume.labels == label).sum(dim=others) > 0
            assert np.array_equal(volume.presence[axis][:, label], expected.numpy())


_SHARP = SynthesisConfig(
    bias=0,
    blur=(0, 0),
    thick_rate=0,
    motion_rate=0,
    noise=(0, 0),
    gamma=(1, 1),
    pale_rate=0,
    pia=(0, 0),
)


_DEEP = (10, 49, 12, 51, 13, 52, 28, 60)


def _resized(positions, places, spread, seed=0):
    moved = [p.clone() for p in positions]
    here = np.c_[np.eye(3), np.zeros(3)]
    resize_(np.random.default_rng(seed), moved, places, spread, here)
    return moved


def test_resized_structures_keep_their_place_and_leave_the_distance_alone():
    labels = torch.zeros(60, 60, 60, dtype=torch.uint8)
    axes = torch.meshgrid(*[torch.arange(60.0)] * 3, indexing="ij")
    square = sum((a - 30) ** 2 for a in axes)
    labels[square <= 36] = 13
    places = find_places(labels)
    assert set(places) == {13}
    assert places[13].radius == pytest.approx(6, abs=0.1)
    assert np.allclose(places[13].centre, 30)
    volumes = []
    for seed in range(8):
        x, y, z = (p.round().long() for p in _resized(axes, places, 0.15, seed))
        new = labels[x, y, z]
        volumes.append(int((new == 13).sum()))
        moved = torch.stack((x, y, z)) != torch.stack(axes).long()
        assert not moved.any(dim=0)[square > 19**2].any()
        assert np.allclose(find_places(new)[13].centre, 30, atol=0.3)
    usual = int((labels == 13).sum())
    assert min(volumes) < 0.85 * usual
    assert max(volumes) > 1.15 * usual
    same = _resized(axes, places, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(axes, same, strict=True))


def test_sizes_reach_synthetic_scans(maps):
    paths = sorted(maps.glob("*.nii.gz"))
    usual, other = (
        SyntheticSource(paths, SynthesisConfig(sizes=spread, labels=CLEAN))
        .draw(np.random.default_rng(5))
        .labels
        for spread in (0.0, 0.3)
    )
    counts = [torch.bincount(v.reshape(-1).int(), minlength=256) for v in (usual, other)]
    deep = torch.tensor([10, 49, 12, 51])  # what the phantom has
    change = (counts[1][deep] / counts[0][deep] - 1).abs()
    assert float(change.max()) > 0.2
    assert float(counts[1][2] / counts[0][2]) == pytest.approx(1, abs=0.1)


def test_pale_scans_lose_the_contrast_of_the_deep_grey_matter_only():
    labels = torch.from_numpy(phantom_labels())
    usual, pale = (
        paint(np.random.default_rng(4), labels, replace(_SHARP, pale_rate=1, pale=(share, share)))
        for share in (1.0, 0.2)
    )
    changed = usual != pale
    assert changed.any()
    assert torch.isin(labels[changed], torch.tensor(_DEEP)).all()
    for putamen in (12, 51):  # darker than white matter, and less so
        assert float(usual[labels == putamen].mean()) < float(pale[labels == putamen].mean())


def test_motion_smears_an_image_along_one_axis_and_keeps_its_sum():
    labels = torch.from_numpy(phantom_labels())
    still, shaken, held = (
        paint(np.random.default_rng(6), labels, replace(_SHARP, motion_rate=rate, motion=(mm, mm)))
        for rate, mm in ((0, 0.0), (1, 3.0), (1, 0.0))
    )
    assert torch.allclose(still, held, atol=1e-5)
    assert float((still - shaken).abs().mean()) > 0.01
    assert float(shaken.mean()) == pytest.approx(float(still.mean()), rel=0.02)
    middle = sorted(
        float(torch.fft.fft(still - shaken, dim=axis).abs().narrow(axis, 0, 3).max())
        for axis in range(3)
    )
    # along the axis that was filled, the middle of k-space is whole
    assert 10 * middle[0] < middle[1]


def test_only_the_fluid_that_touches_grey_matter_looks_like_it():
    labels = torch.zeros(24, 24, 24, dtype=torch.uint8)
    labels[4:20, 4:20, 4:20] = 24
    labels[8:16, 8:16, 8:16] = 3
    labels[10:14, 10:14, 10:14] = 2
    without, half = (
        paint(np.random.default_rng(3), labels, replace(_SHARP, pia=(share, share)))
        for share in (0.0, 0.5)
    )
    changed = (without - half).abs() > 1e-6
    expected = torch.zeros_like(changed)
    for axis in range(3):
        wide = [slice(8, 16)] * 3
        wide[axis] = slice(7, 17)
        expected[tuple(wide)] = True
    expected &= labels == 24
    assert torch.equal(changed, expected)
    # halfway to one value, the mean of the cortex
    grey = 2 * half[expected] - without[expected]
    assert grey.std() < 1e-5
    assert float(grey.mean()) == pytest.approx(float(half[labels == 3].mean()), abs=0.1)


def test_a_set_of_synthetic_scans_comes_back(source):
    scans = SyntheticScans(source, 2, seed=3)
    first, second = scans.volumes()
    assert not torch.equal(first.image, second.image)
    again = SyntheticScans(source, 2, seed=3)
    drawn = [again.draw(np.random.default_rng(i)) for i in range(8)]
    images = {bytes(v.image.numpy()[60].tobytes()) for v in drawn}
    assert images == {bytes(v.image.numpy()[60].tobytes()) for v in (first, second)}
    masks = [torch.ones(first.labels.shape, dtype=torch.int32)] * 2
    scans.reject(masks)
    assert all(v.rejected is not None for v in scans.volumes())
    assert scans.fingerprint() != source.fingerprint()


def test_corpus_callosum_is_near_the_midline():
    labels = phantom_labels()
    labels[70:80, 60:120, 95:101] = np.where(np.arange(70, 80) < 75, 2, 41)[:, None, None]
    callosum = derive_corpus_callosum(labels)
    x = np.argwhere(callosum)[:, 0]
    assert len(x) > 500
    assert abs(x.mean() - 74.5) < 1
    assert np.ptp(x) <= 6


def test_corpus_callosum_has_a_rostrum_but_no_fornix():
    labels = phantom_labels()
    labels[np.isin(labels, (2, 41))] = 4  # nothing else is white matter
    halves = np.where(np.arange(70, 80) < 75, 2, 41)[:, None, None]
    labels[70:80, 50:130, 100:106] = halves  # body
    labels[70:80, 50:62, 92:106] = halves  # splenium
    labels[70:80, 122:130, 82:106] = halves  # genu
    labels[70:80, 108:122, 82:86] = halves  # rostrum, before the thalamus (front at y = 97)
    labels[70:80, 75:98, 92:95] = halves  # fornix, free
    labels[70:80, 62:80, 95:100] = halves  # fornix, hanging on
    labels[60:90, 77:93, 70:90] = 10
    callosum = derive_corpus_callosum(labels)
    y, z = np.argwhere(callosum)[:, 1:].T
    assert not np.any((y > 64) & (y < 105) & (z < 97))
    assert callosum[73:77, 110:120, 83:85].all()
    assert callosum[73:77, 54:60, 94:104].all()
    assert callosum[73:77, 66:120, 101:105].all()


def test_the_thalamus_is_as_bright_as_the_prior_says():
    labels = torch.from_numpy(phantom_labels((160, 192, 160)))  # the frame
    thalamus, white = (torch.isin(labels, torch.tensor(ids)) for ids in ((10, 49), (2, 41)))
    config = replace(_SHARP, contrast=(0.5, 0.5))
    ratios = []
    for seed in range(40):
        image = paint(np.random.default_rng(seed), labels, config)
        ratios.append(float(image[thalamus].mean() / image[white].mean()))
    assert np.mean(ratios) == pytest.approx(1 + 0.5 * (0.84 - 1), abs=0.015)


def test_a_label_map_must_be_1_mm(tmp_path):
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.diag([2, 2, 2, 1])), path)
    with pytest.raises(ValueError, match="1 mm"):
        read_label_map(path)


IDENTITY = StackTransform(np.eye(3), False, np.zeros(2), 1.0, 0.0)


@pytest.mark.parametrize("depth", [StackDepth(), StackDepth(9, 3)], ids=str)
@pytest.mark.parametrize("plane", PLANES.values(), ids=lambda p: p.name)
def test_an_untransformed_stack_is_a_cut_through_the_volume(volume, plane, depth):
    centre = np.array([70.0, 90.0, 80.0])
    cut = resample_stacks(volume, [Cut(plane, centre, IDENTITY)], (32, 24), depth=depth)
    ordered = volume.image.permute(*plane.axes)
    k, r, c = (int(centre[a]) for a in plane.axes)
    window = (slice(r - 15, r + 17), slice(c - 11, c + 13))
    seen, labelled = (slice(k - n // 2, k + n // 2 + 1) for n in (depth.slices, depth.labelled))
    expected = ordered[seen, *window]
    torch.testing.assert_close(cut.images[0, 0].float(), expected, atol=3e-3, rtol=0)
    assert torch.equal(cut.labels[0], volume.labels.permute(*plane.axes)[labelled, *window])


def test_reflection_swaps_sides_of_image_and_labels(volume):
    mirror = replace(IDENTITY, matrix=np.diag([-1.0, 1.0, 1.0]), mirrored=True)
    flipped = LabelledVolume(
        volume.image.flip(0), torch.from_numpy(ASEG.mirror_labels())[volume.labels.flip(0).long()]
    )
    centre = (np.array(volume.image.shape) - 1) / 2
    centre[2] = 80
    for plane in PLANES.values():
        odd = (33, 25)  # symmetric about the centre
        one = resample_stacks(volume, [Cut(plane, np.round(centre + 0.1), mirror)], odd)
        middle = np.round(centre + 0.1)
        middle[0] = volume.image.shape[0] - 1 - middle[0]
        other = resample_stacks(flipped, [Cut(plane, middle, IDENTITY)], odd)
        torch.testing.assert_close(one.images, other.images, atol=3e-3, rtol=0)
        assert torch.equal(one.labels, other.labels)


def test_sampled_rotations_are_about_one_axis():
    config = AugmentationConfig(reflection_rate=0)
    for seed in range(20):
        matrix = sample_transform(np.random.default_rng(seed), config).matrix
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        assert sum(np.isclose(np.diag(matrix), 1)) >= 1


def test_blocks_do_not_depend_on_what_was_drawn_before(source):
    dataset = BlockDataset(source, SAMPLING, seed=3)
    first = dataset[1]
    dataset[0]
    again = dataset[1]
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, dataset[2].images)


def test_stacks_cut_together_are_those_cut_one_by_one(volume):
    rng = np.random.default_rng(0)
    volume = replace(volume, rejected=(volume.labels == 10).int())
    cuts = [draw_cut(rng, volume, SAMPLING, ASEG) for _ in range(8)]
    assert 0 < sum(cut.transform.mirrored for cut in cuts) < 8
    together = resample_stacks(volume, cuts, SAMPLING.patch)
    for i, cut in enumerate(cuts):
        alone = resample_stacks(volume, [cut], SAMPLING.patch)
        assert torch.equal(together.images[i : i + 1], alone.images)
        assert torch.equal(together.labels[i : i + 1], alone.labels)
        assert torch.equal(together.rejected[i : i + 1], alone.rejected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_makes_scans_of_the_same_kind(maps):
    paths = sorted(maps.glob("*.nii.gz"))
    config = SynthesisConfig(noise=(0.0, 0.0), labels=CLEAN)
    here, there = (
        SyntheticSource(paths, config, torch.device(d)).draw(np.random.default_rng(5))
        for d in ("cpu", "cuda")
    )
    assert (here.labels == there.labels.cpu()).float().mean() > 0.99
    torch.testing.assert_close(here.image.mean(), there.image.mean().cpu(), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("kind", "system", "change"),
    [
        ("source", "label-flip", {}),
        ("scans", "predictive-variance", {}),
        ("scans", "label-flip", {"labelled": 3, "deep_supervision": True}),
    ],
)
def test_interrupted_training_gives_the_same_losses(request, tmp_path, kind, system, change):
    source, config = request.getfixturevalue(kind), small_config(system)
    config = replace(config, network=replace(config.network, **change))
    whole, trainer = losses_of(config, source, tmp_path / "whole")
    assert len(whole) == 12
    first, _ = losses_of(config, source, tmp_path / "parts", stop_after=5)
    rest, resumed = losses_of(config, source, tmp_path / "parts")
    assert first + rest == whole
    for name, value in trainer.average.items():
        assert torch.equal(value, resumed.average[name]), name
        assert value.stride() == resumed.average[name].stride(), name
    for parameter, again in zip(
        trainer.network.parameters(), resumed.network.parameters(), strict=True
    ):
        ours, theirs = trainer.optimizer.state[parameter], resumed.optimizer.state[again]
        for state in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(ours[state], theirs[state])
            assert ours[state].stride() == theirs[state].stride()


@pytest.mark.slow
def test_workers_do_not_change_what_is_learned(source, tmp_path):
    # a block a step: each worker makes more than one
    config = replace(small_config(samples=16), sampling=replace(SAMPLING, volumes_per_block=1))
    alone, _ = losses_of(config, source, tmp_path / "a")
    helped, _ = losses_of(config, source, tmp_path / "b", workers=2)
    assert alone == helped


def test_a_resumed_run_may_be_shortened(scans, tmp_path):
    losses_of(small_config(), scans, tmp_path, stop_after=2)
    rest, trainer = losses_of(small_config(samples=16), scans, tmp_path)
    assert len(rest) == 2
    assert trainer.schedule == [(0, 48), (2, 16)]


def test_a_run_planned_by_time_ends_with_it(scans, tmp_path):
    trainer = Trainer(
        small_config(samples=4000), scans, RunOptions(tmp_path, torch.device("cpu"), workers=0)
    )
    seconds = iter(itertools.chain([0.0, 30.0], itertools.count(35.0, 5.0)))  # compiles for 30 s
    reports = list(paced(trainer, trainer.run(), 1.5, lambda: next(seconds)))
    assert len(reports) == 13  # 30 s, 35 s ... 90 s
    assert trainer.config.samples == reports[-1].samples == 13 * trainer.config.batch
    assert trainer.schedule == [(0, 4000), (3, 52)]
    assert reports[-1].learning_rate < 0.1 * trainer.config.schedule.peak


def test_a_checkpoint_of_other_settings_is_refused(scans, tmp_path):
    losses_of(small_config(), scans, tmp_path, stop_after=1)
    with pytest.raises(ValueError, match="other settings"):
        losses_of(replace(small_config(), seed=1), scans, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("system", ["plain", "predictive-variance", "label-flip"])
def test_training_lowers_the_loss(scans, tmp_path, system):
    config = replace(
        small_config(system, samples=480),
        plain_share=0.0,
        schedule=Schedule(peak=2e-2, warmup=2),
        sampling=replace(SAMPLING, stacks_per_volume=24),
    )
    losses, _ = losses_of(config, scans, tmp_path)
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])


def test_the_command_line_offers_every_recipe():
    assert set(RECIPES) == set(RECIPE_NAMES)


def test_the_paper_recipe_has_the_numbers_of_the_paper():
    recipe = paper_recipe("label-flip")
    assert (recipe.sampling.patch, recipe.batch, recipe.steps) == ((196, 196), 2, 520 * 2000)
    rates = [recipe.schedule.rate(step, recipe.steps) for step in (0, 1000, 1999, 2000)]
    assert rates == pytest.approx([1e-4, 5.005e-5, 1e-7, 1e-4], rel=1e-3)
    assert recipe.plain_share * 520 == pytest.approx(20)


def test_rmsprop_resumes_exactly_too(scans, tmp_path):
    config = replace(small_config(), optimizer="rmsprop", clip=None, ema_decay=0.0)
    whole, _ = losses_of(config, scans, tmp_path / "whole", stop_after=4)
    first, _ = losses_of(config, scans, tmp_path / "parts", stop_after=2)
    rest, trainer = losses_of(config, scans, tmp_path / "parts", stop_after=2)
    assert first + rest == whole
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(trainer.average[name], value)


def test_the_schedule_warms_up_and_anneals_to_zero():
    schedule = Schedule(peak=1.0, warmup=10)
    rates = [schedule.rate(step, 110) for step in range(110)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1, abs=1e-3)
    assert rates[-1] < 1e-3
    assert rates[60] == pytest.approx(0.5)
    short = [Schedule(peak=1.0, warmup=400).rate(step, 100) for step in range(100)]
    assert max(short) == pytest.approx(1, abs=1e-3), "a run shorter than its warm-up"
    assert short[-1] < 1e-2


def test_synthesis_settings_reach_the_fingerprint(maps):
    paths = sorted(maps.glob("*"))
    plain = SyntheticSource(paths).fingerprint()
    other = SyntheticSource(paths, SynthesisConfig(bias=0)).fingerprint()
    assert plain != other
    json.dumps(other)


def test_real_pairs_are_a_source(tmp_path):
    source = PairedSource(write_pair(tmp_path))
    drawn = source.draw(np.random.default_rng(0))
    assert drawn.image.shape == drawn.labels.shape
    white = drawn.image[drawn.labels == 2].median()
    assert white > drawn.image[drawn.labels == 3].median()
    assert (torch.nonzero(drawn.labels == 2)[:, 0].float().mean()) < drawn.labels.shape[0] / 2


def test_what_is_written_on_the_frame_lies_over_the_scan(tmp_path):
    folder = write_pair(tmp_path)
    volume = PairedSource(folder).volumes()[0]
    original = nib.load(folder / "sub-01" / "anat" / "sub-01_dseg.nii.gz")
    index = np.argwhere(volume.labels.numpy() == 51)
    places = nib.affines.apply_affine(np.linalg.inv(original.affine) @ volume.affine, index)
    found = np.asarray(original.dataobj)[tuple(np.rint(places).astype(int).T)]
    assert (found == 51).all()


def test_labels_on_another_grid_are_refused(tmp_path):
    folder = write_pair(tmp_path)
    path = folder / "sub-01" / "anat" / "sub-01_dseg.nii.gz"
    image = nib.load(path)
    moved = image.affine.copy()
    moved[0, 3] += 4
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), path)
    with pytest.raises(ImageError, match="grid"):
        PairedSource(folder).draw(np.random.default_rng(0))


def synthetic(maps: Path) -> list[object]:
    """Options to train on a single synthetic scan: a block of samples needs six new ones."""
    return ["--label-maps", maps, "--synthetic-scans", 1, "--workers", 0]


@pytest.fixture(scope="module")
def trained(maps, tmp_path_factory) -> Path:
    """A label-flip model of one step of the small recipe."""
    out = tmp_path_factory.mktemp("trained")
    arguments = [*synthetic(maps), "--recipe", "small", "--samples", 2]
    done = run_cli("hetseg-train", out, *arguments)
    assert done.code == 0, done.err
    return out / "model"


def fresh(system: str) -> HetsegNet:
    torch.manual_seed(0)
    return build_network(small_recipe(system))


def test_a_run_starts_from_all_weights_of_the_same_system(trained):
    model = load_model(str(trained), torch.device("cpu"))
    network = fresh("label-flip")
    start_from_(network, LabelFlip(), model, ASEG)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, model.network.state_dict()[name]), name


def test_the_second_map_of_another_system_stays_behind(trained):
    model = load_model(str(trained), torch.device("cpu"))
    weights = model.network.state_dict()
    before = fresh("predictive-variance").state_dict()
    network = fresh("predictive-variance")
    start_from_(network, PredictiveVariance(), model, ASEG)
    after = network.state_dict()
    assert torch.equal(after["head.weight"][:N_TASKS], weights["head.weight"][:N_TASKS])
    assert torch.equal(after["head.weight"][N_TASKS:], before["head.weight"][N_TASKS:])
    plain = fresh("plain")
    start_from_(plain, Plain(), model, ASEG)
    assert torch.equal(plain.state_dict()["head.bias"], weights["head.bias"][:N_TASKS])


@pytest.mark.parametrize(
    "larger",
    [
        {},
        {"stem": (12, 9, 24)},
        {"levels": (20, 40, 64)},
        {"growth": 24},
        {"dilations": (1, 2, 4, 8, 1, 2, 4)},
        {"stem": (16, 16, 32), "levels": (32, 64, 96), "dilations": (1, 2, 4, 8, 1, 2)},
    ],
)
def test_a_larger_network_starts_with_the_same_output(trained, larger):
    model = load_model(str(trained), torch.device("cpu"))
    torch.manual_seed(1)
    network = HetsegNet(replace(model.plan.network, **larger))
    start_from_(network, LabelFlip(), model, ASEG)
    stacks = torch.randn((2, 1, 7, 32, 40), generator=torch.Generator().manual_seed(2))
    expected = model.network(stacks)
    found = network(stacks)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    found.square().mean().backward()
    gradient = network.reduce1.weight.grad
    assert gradient is not None
    assert gradient.flatten(1).any(dim=0).all(), "new channels are heard after the first step"


def test_new_slices_and_resolutions_start_from_the_middle_slice(trained):
    model = load_model(str(trained), torch.device("cpu"))
    old = model.network.state_dict()
    torch.manual_seed(1)
    network = HetsegNet(replace(model.plan.network, labelled=3, deep_supervision=True))
    start_from_(network, LabelFlip(), model, ASEG)
    stacks = torch.randn((2, 1, 7, 32, 40), generator=torch.Generator().manual_seed(2))
    expected = model.network(stacks).repeat_interleave(3, dim=0)
    found = network.forward_training(stacks)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network.state_dict()["head.bias"], old["head.bias"].repeat(3))


@pytest.mark.parametrize(
    "smaller",
    [
        {"growth": 8},
        {"levels": (16, 31, 48)},
        {"dilations": (1, 2, 4, 8)},
        {"stem": (8, 16)},
        {"stem": (8, 8, 16, 16)},
    ],
)
def test_a_smaller_network_can_not_start_from_a_model(trained, smaller):
    model = load_model(str(trained), torch.device("cpu"))
    network = HetsegNet(replace(model.plan.network, **smaller))
    with pytest.raises(ModelError, match="a larger one"):
        start_from_(network, LabelFlip(), model, ASEG)


@pytest.mark.slow
def test_hetseg_train_starts_from_a_model_and_says_so(maps, trained, tmp_path):
    arguments = [*synthetic(maps), "--samples", 2, "--batch", 2]
    small = ["--recipe", "small", "--init", "label-flip"]
    shipped = run_here("hetseg-train", tmp_path / "x", *arguments, *small)
    assert shipped.code == 2
    assert "wider" in shipped.err
    out = tmp_path / "out"
    done = run_cli("hetseg-train", out, *arguments, "--system", "plain", "--init", trained)
    assert done.code == 0, done.err
    plan = json.loads((out / "model" / "plan.json").read_text())
    before = json.loads((trained / "plan.json").read_text())
    assert plan["provenance"]["training"]["initial_weights"] == before["weights_sha256"]
    assert plan["network"] == before["network"] | {"n_outputs": N_TASKS}, "goes on as it is"


@pytest.mark.slow
def test_polishing_goes_on_with_a_network_in_small_steps(maps, trained, tmp_path):
    polish = [*synthetic(maps), "--recipe", "polish", "--samples", 2, "--batch", 2]
    start = shutil.copytree(trained, tmp_path / "start")
    replace(read_plan(start), smoothing=2).save(start)
    alone = run_here("hetseg-train", tmp_path / "x", *polish)
    assert alone.code == 2
    assert "--init" in alone.err
    done = run_cli("hetseg-train", tmp_path / "out", *polish, "--init", start)
    assert done.code == 0, done.err
    before, after = (
        load_model(str(m), torch.device("cpu")) for m in (start, tmp_path / "out/model")
    )
    assert after.plan.network == before.plan.network
    assert after.plan.smoothing == 2, "is used as before, too"
    weights = [m.network.state_dict()["head.weight"] for m in (before, after)]
    assert 0 < float((weights[0] - weights[1]).abs().max()) < 1e-3


@pytest.mark.slow
def test_the_mean_of_models_from_the_same_weights_is_a_model(maps, trained, tmp_path):
    arguments = [*synthetic(maps), "--samples", 2, "--batch", 2]
    runs = [tmp_path / f"run{seed}" for seed in (1, 2)]
    for seed, out in enumerate(runs, 1):
        done = run_cli("hetseg-train", out, *arguments, "--init", trained, "--seed", seed)
        assert done.code == 0, done.err
    models = [trained, *(out / "model" for out in runs)]
    done = run_cli("hetseg-train", tmp_path / "mean", "--average", *models, "--name", "soup")
    assert done.code == 0, done.err
    mean = load_model(str(tmp_path / "mean" / "model"), torch.device("cpu"))
    weights = [load_model(str(m), torch.device("cpu")).network.state_dict() for m in models]
    assert not torch.equal(weights[1]["head.weight"], weights[2]["head.weight"])
    for name, tensor in mean.network.state_dict().items():
        assert torch.allclose(tensor, sum(w[name] for w in weights) / 3, atol=1e-6), name
    checksums = [part["weights_sha256"] for part in mean.plan.provenance["models"]]
    assert checksums == [
        json.loads((m / "plan.json").read_text())["weights_sha256"] for m in models
    ]
    assert mean.plan.name == "soup"
    assert mean.plan.provenance["origins"] == [checksums[0]]
    first = runs[0] / "model"  # how its views are pooled is no fact of a mean
    replace(load_model(str(first), torch.device("cpu")).plan, pooling=Pooling(0.8, 0.2)).save(first)
    pair = run_cli("hetseg-train", tmp_path / "pair", "--average", first, trained)
    assert pair.code == 0, pair.err
    pooled = load_model(str(tmp_path / "pair" / "model"), torch.device("cpu"))
    assert pooled.plan.pooling is None
    again = run_cli(
        "hetseg-train", tmp_path / "x", "--average", tmp_path / "mean" / "model", runs[0] / "model"
    )
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "two models"),
        (["plain"], "same system"),
        (["label-flip-rejection"], "smoothing"),
    ],
)
def test_only_models_of_one_kind_have_a_mean(tmp_path, others, message):
    done = run_here("hetseg-train", tmp_path / "out", "--average", "label-flip", *others)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_only_models_of_one_origin_have_a_mean(tmp_path):
    unrelated = shutil.copytree(model_folder("label-flip-rejection"), tmp_path / "unrelated")
    smoothing = read_plan(model_folder("label-flip")).smoothing
    replace(read_plan(unrelated), smoothing=smoothing).save(unrelated)
    done = run_here("hetseg-train", tmp_path / "out", "--average", "label-flip", unrelated)
    assert done.code == 2
    assert "same --init" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_validation_figures_survive_an_interruption(maps, tmp_path):
    scans = write_pair(tmp_path / "scans")
    arguments = [*synthetic(maps), "--recipe", "small", "--samples", 4]
    arguments += ["--validate", scans, "--validate-every", 2]
    whole = run_cli("hetseg-train", tmp_path / "a", *arguments)
    assert whole.code == 0, whole.err
    for stop in (["--stop-after", 1], []):
        done = run_cli("hetseg-train", tmp_path / "b", *arguments, *stop)
        assert done.code == 0, done.err
    tables = [(tmp_path / run / "validation.tsv").read_text() for run in "ab"]
    assert tables[0] == tables[1]
    rows = tables[0].splitlines()
    assert rows[0] == "samples\tparticipant\tname\tdice"
    assert len(rows) == 1 + 2 * len(STRUCTURES)
    assert rows[1].startswith("2\tsub-01\tleft_cerebral_white_matter")


class OneScan:
    """A source of one volume."""

    def __init__(self, volume: LabelledVolume) -> None:
        self.volume = volume

    def fingerprint(self) -> dict[str, object]:
        return {"kind": "test"}

    def draw(self, rng: np.random.Generator) -> LabelledVolume:  # noqa: ARG002
        return self.volume


def tiny_scan() -> LabelledVolume:
    """Blocks of six structures; the sides differ in shape, or sagittal slices had no side."""
    image = torch.full((48, 48, 48), BACKGROUND)
    labels = torch.zeros(image.shape, dtype=torch.uint8)
    boxes = {
        2: ((4, 24), (4, 44), (4, 44), 0.6),
        41: ((24, 44), (12, 36), (4, 44), 1.4),
        12: ((8, 18), (14, 30), (14, 30), -0.2),
        51: ((30, 40), (14, 30), (14, 30), -1.0),
        16: ((20, 28), (30, 42), (6, 18), 2.2),
        14: ((20, 28), (8, 24), (26, 40), -1.8),
    }
    for label, (x, y, z, brightness) in boxes.items():
        box = (slice(*x), slice(*y), slice(*z))
        image[box], labels[box] = brightness, label
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return LabelledVolume(image + 0.05 * noise * (labels > 0), labels)


@pytest.mark.slow
def test_a_short_run_overfits_one_scan(tmp_path):
    still = AugmentationConfig(reflection_rate=0, rotation_deg=0, offset=0, scale=0, shift=0)
    config = TrainingConfig(
        network=NetworkConfig(LabelFlip().n_outputs(N_TASKS), (4, 4, 8), (8, 16, 24), (1, 2), 8),
        sampling=SamplingConfig((48, 48), 2, 32, augmentation=still),
        samples=2400,
        batch=2,
        schedule=Schedule(peak=5e-3, warmup=40),
        ema_decay=0.98,
    )
    volume = tiny_scan()
    _, trainer = losses_of(config, OneScan(volume), tmp_path)
    scan = ValidationScan("sub-01", *even_stacks(volume, config.sampling.patch))
    scores = np.array(
        list(structure_dice(trainer.network, trainer.average, scan, ASEG, amp=True).values())
    )
    assert np.isfinite(scores).sum() >= 6
    assert np.nanmean(scores) > 0.9


@pytest.mark.slow
def test_hetseg_train_resumes_and_makes_a_model(maps, tmp_path):
    out = tmp_path / "run"
    arguments = [out, "--label-maps", maps, "--samples", 8, "--workers", 0, "--name", "tiny"]
    stopped = run_cli("hetseg-train", *arguments, "--stop-after", 1)
    assert stopped.code == 0, stopped.err
    assert not (out / "model").exists()
    done = run_cli("hetseg-train", *arguments)
    assert done.code == 0, done.err
    assert "resumed at step 1" in done.err
    assert list((out / "tensorboard").iterdir())
    plan = json.loads((out / "model" / "plan.json").read_text())
    assert plan["provenance"]["samples_seen"] == 8
    assert plan["name"] == "tiny"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label-maps", "nowhere"], "no *.nii"),
        (["--scans", "nowhere"], "no *_T1w"),
        (["--label-maps", ".", "--init", "nothing"], "--init nothing"),
        (["--scans", ".", "--synthetic-scans", "4"], "needs --label-maps"),
        (["--scans", ".", "--device", "cuda:9"], "cuda:9"),
        (["--scans", ".", "--minutes", "0"], "must be positive"),
    ],
)
def test_hetseg_train_refuses_in_one_line(tmp_path, arguments, message):
    done = run_here("hetseg-train", tmp_path / "run", *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
