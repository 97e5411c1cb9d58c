from pathlib import Path

import matplotlib.image
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from hetseg_bids.errors import DatasetError
from hetseg_bids.evaluation.compare import find_matches
from hetseg_bids.evaluation.metrics import boundary_band, compare, dice, hausdorff95
from hetseg_bids.evaluation.statistics import holm, wilcoxon_table
from hetseg_bids.structures.aseg import STRUCTURES
from support.commands import run_cli, run_here
from support.phantoms import centred_affine, phantom_labels, phantom_t1w


def cube(shift: int) -> np.ndarray:
    mask = np.zeros((30, 20, 20), bool)
    mask[5 + shift : 15 + shift, 5:15, 5:15] = True
    return mask


def test_dice_of_shifted_cubes():
    assert dice(cube(0), cube(0)) == 1
    assert dice(cube(0), cube(2)) == pytest.approx(0.8)
    assert dice(cube(0), cube(12)) == 0
    assert np.isnan(dice(np.zeros((2, 2), bool), np.zeros((2, 2), bool)))


def test_the_band_lies_on_both_sides_of_a_boundary_but_not_along_a_cut():
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[4:9, 4:9, :8] = True  # cut by the image's border below
    box, band = boundary_band(mask, 1)
    assert box == (slice(3, 10), slice(3, 10), slice(0, 9))
    everywhere = np.zeros_like(mask)
    everywhere[box] = band
    places = [(3, 6, 2), (4, 6, 2), (6, 6, 8), (5, 6, 2), (6, 6, 0), (2, 6, 2)]
    assert [bool(everywhere[place]) for place in places] == [True] * 3 + [False] * 3
    assert not boundary_band(np.zeros_like(mask), 2)[1].size


def test_hausdorff_is_in_mm():
    assert hausdorff95(cube(0), cube(0), np.ones(3)) == 0
    assert hausdorff95(cube(0), cube(3), np.array([2.0, 1, 1])) == pytest.approx(6)
    assert np.isnan(hausdorff95(cube(0), np.zeros_like(cube(0)), np.ones(3)))


def test_volume_error_is_signed():
    agreement = compare(cube(0)[:, :, ::1] & (np.arange(20) < 10), cube(0), np.full(3, 2.0))
    assert agreement.reference_mm3 == 8000
    assert agreement.volume_error == pytest.approx(-0.5)


def phantom_brain(seed: int = 0) -> np.ndarray:
    """The phantom's structures, each voxel of some of them wrong at random."""
    labels = phantom_labels()[::2, ::2, ::2]
    labels = np.where((labels == 211) | (labels == 24), 0, labels).astype(np.uint8)
    wrong = np.random.default_rng(seed).random(labels.shape) < 0.02 * seed
    return np.where(wrong, 0, labels).astype(np.uint8)


def save(labels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, centred_affine(labels.shape[:3], 2)), path)


def test_command_scores_a_folder(tmp_path):
    labels = phantom_brain()
    save(labels, tmp_path / "refs" / "sub-01_dseg.nii.gz")
    moved = np.where(labels == 51, np.uint8(41), labels)
    save(moved, tmp_path / "out" / "sub-01" / "anat" / "sub-01_seg-hetseg_dseg.nii.gz")
    done = run_cli(
        "hetseg-evaluate", tmp_path / "refs", tmp_path / "out", "--out", tmp_path / "scores.tsv"
    )
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "scores.tsv", sep="\t")
    assert set(table["system"]) == {"out"}
    scores = table.set_index("name")["dice"]
    assert scores["left_putamen"] == 1
    assert scores["right_putamen"] == 0
    assert "left_accumbens" not in scores  # the reference has none
    assert "right_putamen 0.000" in done.out


