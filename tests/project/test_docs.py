"""What the documentation says runs, and says what the code does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from bids import BIDSLayout

from hetseg_bids.quality.outliers import LEAST_PEOPLE
from hetseg_bids.quality.verdict import QcLimits
from hetseg_bids.structures.aseg import STRUCTURES
from support.commands import QUICK, run_cli
from support.corruptions import good
from support.datasets import t1w_path, write_dataset, write_small_pair
from support.tiny_model import write_tiny_model

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def run_python(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("docs")
    bids = write_dataset(root / "bids")
    for subject in ("01", "02"):
        good(t1w_path(bids, subject))
    model = write_tiny_model(root / "model")
    for level in ("participant", "group"):
        options = (*QUICK, "--model", model) if level == "participant" else ()
        done = run_cli("hetseg", bids, root / "OUT", level, *options)
        assert done.code == 0, done.err
    return root / "OUT"


def test_what_is_made_from_code_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import make_usage

    for path, text in make_usage.pages().items():
        assert path.read_text() == text, "python docs/make_usage.py"


def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    pages = {p.parent.name for p in tmp_path.glob("*/index.html")}
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} <= pages


@pytest.fixture
def error_bars(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "examples"))
    import error_bars

    return error_bars


def test_the_error_bar_example_finds_the_truth():
    done = run_python("docs/examples/error_bars.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in (DOCS / "uncertainty.md").read_text()
    found = dict(line.rsplit(": ", 1) for line in done.stdout.splitlines())
    for name in ("ordinary", "noisiest left out", "weighted"):
        assert float(found[f"volume on predictor, {name}"]) == pytest.approx(-25, abs=2)
    corrected = float(found["outcome on volume, error in variables"])
    ordinary = float(found["outcome on volume, ordinary"])
    assert corrected == pytest.approx(-1.2e-3, rel=0.1)
    assert abs(ordinary) < 0.8 * abs(corrected)
    # the distance to a reference, taken for noise, and said to be wrong
    assert float(found["WRONG, with volume_sd_mm3: reliability"]) < 0.1
    assert "don't use it" in done.stdout


def example_tables(folder: Path, morph: pd.DataFrame, people: pd.DataFrame) -> list[str]:
    paths = folder / "group_morph.tsv", folder / "participants.tsv"
    for path, table in zip(paths, (morph, people), strict=True):
        table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    return [str(path) for path in paths]


@pytest.fixture
def rescans() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Volumes of three people's first and second scans."""
    table = pd.read_csv(ROOT / "benchmarks" / "results" / "repeat-scans.tsv", sep="\t")
    first = table["scan"] == table["participant_id"]
    return table[first].reset_index(drop=True), table[~first].reset_index(drop=True)


def test_on_real_pairs_the_reliability_is_that_of_the_rescans(rescans, error_bars):
    first, second = rescans
    rows = {}
    for name, one in first.groupby("name"):
        volume = one["volume_mm3"].to_numpy()
        difference = volume - second.loc[one.index, "volume_mm3"].to_numpy()
        rows[name] = {
            "rescans": 1 - (difference**2).mean() / 2 / volume.var(ddof=1),
            "repeat": error_bars.reliability(volume, one["volume_repeat_sd_mm3"].to_numpy()),
            "reference": error_bars.reliability(volume, one["volume_sd_mm3"].to_numpy()),
        }
    found = pd.DataFrame(rows).T.median()
    assert found["repeat"] == pytest.approx(found["rescans"], abs=0.05)
    assert found["rescans"] > 0.9
    assert found["reference"] < 0


