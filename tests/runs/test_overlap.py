"""Scans of one process that overlap: the same files, bounded memory, and each stands for itself."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from hetseg_bids.config import Settings
from hetseg_bids.runs.memory import Need
from hetseg_bids.runs.room import Room, free_gb
from hetseg_bids.runs.turns import Turns, in_order
from support.commands import QUICK, lasting, run_cli
from support.corruptions import good
from support.datasets import t1w_path, write_dataset
from support.tiny_model import write_tiny_model

_ALONE = ("--mem-gb", 1.2)  # for one of these small scans, not for two
_SCAN = Path("sub-01_T1w.nii.gz")


def write_scans(root: Path, *subjects: str) -> tuple[object, ...]:
    """A dataset of the same small scan, `bad` ones broken, and how to segment it."""
    bids = write_dataset(root / "bids")
    for subject in subjects:
        if subject.endswith("bad"):
            t1w_path(bids, subject).write_text("not an image")
        else:
            good(t1w_path(bids, subject))
    model = write_tiny_model(root / "model")
    return ("hetseg", bids, root / "out", "participant", *QUICK, "--model", model, "-v")


def results(out: Path) -> dict[str, bytes]:
    """Every file that must not depend on how the run went."""
    files = [p for p in out.rglob("*") if p.is_file() and p.parent.name != "logs"]
    return {str(p.relative_to(out)): lasting(p) for p in files}


def steps(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("[")]


def overlaps(said: list[str]) -> list[bool]:
    """Whether the first and the second, and the second and the third good scan of four overlapped.

    On a busy machine the second may begin before the first.
    """

    def began_before_the_end_of(one: str, other: str) -> bool:
        return said.index(f"{one}: brain extraction") < said.index(f"{other}: report")

    pairs = (("[1/4] sub-01", "[3/4] sub-03"), ("[3/4] sub-03", "[4/4] sub-04"))
    return [began_before_the_end_of(a, b) and began_before_the_end_of(b, a) for a, b in pairs]


@pytest.mark.slow
def test_overlapping_scans_have_the_same_bytes_and_a_bad_one_costs_only_itself(tmp_path):
    command = write_scans(tmp_path, "01", "02bad", "03", "04")
    command = (*command, "--omp-nthreads", 2)
    out = tmp_path / "out"
    alone = run_cli(*command, *_ALONE)
    expected, order = results(out), steps(alone.err)
    out.rename(tmp_path / "alone")
    overlapping = run_cli(*command)
    assert alone.code == overlapping.code == 1, overlapping.err
    assert results(out) == expected
    # in the order of the scans, however they end
    for done in (alone, overlapping):
        began = [line.partition(":")[0] for line in done.out.splitlines()]
        assert began == ["[1/4] sub-01", "[3/4] sub-03", "[4/4] sub-04"]
    assert "[2/4] sub-02bad: FAILED" in overlapping.err
    (crash,) = (out / "logs").glob("crash-*")
    assert crash.name.startswith("crash-sub-02bad-")
    assert "sub-02bad_T1w.nii.gz" in crash.read_text()
    # where there is no room for two, each begins after the page of the one before it
    assert overlaps(order) == [False, False]
    assert any(overlaps(steps(overlapping.err)))


@pytest.mark.slow
def test_the_first_crash_ends_scans_that_have_begun_and_leaves_nothing_of_them(tmp_path):
    command = write_scans(tmp_path, "01bad", "02", "03")
    done = run_cli(*command, "--omp-nthreads", 2, "--stop-on-first-crash")
    assert done.code == 1
    assert "1 of 3 scans failed" in done.err
    assert not done.out
    assert "Traceback" not in done.err
    left = [p for p in (tmp_path / "out").rglob("*") if p.is_file() and p.name[:5] != "crash"]
    if (tmp_path / "out/sub-02.html").exists():  # it was faster than the crash
        assert not [p for p in left if p.name[:5] == ".tmp-" or p.suffix == ".lock"]
    else:
        assert {p.name for p in left} == {"dataset_description.json", ".bidsignore"}


@pytest.mark.slow
def test_no_scan_begins_after_a_crash_that_ends_the_run(tmp_path):
    """Also not while a scan before the broken one, which is reported first, goes on."""
    command = write_scans(tmp_path, "01", "02bad", "03", "04")
    done = run_cli(*command, "--omp-nthreads", 2, "--stop-on-first-crash")
    assert done.code == 1
    assert [line.partition(":")[0] for line in done.out.splitlines()] == ["[1/4] sub-01"]
    assert "[2/4] sub-02bad: FAILED" in done.err
    assert "sub-03: brain extraction" not in done.err
    assert "sub-04: brain extraction" not in done.err


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda"])
def test_one_scan_at_a_time_has_the_network_while_others_are_finished(device):
    """What each thread does is held up until the others are where they should be."""
    turns = Turns(3, torch.device(device))
    first_in_network, second_began, may_finish = (threading.Event() for _ in range(3))
    seen = []

    def process(scan: int) -> int:
        with turns.turn(_SCAN, Settings()) as turn:
            if scan == 1:
                second_began.set()
            turn.to_network()
            seen.append(scan)
            if scan == 0:
                first_in_network.set()
                # beside CUDA the next scan is extracted now, elsewhere it waits
                assert second_began.wait(20 if device == "cuda" else 0.2) is (device == "cuda")
                assert seen == [0]
            turn.to_finish()
            if scan == 0:
                assert may_finish.wait(20), "the next scan can't pass"
            else:
                may_finish.set()
        return scan

    assert list(in_order(process, range(3), 3, lambda: None)) == [0, 1, 2]
    assert first_in_network.is_set()
    assert sorted(seen) == [0, 1, 2]


def test_a_failing_scan_gives_its_turn_and_its_room_back(tmp_path):
    turns, slice_only = Turns(2, free_gb=1.0), tmp_path / "sub-01_T1w.nii"
    nib.save(nib.Nifti1Image(np.zeros((9, 9), np.uint8), np.eye(4)), slice_only)

    def process(fails: bool) -> str:
        try:
            # what it needs isn't known, so that it has to be alone
            with turns.turn(slice_only, Settings()) as turn:
                turn.to_network()
                if fails:
                    raise OSError("unreadable")
        except OSError as error:
            return str(error)
        return "done"

    assert list(in_order(process, [True, False], 2, lambda: None)) == ["unreadable", "done"]


def test_finishing_takes_few_threads_of_its_own_thread_only():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        turns, found = Turns(2), []

        def process(_: int) -> None:
            with turns.turn(_SCAN, Settings()) as turn:
                found.append(torch.get_num_threads())
                turn.to_finish()
                found.append(torch.get_num_threads())

        list(in_order(process, range(3), 2, lambda: None))
        assert sorted(found) == [2, 2, 2, 4, 4, 4]
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_results_come_in_order_and_few_scans_are_taken_ahead():
    taken, ended, second = [], threading.Event(), threading.Event()

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    def slow_first(number: int) -> int:
        if number == 0:
            assert second.wait(20)
        else:
            second.set()
        return number

    run = in_order(slow_first, items(), 2, ended.set)
    assert [next(run) for _ in range(3)] == [0, 1, 2]
    assert len(taken) < 10
    run.close()
    assert ended.is_set()


def test_scans_that_need_more_wait_for_each_other_and_none_waits_for_ever():
    room, order = Room(3.0), []

    def process(gb: float) -> None:
        with room.reserved(Need(gb, gb / 2)):
            order.append(gb)

    with room.reserved(Need(2.0, 1.0)) as segmented:
        large = threading.Thread(target=process, args=(99.0,))
        middle = threading.Thread(target=process, args=(2.0,))
        for thread in (large, middle):
            thread.start()
        middle.join(0.1)
        assert not order
        segmented()
        middle.join(20)
        assert order == [2.0]
    large.join(20)
    assert order == [2.0, 99.0]


def test_free_memory_is_the_least_of_machine_container_and_process(tmp_path):
    proc, groups = tmp_path / "proc", tmp_path / "sys/fs/cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
    assert free_gb(tmp_path) == pytest.approx(8.192)
    job = groups / "slurm/job_1"
    job.mkdir(parents=True)
    (proc / "self/cgroup").write_text("0::/slurm/job_1/step_0\n")  # the step itself isn't there
    (job / "memory.max").write_text("4000000000\n")
    (job / "memory.current").write_text("3000000000\n")
    (job / "memory.stat").write_text("anon 1\ninactive_file 500000000\n")
    (groups / "slurm/memory.max").write_text("max\n")
    assert free_gb(tmp_path) == pytest.approx(1.5)
    old = groups / "memory/docker/1"
    old.mkdir(parents=True)
    (proc / "self/cgroup").write_text("12:cpuset:/\n4:memory:/docker/1\n")
    (old / "memory.limit_in_bytes").write_text("2000000000")
    (old / "memory.usage_in_bytes").write_text("1000000000")
    assert free_gb(tmp_path) == pytest.approx(1.0)


def test_free_memory_knows_ulimit():
    program = "from hetseg_bids.runs.room import free_gb; print(free_gb())"
    limit = 2 * 10**9
    done = subprocess.run(
        [sys.executable, "-c", program],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0 < float(done.stdout) < 2