def test_references_are_found_in_linked_folders_and_among_results_of_another_run(tmp_path):
    for run in ("a", "b"):
        for session in ("1", "2"):
            stem = f"sub-01_ses-{session}"
            path = tmp_path / run / "sub-01" / "anat" / f"{stem}_seg-hetseg_dseg.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    truth = tmp_path / "store" / "anat" / "sub-01_ses-2_dseg.nii.gz"
    truth.parent.mkdir(parents=True)
    truth.touch()
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "sub-01").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "refs")
    (match,) = find_matches(tmp_path / "refs", tmp_path / "a")
    assert match.name == "sub-01_ses-2"
    assert match.reference.resolve() == truth
    assert match.segmentation.name == "sub-01_ses-2_seg-hetseg_dseg.nii.gz"
    # two runs of hetseg, say two models
    pairs = find_matches(tmp_path / "a", tmp_path / "b")
    assert [pair.name for pair in pairs] == ["sub-01_ses-1", "sub-01_ses-2"]
    with pytest.raises(DatasetError, match="the results themselves"):
        find_matches(tmp_path / "a", tmp_path / "a")
    truth.rename(truth.with_name("sub-01_dseg.nii.gz"))
    with pytest.raises(DatasetError, match="sub-01_ses-1, sub-01_ses-2 could be meant"):
        find_matches(tmp_path / "refs", tmp_path / "a")
    with pytest.raises(DatasetError, match=r"no \*_dseg\.nii\.gz in it or below"):
        find_matches(tmp_path / "nowhere", tmp_path / "a")


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The report on two systems: one with two runs and flip maps, one that is worse."""
    root = tmp_path_factory.mktemp("report")
    words = []
    for number, (system, run) in enumerate((("good", 0), ("good", 1), ("bad", 0))):
        folder = root / f"{system}-{run}"
        words.append(f"{system}={folder}")
        for subject in range(6):
            stem = f"sub-{subject:02d}"
            labels = phantom_brain(1 + 3 * (system == "bad") + (subject + number) % 2)
            save(labels, folder / stem / "anat" / f"{stem}_seg-hetseg_dseg.nii.gz")
            if system == "good" and subject < 2:
                flip = np.zeros((*labels.shape, 28), np.float32)
                flip[labels == 51, 3] = 0.4
                save(
                    flip,
                    folder / stem / "anat" / f"{stem}_seg-hetseg_desc-labelflip_probseg.nii.gz",
                )
    for subject in range(6):
        save(phantom_brain(), root / "refs" / f"sub-{subject:02d}_dseg.nii.gz")
    t1w = phantom_t1w(phantom_brain())
    save(t1w, root / "refs" / "sub-01_T1w.nii.gz")
    for run, level in enumerate((0.5, 0.6)):
        rows = [(n, "sub-00", s.name, level + n / 1e4) for n in (500, 1000) for s in STRUCTURES]
        table = pd.DataFrame(rows, columns=["samples", "participant", "name", "dice"])
        (root / f"run-{run}").mkdir()
        table.to_csv(root / f"run-{run}" / "validation.tsv", sep="\t", index=False)
    curves = [f"good={root}/run-0", f"good={root}/run-1", f"bad={root}/run-0"]
    arguments = [root / "refs", *words, "--report", root / "report", "--curves", *curves]
    done = run_cli("hetseg-evaluate", *arguments)
    assert done.code == 0, done.err
    return root / "report"


def test_report_has_table_1_with_the_better_system_in_bold(report):
    scores = pd.read_csv(report / "scores.tsv", sep="\t")
    assert len(scores) == 3 * 6 * scores["name"].nunique()
    table = pd.read_csv(report / "table1.tsv", sep="\t").set_index("structure")
    by_hand = scores[scores["name"].isin(("left_putamen", "right_putamen"))]
    mean = by_hand.groupby("system")["dice"].mean()
    assert table.loc["Putamen", "good_mean"] == pytest.approx(mean["good"], abs=1e-4)
    assert table.index[-1] == "All structures"
    text = (report / "table1.md").read_text()
    assert f"**{table.loc['Putamen', 'good_mean']:.3f}**" in text
    assert f"| {table.loc['Putamen', 'bad_mean']:.3f} ±" in text


def test_report_tests_participants_and_not_runs(report):
    tests = pd.read_csv(report / "wilcoxon.tsv", sep="\t").set_index("measure")
    overall = tests.loc["mean_dice"]
    assert (overall["first"], overall["second"], overall["n"]) == ("good", "bad", 6)
    assert overall["p"] == pytest.approx(2 / 2**6, abs=1e-4)  # all six agree: the least p there is
    assert tests.loc["structures_pooled"]["n"] > 6
    assert (tests["p_holm"] >= tests["p"] - 1e-9).all()


def test_report_has_curves_and_overlays(report):
    curves = pd.read_csv(report / "curves.tsv", sep="\t")
    assert set(curves.columns) == {"system", "run", "samples", "name", "dice"}
    assert len(curves) == 3 * 2 * len(STRUCTURES)
    drawing = (report / "learning_curves.svg").read_text()
    assert "<svg" in drawing
    assert (report / "learning_curves.png").stat().st_size > 10_000
    overlays = list((report / "overlays").iterdir())
    assert [o.name for o in overlays] == ["sub-01_good.png"]  # only where the T1w is
    picture = matplotlib.image.imread(overlays[0])
    assert picture[..., :3].max() > 0.9
    assert np.ptp(picture[..., 0] - picture[..., 2]) > 0.3  # coloured layers


def test_holm_is_the_textbook_example():
    p = np.array([0.01, 0.04, 0.03, 0.005, np.nan])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02, np.nan])


def test_wilcoxon_is_scipys_and_equal_systems_have_no_p():
    rng = np.random.default_rng(0)
    rows = [
        (system, 0, f"sub-{i}", "brainstem", 0.8 + shift * rng.random())
        for system, shift in (("a", 0.0), ("b", 0.1), ("c", 0.0))
        for i in range(8)
    ]
    scores = pd.DataFrame(rows, columns=["system", "run", "participant", "name", "dice"])
    table = wilcoxon_table(scores).set_index(["measure", "first", "second"])
    wide = scores.pivot(index="participant", columns="system", values="dice")
    expected = wilcoxon(wide["a"] - wide["b"]).pvalue
    assert table.loc[("mean_dice", "a", "b"), "p"] == pytest.approx(expected)
    assert table.loc[("mean_dice", "a", "b"), "p_holm"] == pytest.approx(2 * expected)
    assert np.isnan(table.loc[("mean_dice", "a", "c"), "p"])
    assert np.isnan(table.loc[("brainstem", "a", "c"), "p_holm"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x=nowhere"], "no segmentation"),
        (["=x"], "NAME=DIR"),
        (["x=.", "--curves", "x=."], "--report"),
    ],
)
def test_command_refuses_in_one_line(tmp_path, arguments, message):
    save(phantom_brain(), tmp_path / "sub-01_dseg.nii.gz")
    done = run_here("hetseg-evaluate", tmp_path, *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_command_names_what_is_missing(tmp_path):
    (tmp_path / "refs").mkdir()
    done = run_here("hetseg-evaluate", tmp_path / "refs", tmp_path)
    assert done.code == 2
    assert "no *_dseg" in done.err