def test_on_real_pairs_the_example_finds_that_a_second_scan_is_the_first(
    rescans, error_bars, tmp_path, capsys
):
    first, second = rescans
    # of three people: a structure in which they differ by much more than it does from scan to scan
    cortex = second[second["name"] == "left_cerebral_cortex"]
    people = cortex[["participant_id", "volume_mm3"]].rename(columns={"volume_mm3": "second"})
    tables = example_tables(tmp_path, first, people)
    # FreeSurfer's spelling is understood
    options = ["--structure", "Left-Cerebral-Cortex", "--outcome", "second"]
    assert error_bars.main([*tables, *options]) == 0
    found = dict(line.rsplit(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert float(found["outcome on volume, error in variables"]) == pytest.approx(1, abs=0.1)
    # the other standard deviation can't be right, and no number comes of it
    wrong = first.assign(volume_repeat_sd_mm3=first["volume_sd_mm3"])
    assert error_bars.main([*example_tables(tmp_path, wrong, people), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("outcome on volume, error in variables: none: the standard dev")
    assert float(lines[-2].split(": ")[1]) < 0  # not clamped


def test_the_error_bar_example_scales_heads_to_one_size(tmp_path, error_bars, capsys):
    rows = []
    for number in range(4):
        size = 1.2e6 + 1e5 * number
        for name, volume, noise in (("brainstem", 0.01, 0.02), ("intracranial", 1.0, 0.01)):
            scan = {"participant_id": f"sub-{number}", "scan": f"sub-{number}", "name": name}
            volumes = {"volume_mm3": volume * size, "volume_repeat_sd_mm3": noise * volume * size}
            rows.append(scan | volumes)
    people = pd.DataFrame({"participant_id": [f"sub-{n}" for n in range(4)], "age": range(4)})
    morph, participants = map(Path, example_tables(tmp_path, pd.DataFrame(rows), people))
    data = error_bars.read(morph, participants, "brainstem", "age", None, relative=True)
    # proportional to the head, so that nothing but the noise of both is left
    assert data["volume_mm3"].to_numpy() == pytest.approx(np.full(4, 0.01 * 1.35e6))
    share = data["volume_repeat_sd_mm3"] / data["volume_mm3"]
    assert share.to_numpy() == pytest.approx(np.full(4, np.hypot(0.02, 0.01)))
    only = pd.DataFrame(rows)[lambda table: table["name"] == "brainstem"]
    tables = example_tables(tmp_path, only, people)
    options = ("--structure", "brainstem", "--predictor", "age", "--relative")
    assert error_bars.main([*tables, *options]) == 2
    assert "no scan has an intracranial volume" in capsys.readouterr().err


def test_the_error_bar_example_reads_a_cohort(out, tmp_path, error_bars):
    people = tmp_path / "participants.tsv"
    people.write_text("participant_id\tage\nsub-01\t30\nsub-02\t50\nsub-03\tn/a\n")
    data = error_bars.read(out / "group_morph.tsv", people, "brainstem", "age", None)
    assert list(data["x"]) == [30, 50]
    assert list(data.columns) == ["volume_mm3", "volume_repeat_sd_mm3", "x"]


def test_two_scans_of_a_person_are_one_person_in_the_error_bar_example(
    rescans, error_bars, tmp_path
):
    both = pd.concat(rescans)
    people = pd.DataFrame({"participant_id": both["participant_id"].unique(), "age": [20, 30, 40]})
    morph, participants = map(Path, example_tables(tmp_path, both, people))
    data = error_bars.read(morph, participants, "brainstem", "age", None)
    assert len(data) == 3
    stems = both[(both["name"] == "brainstem") & (both["participant_id"] == data.index[0])]
    assert data["volume_mm3"].iloc[0] == pytest.approx(stems["volume_mm3"].mean())
    of_a_mean = np.sqrt((stems["volume_repeat_sd_mm3"] ** 2).sum()) / 2
    assert data["volume_repeat_sd_mm3"].iloc[0] == pytest.approx(of_a_mean)


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"volume_repeat_sd_mm3": "Measure"}, {}, "no column volume_repeat_sd_mm3; it has"),
        ({"participant_id": "subject"}, {}, "no column participant_id"),
        ({}, {"--outcome": "height"}, "participants.tsv: no column height; it has participant_id"),
        ({}, {"--structure": "left_tail"}, "no structure 'left_tail'; it has left_cerebral_white"),
        ({}, {"--outcome": "sex"}, "column sex must hold numbers"),
        ({}, {"--outcome": "same"}, None),
    ],
)
def test_the_error_bar_example_says_what_a_table_lacks(
    rescans, error_bars, tmp_path, capsys, change, options, said
):
    people = {"participant_id": ["sub-1003", "sub-1018", "sub-1019"], "score": [1.0, 2, 4]}
    people |= {"sex": ["F", "M", "F"], "same": [3, 3, 3]}
    tables = example_tables(tmp_path, rescans[0].rename(columns=change), pd.DataFrame(people))
    options = {"--structure": "brainstem", "--outcome": "score"} | options
    code = error_bars.main([*tables, *(word for pair in options.items() for word in pair)])
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == ((2, 1) if said else (0, 0))
    assert (said or "") in err


