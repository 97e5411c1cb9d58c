"""Runs that are killed, stopped, starved or doubled: nothing half-made, nothing lost.

HETSEG_KILLS sets how many random moments `test_killed_at_random` tries (default 3).
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.commands import QUICK, Finished, lasting, run_cli
from support.corruptions import brain, good, save
from support.datasets import t1w_path, write_dataset
from support.tiny_model import write_tiny_model

COMMAND = [sys.executable, "-m", "hetseg_bids.cli.run"]
SUBJECTS = ("01", "02")
_KILLS = int(os.environ.get("HETSEG_KILLS", "3"))
_GOES_ON = "the same command goes on from here"
_OVERLAP = ("--omp-nthreads", "2")  # with one thread scans don't

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 + 60 * _KILLS)]


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_dataset(tmp_path_factory.mktemp("data") / "bids")
    write_tiny_model(root.parent / "model")
    for subject in SUBJECTS:
        good(t1w_path(root, subject))
    return root


@pytest.fixture(scope="module")
def undisturbed(bids: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The output of a run that nobody disturbs, and its seconds."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    began = time.monotonic()
    assert segment(bids, out).code == 0
    return out, time.monotonic() - began


def arguments(bids: Path, out: Path) -> list[str]:
    model = bids.parent / "model"
    return [str(bids), str(out), "participant", "--model", str(model), *QUICK]


def segment(bids: Path, out: Path, *more: str) -> Finished:
    return run_cli("hetseg", *arguments(bids, out), *more)


def start(bids: Path, out: Path, *more: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments(bids, out), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def tree(out: Path) -> dict[str, str]:
    """Digest of every file under its final name, but for what tells of the run itself."""
    files = [p for p in out.rglob("*") if p.is_file()]
    kept = [p for p in files if not p.name.startswith(".tmp-") and p.suffix != ".lock"]
    digests = {}
    for path in kept:
        name = path.relative_to(out).as_posix()
        content = b"" if name.startswith("logs/") else lasting(path)
        digests[name] = hashlib.sha256(content).hexdigest()
    return digests


def without_crashes(out: Path) -> dict[str, str]:
    return {name: digest for name, digest in tree(out).items() if "crash" not in name}


def assert_clean(out: Path) -> None:
    left = [p for p in out.rglob("*") if p.name.startswith(".tmp-") or p.suffix == ".lock"]
    assert not left


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until a file is there."""
    for _ in range(12_000):
        if path.exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    assert path.exists(), process.communicate()


@pytest.mark.parametrize("number", range(_KILLS))
def test_killed_at_random(bids, undisturbed, tmp_path, number):
    """kill -9 at any moment: what has its final name is whole, and a re-run completes the rest."""
    reference, seconds = undisturbed
    expected, out = tree(reference), tmp_path / "out"
    process = start(bids, out, *(_OVERLAP if number % 2 else ()))
    time.sleep(np.random.default_rng(number).uniform(0, seconds))
    process.kill()
    process.communicate()
    for name, digest in tree(out).items():
        assert expected[name] == digest, f"{name} was half-made under its final name"
    done = segment(bids, out)
    assert done.code == 0, done.err
    assert tree(out) == expected
    assert_clean(out)


@pytest.mark.parametrize(("number", "more"), [(signal.SIGTERM, _OVERLAP), (signal.SIGINT, ())])
def test_stopped_by_signal(bids, undisturbed, tmp_path, number, more):
    out = tmp_path / "out"
    process = start(bids, out, *more)
    wait_for(out / "sub-01", process)  # when its page is there, all may be
    for _ in range(2):  # users press again
        process.send_signal(number)
        time.sleep(0.05)
    _, err = process.communicate()
    assert process.returncode == 128 + number, err
    assert err.strip().endswith(_GOES_ON)
    assert "Traceback" not in err
    assert_clean(out)
    assert segment(bids, out).code == 0
    assert tree(out) == tree(undisturbed[0])


