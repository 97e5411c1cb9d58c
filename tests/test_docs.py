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
from conftest import (
    QUICK,
    centred_affine,
    run_cli,
    stripped_phantom,
    t1w_path,
    write_dataset,
    write_pair,
)
from tiny_model import write_tiny_model

from hetseg_bids.outliers import LEAST_PEOPLE
from hetseg_bids.qc import QcLimits
from hetseg_bids.structures import STRUCTURES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def run_python(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture(scope="module")
def out(tmp_path_factory, phantom) -> Path:
    root = tmp_path_factory.mktemp("docs")
    bids = write_dataset(root / "bids")
    for subject in ("01", "02"):
        nib.save(phantom, t1w_path(bids, subject))
    model = write_tiny_model(root / "model")
    for level in ("participant", "group"):
        options = (*QUICK, "--model", model) if level == "participant" else ()
        done = run_cli("hetseg", bids, root / "OUT", level, *options)
        assert done.code == 0, done.err
    return root / "OUT"


def test_usage_and_api_are_those_of_the_code(monkeypatch):
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


def test_the_error_bar_example_finds_the_truth():
    done = run_python("docs/examples/error_bars.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in (DOCS / "uncertainty.md").read_text()
    found = dict(line.split(": ") for line in done.stdout.splitlines())
    for name in ("ordinary", "least certain left out", "weighted"):
        assert float(found[f"volume on x, {name}"]) == pytest.approx(-25, abs=2)
    corrected = float(found["score on volume, error in variables"])
    ordinary = float(found["score on volume, ordinary"])
    assert corrected == pytest.approx(-1.2e-3, rel=0.1)
    assert abs(ordinary) < 0.8 * abs(corrected)


def test_the_error_bar_example_reads_a_cohort(out, tmp_path):
    people = tmp_path / "participants.tsv"
    people.write_text("participant_id\tage\nsub-01\t30\nsub-02\t50\n")
    morph = out / "group_morph.tsv"
    code = "import sys; sys.path.insert(0, 'docs/examples'); import error_bars; "
    code += f"print(len(error_bars.read({str(morph)!r}, {str(people)!r}, 'age', 'brainstem')))"
    done = run_python("-c", code)
    assert done.stdout.strip() == "2", done.stderr


def test_the_image_example_runs_on_real_outputs(out, phantom, monkeypatch):
    mpl.use("Agg")
    monkeypatch.chdir(out.parent)
    nib.save(phantom, "T1w.nii.gz")
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "uncertainty.md").read_text(), re.S)
    names: dict[str, object] = {}
    exec(block, names)  # noqa: S102 - our own page
    assert STRUCTURES[8].name == "left_thalamus"
    dseg, q = (np.asarray(names[n].dataobj) for n in ("dseg", "thalamus"))
    expected = (dseg == STRUCTURES[8].label) & (q < 0.1)
    np.testing.assert_array_equal(np.asarray(names["sure"].dataobj) > 0, expected)


def test_the_other_tools_example_runs_on_real_outputs(out, phantom, monkeypatch, capsys):
    mpl.use("Agg")
    monkeypatch.chdir(out.parent)
    nib.save(phantom, "T1w.nii.gz")
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
def test_the_few_shot_tutorial_runs(tmp_path):
    """Every command of the page as it stands there, but with 4 stacks instead of 1200."""
    blocks = re.findall(r"^```\n(.*?)^```", (DOCS / "few-shot.md").read_text(), re.M | re.S)
    (table,) = (block for block in blocks if block.startswith("index\t"))
    commands = [line for block in blocks for line in block.splitlines() if line[:6] == "hetseg"]
    assert [line.split()[0] for line in commands] == 2 * [
        "hetseg-train",
        "hetseg",
        "hetseg-evaluate",
    ]
    bids, brain = write_dataset(tmp_path / "mine" / "bids"), stripped_phantom()
    nib.save(nib.Nifti1Image(brain, centred_affine(brain.shape)), t1w_path(bids, "09"))
    write_pair(tmp_path / "mine" / "train", "01")
    write_pair(tmp_path / "mine" / "validation", "09")
    (tmp_path / "mine" / "labels.tsv").write_text(table)
    for line in commands:
        name, *arguments = line.replace("--samples 1200", "--samples 4").split()
        module = {"hetseg": "run"}.get(name, name.removeprefix("hetseg-"))
        done = run_python("-m", f"hetseg_bids.cli.{module}", *arguments, cwd=tmp_path)
        assert done.returncode == 0, f"{line}: {done.stderr}"
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
