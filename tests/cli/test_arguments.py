"""Paths on the command lines: a tilde is the home folder, in every command and only once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hetseg_bids.cli import evaluate, export, run, train
from support.commands import run_cli, run_here
from support.datasets import t1w_path, write_dataset


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The home folder; the current one holds a folder that is called ``~``."""
    there, here = tmp_path / "home", tmp_path / "here"
    (here / "~").mkdir(parents=True)
    there.mkdir()
    monkeypatch.setenv("HOME", str(there))
    monkeypatch.chdir(here)
    return there


def test_help_does_not_wait_for_torch():
    code = "import sys, hetseg_bids.cli.run as r; r.build_parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "scipy", "pandas"} & set(done.stdout.split())


def test_a_run_starts_without_what_it_does_not_need(tmp_path):
    t1w_path(write_dataset(tmp_path / "bids"), "01").touch()
    code = """if True:
        import gc, sys
        from hetseg_bids.cli.run import main
        code = main(sys.argv[1:])
        print(gc.isenabled() and gc.get_freeze_count() > 100_000)
        print(*sys.modules)
        sys.exit(code)
    """
    call = [str(tmp_path / "bids"), str(tmp_path / "out"), "participant", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-c", code, *call], capture_output=True, text=True, check=True
    )
    _, frozen, modules = done.stdout.splitlines()
    assert frozen == "True"  # no garbage collection looks through torch
    loaded = set(modules.split())
    assert {"torch", "hetseg_bids.runs.scan"} <= loaded
    others = {"matplotlib", "nilearn", "templateflow", "tensorboard"}
    assert not loaded & {*others, "torch._dynamo", "dask", "distributed", "deepbet"}


def test_every_path_of_every_command_knows_the_tilde(home):
    x = "~/x"
    calls = {
        run: [
            *(x, x, "participant", "--bids-filter-file", x, "--bids-database-dir", x),
            *("--model=~/x", "-w", x),
        ],
        train: [
            *(x, "--scans", x, "--labels", x, "--validate", x, "--init=~/x"),
        ],
        evaluate: [x, x, "--labels", x, "--out=~/x", "--report", x],
        export: [x, x],
    }
    for module, words in calls.items():
        values = vars(module.build_parser().parse_args(words)).values()
        found = [str(value) for value in values if str(value).endswith("/x")]
        later = module is evaluate  # its [NAME=]DIR words are taken apart afterwards
        count = sum(word.endswith("~/x") for word in words) - later
        assert found == [f"{home}/x"] * count
    arguments = train.build_parser().parse_args(["out", "--average", x, "plain"])
    assert arguments.average == [f"{home}/x", "plain"]
    label_maps = train.build_parser().parse_args(["out", "--label-maps", x]).label_maps
    assert label_maps == home / "x"


def test_named_folders_of_evaluate_know_the_tilde(home):
    (home / "x").mkdir()
    folders = evaluate._named_folders(["NAME=~/a", "~/x", "NAME=~/b"])
    assert folders == {"NAME": (home / "a", home / "b"), "x": (home / "x",)}


@pytest.mark.usefixtures("home")
def test_a_folder_that_is_called_tilde_can_still_be_named():
    parse = run.build_parser().parse_args
    here = Path.cwd()
    assert parse(["./~", "./~/x", "group"]).bids_dir == here / "~"  # pandas would expand "~"
    assert parse(["./~", "./~/x", "group"]).output_dir == here / "~" / "x"
    assert parse(["a~", "b", "group"]).bids_dir == Path("a~")
    assert parse(["x", "--model=label-flip", "b", "group"]).model == "label-flip"


def test_a_dataset_in_the_home_folder_is_found(home):
    t1w_path(write_dataset(home / "bids"), "01").touch()
    done = run_cli("hetseg", "~/bids", "~/out", "participant", "--dry-run")
    assert done.code == 0, done.err
    assert done.out.strip() == str(home / "bids/sub-01/anat/sub-01_T1w.nii.gz")
    assert not list(Path("~").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lesion-label", "surrounding"), "--lesion-label: no lesion mask is looked for"),
        (("--overwrite", "--reports-only"), "--reports-only: nothing is segmented again"),
        (("--mem-gb", "-1"), "must be positive"),
        (("--mem-gb", "nan"), "must be positive"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, options, message):
    t1w_path(write_dataset(tmp_path / "bids"), "01").touch()
    done = run_here("hetseg", tmp_path / "bids", tmp_path / "out", "participant", *options)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "out").exists()