@pytest.mark.parametrize(
    "arguments",
    [["a.tsv"], ["a.tsv", "b.tsv"], ["a.tsv", "b.tsv", "--structure", "x"], ["--structure", "x"]],
)
def test_half_a_command_line_of_the_error_bar_example_gets_its_usage(error_bars, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        error_bars.main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_error_bar_example_needs_its_files(error_bars, tmp_path, capsys):
    options = ["--structure", "brainstem", "--predictor", "age"]
    code = error_bars.main([str(tmp_path / "no.tsv"), str(tmp_path / "no.tsv"), *options])
    assert code == 2
    assert "no.tsv: No such file" in capsys.readouterr().err


def test_the_formula_of_repeat_noise_gives_the_column_of_the_table(out):
    page = (DOCS / "uncertainty.md").read_text()
    formula = r"sd\^2 = \(1 \+ \(noise / (.+?)\)\^2\) \((.+?) mm3 F \+ \((.+?) V\)\^2\)"
    noise, border, share = map(float, re.search(formula, page).groups())
    stem = str(out / "sub-01" / "anat" / "sub-01_seg-hetseg")
    image = nib.load(f"{stem}_desc-labelflip_probseg.nii.gz")
    q = np.asarray(image.dataobj, np.float32)
    flips = (q * (1 - q)).sum(axis=(0, 1, 2), dtype=np.float64) * abs(np.linalg.det(image.affine))
    found = json.loads(Path(f"{stem}_dseg.json").read_text())["HetsegImageQuality"]["noise"]
    table = pd.read_csv(f"{stem}_morph.tsv", sep="\t").head(len(STRUCTURES))
    quiet = border * flips + (share * table["volume_mm3"]) ** 2
    expected = np.sqrt((1 + ((found or 0) / noise) ** 2) * quiet)
    np.testing.assert_allclose(table["volume_repeat_sd_mm3"], expected, rtol=0.02)


def test_the_image_example_runs_on_real_outputs(out, monkeypatch):
    mpl.use("Agg")
    monkeypatch.chdir(out.parent)
    good(Path("T1w.nii.gz"))
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "uncertainty.md").read_text(), re.S)
    names: dict[str, object] = {}
    exec(block, names)  # noqa: S102 - our own page
    assert STRUCTURES[8].name == "left_thalamus"
    dseg, q = (np.asarray(names[n].dataobj) for n in ("dseg", "thalamus"))
    expected = (dseg == STRUCTURES[8].label) & (q < 0.1)
    np.testing.assert_array_equal(np.asarray(names["sure"].dataobj) > 0, expected)


def test_the_other_tools_example_runs_on_real_outputs(out, monkeypatch, capsys):
    mpl.use("Agg")
    monkeypatch.chdir(out.parent)
    good(Path("T1w.nii.gz"))
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "interoperability.md").read_text(), re.S)
    exec(block, {})  # noqa: S102 - our own page
    assert Path("qc.png").stat().st_size > 10_000
    morph = pd.read_csv(next(out.rglob("sub-01*_morph.tsv")), sep="\t").set_index("name")
    printed = float(capsys.readouterr().out.split()[-2])
    assert printed == pytest.approx(morph.loc["left_thalamus", "volume_mm3"] / 1000, abs=0.01)


def test_pybids_finds_the_derivatives(out):
    layout = BIDSLayout(out.parent / "bids", derivatives=out, validate=False)
    found = layout.get(scope="derivatives", suffix="dseg", extension=".nii.gz", subject="02")
    assert [Path(f.path).name for f in found] == ["sub-02_seg-hetseg_dseg.nii.gz"]
    maps = layout.get(scope="derivatives", desc="labelflip", suffix="probseg", extension=".nii.gz")
    assert len(maps) == 2
    names = maps[0].get_metadata()["LabelMap"]
    assert names == [s.name for s in STRUCTURES]


def test_every_table_loads_without_options(out):
    tables = sorted(out.rglob("*.tsv"))
    assert {t.name for t in tables} >= {"group_morph.tsv", "group_qc.tsv"}
    for path in tables:
        table = pd.read_csv(path, sep="\t")
        assert len(table) or path.name == "group_missing.tsv"  # nobody is
        assert not [c for c in table.columns if c.startswith("Unnamed")]
        dictionary = path.with_suffix(".json")
        if not path.name.endswith("_dseg.tsv"):
            assert set(json.loads(dictionary.read_text())) == set(table.columns)