def test_stopped_with_workers(bids, tmp_path):
    """SIGTERM to the parent ends its workers and leaves no scratch folder."""
    out, work = tmp_path / "out", tmp_path / "work"
    work.mkdir()
    process = start(bids, out, "--nprocs", "2", "-w", str(work))
    wait_for(out / "sub-01.html", process)
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    assert not list(work.iterdir())
    ours = subprocess.run(["pgrep", "-f", str(work)], capture_output=True, check=False)
    assert not ours.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB: less than one scan's results."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk(bids, undisturbed, small_disk):
    out = small_disk / "out"
    done = segment(bids, out)
    assert done.code == 1, done.err
    assert done.err.count("no room for its results") == len(SUBJECTS)
    assert "Traceback" not in done.err
    assert_clean(out)
    expected = tree(undisturbed[0])
    assert without_crashes(out).items() <= expected.items()
    subprocess.run(["mount", "-o", "remount,size=500m", str(small_disk)], check=True)
    assert segment(bids, out).code == 0
    assert without_crashes(out) == expected


def test_read_only_output(bids, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = segment(bids, small_disk / "out")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert str(small_disk / "out") in done.err


def test_output_removed_while_running(bids, undisturbed, tmp_path):
    """What comes later is whole; what was removed comes back with the next run."""
    out = tmp_path / "out"
    process = start(bids, out)
    wait_for(out / "sub-01.html", process)
    shutil.rmtree(out, ignore_errors=True)
    _, err = process.communicate()
    assert process.returncode in (0, 1), err
    assert "Traceback" not in err
    assert segment(bids, out).code == 0
    tables = {k: v for k, v in tree(out).items() if not k.startswith("logs/")}
    assert tables == {k: v for k, v in tree(undisturbed[0]).items() if not k.startswith("logs/")}


def test_work_folder_that_vanishes(bids, tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    done = segment(bids, out, "-w", str(work / "not-there"))
    assert done.code in (0, 2), done.err
    assert "Traceback" not in done.err
    work.mkdir(exist_ok=True)
    process = start(bids, out, "-w", str(work), "--overwrite")
    wait_for(out / "logs", process)
    shutil.rmtree(work)
    _, err = process.communicate()
    assert process.returncode in (0, 1), err
    assert "Traceback" not in err


def test_out_of_memory_in_one_scan(tmp_path):
    """A scan that needs more than there is costs itself only."""
    bids, out = write_dataset(tmp_path / "bids"), tmp_path / "out"
    write_tiny_model(tmp_path / "model")
    good(t1w_path(bids, "01"))
    big = brain().repeat(6, 0).repeat(6, 1).repeat(6, 2)
    save(t1w_path(bids, "02big"), big, None)
    good(t1w_path(bids, "03"))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 * 10**9, 3 * 10**9))

    process = start(bids, out, preexec_fn=limit)
    _, err = process.communicate()
    assert process.returncode == 1, err
    assert "sub-02big" in err
    assert "out of memory" in err or "field of view" in err
    assert (out / "sub-01.html").exists()
    assert (out / "sub-03.html").exists()


def test_two_runs_on_the_same_scan(bids, undisturbed, tmp_path):
    """One works; the other says so, and leaves it alone."""
    out = tmp_path / "out"
    first, second = (start(bids, out, "--participant-label", "01") for _ in range(2))
    errors = [process.communicate()[1] for process in (first, second)]
    codes = sorted(process.returncode for process in (first, second))
    assert codes == [0, 1], errors
    assert sum("another run is at work on it" in err for err in errors) == 1
    assert_clean(out)
    expected = {k: v for k, v in tree(undisturbed[0]).items() if "sub-01" in k}
    assert {k: v for k, v in without_crashes(out).items() if "sub-01" in k} == expected


def test_two_runs_on_different_scans(bids, undisturbed, tmp_path):
    out = tmp_path / "out"
    runs = [start(bids, out, "--participant-label", subject) for subject in SUBJECTS]
    errors = [process.communicate()[1] for process in runs]
    assert all(process.returncode == 0 for process in runs), errors
    assert tree(out) == tree(undisturbed[0])