@pytest.mark.slow
def test_the_few_shot_tutorial_runs(tmp_path, monkeypatch):
    """Every command of the page, with 4 stacks instead of 1200 and one view instead of six.

    Structures of one's own have the view of the mirror image, too, where they change sides.
    """
    blocks = re.findall(r"^```\n(.*?)^```", (DOCS / "few-shot.md").read_text(), re.M | re.S)
    (table,) = (block for block in blocks if block.startswith("index\t"))
    commands = [line for block in blocks for line in block.splitlines() if line[:6] == "hetseg"]
    assert [line.split()[0] for line in commands] == 2 * [
        "hetseg-train",
        "hetseg",
        "hetseg-evaluate",
    ]
    good(t1w_path(write_dataset(tmp_path / "mine" / "bids"), "09"))
    write_small_pair(tmp_path / "mine" / "train", "01")
    write_small_pair(tmp_path / "mine" / "validation", "09")
    (tmp_path / "mine" / "labels.tsv").write_text(table)
    monkeypatch.chdir(tmp_path)
    views = iter((["--views", "axial", "--no-mirror"], ["--views", "axial"]))
    for line in commands:
        name, *arguments = line.replace("--samples 1200", "--samples 4").split()
        done = run_cli(name, *arguments, *(next(views) if name == "hetseg" else ()))
        assert done.code == 0, f"{line}: {done.err}"
    for scores, count in (("scores.tsv", 13), ("own-scores.tsv", 5)):
        assert len(pd.read_csv(tmp_path / scores, sep="\t")) == count


def test_the_gallery_has_the_measured_numbers():
    scores = pd.read_csv(ROOT / "benchmarks" / "results" / "robustness.tsv", sep="\t")
    scores = scores[scores["scan"] == "sub-voxelmorph"].set_index("copy")
    page = (DOCS / "qc.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (0\.\d{3}) \| (0\.\d{3}) \| (\w+) \|$", page, re.M)
    assert len(rows) == 5
    for name, dice, expected, verdict in rows:
        measured = scores.loc[name]
        assert (dice, expected) == (f"{measured.dice:.3f}", f"{measured.expected_dice:.3f}")
        assert verdict == measured.verdict
        assert f"(pictures/qc-{name}-" in page


def test_the_quality_guide_states_the_limits_of_the_verdict():
    limits = QcLimits()
    page = (DOCS / "qc.md").read_text()
    low, high = limits.brain_ml
    assert f"less than {low:.0f} or more than {high:.0f} ml" in page
    assert f"mean expected Dice is below {limits.fail_dice} |" in page
    assert (
        f"below {limits.look_dice}, that of any structure is below {limits.structure_dice}" in page
    )
    assert f"From {LEAST_PEOPLE} people on" in page


def test_the_rating_example_joins_ratings_to_the_group(out, monkeypatch, capsys):
    monkeypatch.chdir(out.parent)
    row = {"scan": "sub-02", "rating": "usable", "structures": "Left putamen,Brainstem"}
    row |= {"comment": "n/a", "rater": "me", "verdict": "look", "source_sha256": "0"}
    Path("ratings").mkdir()
    pd.DataFrame([row]).to_csv("ratings/sub-02_rating.tsv", sep="\t", index=False)
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "qc.md").read_text(), re.S)
    exec(block, {})  # noqa: S102 - our own page
    assert "not rated" in capsys.readouterr().out
    rated = pd.read_csv("rated.tsv", sep="\t").set_index("scan")
    assert list(rated["rating"]) == ["not rated", "usable"]
    assert rated.loc["sub-02", "structures"] == "Left putamen,Brainstem"


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda p: p.name
)
def test_files_that_a_page_names_exist(page):
    folders = "benchmarks|container|docs|findings|hetseg_bids|models|tests"
    named = set(re.findall(rf"(?<![\w/])(?:{folders})/[\w./-]*\w", page.read_text()))
    assert not {name for name in named if not (ROOT / name).exists()}


def test_every_decision_says_what_was_chosen_why_and_what_measures_it():
    _, *decisions = (DOCS / "decisions.md").read_text().split("\n## ")
    assert len(decisions) >= 40
    numbers = [int(one.partition(".")[0]) for one in decisions]
    assert numbers == list(range(1, len(decisions) + 1))
    for one in decisions:
        found = re.findall(r"^- \*\*(.+?):\*\* ", one, re.M)
        repeats = one.strip().endswith("The same decision as 33.")
        assert repeats or found == ["Chosen", "Because", "Measured by"], one
