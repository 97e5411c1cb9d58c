"""Many scans: dask workers, their deaths, thousands of tasks, a real SLURM.

HETSEG_TASKS sets how many tasks (default 4000).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import nibabel as nib
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster
from distributed.scheduler import KilledWorker

from hetseg_bids.config import Execution, RunConfig, Settings
from hetseg_bids.runs.memory import needed_gb
from hetseg_bids.runs.workers import GB_PER_SCAN, map_bounded, room_of_worker, worker_count
from support.commands import run_cli
from support.corruptions import good
from support.datasets import t1w_path, write_dataset
from support.slurm import running_slurm
from support.tiny_model import write_tiny_model

FAST = ("--views", "axial", "--no-mirror")
_TASKS = int(os.environ.get("HETSEG_TASKS", "4000"))


def two_scans(root: Path) -> Path:
    bids = write_dataset(root / "bids")
    for subject in ("01", "02"):
        good(t1w_path(bids, subject))
    return bids


def derivatives(out: Path) -> dict[str, bytes]:
    """Every file that must not depend on where it was made."""
    kept = [p for p in out.rglob("*") if p.is_file() and p.suffix != ".html"]
    return {str(p.relative_to(out)): p.read_bytes() for p in kept if p.parent.name != "logs"}


@pytest.mark.slow
def test_workers_give_the_same_bytes_and_a_bad_scan_stays_alone(tmp_path):
    bids = two_scans(tmp_path)
    t1w_path(bids, "bad").write_text("not an image")
    work = tmp_path / "work"
    work.mkdir()
    options = (*FAST, "--model", write_tiny_model(tmp_path / "model"))
    here = run_cli("hetseg", bids, tmp_path / "a", "participant", *options, "--omp-nthreads", 1)
    # with two threads and more than one scan for each, its scans may overlap
    workers = ("--nprocs", 2, "--omp-nthreads", 2, "--work-dir", work, "-v")
    there = run_cli("hetseg", bids, tmp_path / "b", "participant", *options, *workers)
    assert here.code == there.code == 1, there.err
    assert "not a readable NIfTI" in there.err
    assert "Traceback" not in there.err
    assert "distributed." not in there.err, "what dask says of itself isn't for users"
    assert derivatives(tmp_path / "a") == derivatives(tmp_path / "b")
    assert not list(work.iterdir())
    again = run_cli("hetseg", bids, tmp_path / "b", "participant", *options, *workers)
    assert again.out.count("complete already") == 2


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with dask.config.set({"distributed.scheduler.allowed-failures": 3}):
        cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        )
    with cluster, Client(cluster) as made:
        yield made


def test_a_scan_that_kills_its_workers_costs_only_itself(client):
    def deadly(item: int) -> int:
        if item == 3:
            os._exit(9)
        return 10 * item

    results = dict(map_bounded(client, deadly, range(8)))
    assert isinstance(results.pop(3), KilledWorker)
    assert results == {i: 10 * i for i in range(8) if i != 3}


def test_a_scan_blamed_for_the_deaths_of_others_has_its_turn(client, tmp_path):
    def dies_in_company(item: int, folder: str) -> int:
        tries = Path(folder) / f"{item}"
        with tries.open("a") as file:
            file.write("x")
        if len(tries.read_text()) <= 4:  # one death more than a task is allowed
            os._exit(9)
        return 10 * item

    assert dict(map_bounded(client, dies_in_company, [1], str(tmp_path))) == {1: 10}


def test_what_a_task_raises_comes_back(client):
    def fails(item: int, divisor: int) -> float:
        return item / divisor

    assert dict(map_bounded(client, fails, [4], 2)) == {4: 2.0}
    ((item, error),) = map_bounded(client, fails, [4], 0)
    assert item == 4
    assert isinstance(error, ZeroDivisionError)


@pytest.mark.slow
def test_thousands_of_subjects_cost_little_time_and_no_memory(client, tmp_path):
    def tiny(item: int, folder: str) -> str:
        path = Path(folder) / f"{item % 100}"
        path.write_bytes(b"x" * 1000)
        return str(path)

    process = psutil.Process()
    sizes = []
    began = time.monotonic()
    for count, _ in enumerate(map_bounded(client, tiny, range(_TASKS), str(tmp_path))):
        # dask's own logs are full after about 2000 tasks
        if count in (_TASKS // 2, _TASKS - 1):
            sizes.append(process.memory_info().rss)
    per_subject = (time.monotonic() - began) / _TASKS
    assert per_subject < 0.05
    print(f"{_TASKS} tasks: {(sizes[1] - sizes[0]) / 1e6:.1f} MB, {1e3 * per_subject:.1f} ms each")
    assert sizes[1] - sizes[0] < 6e3 * _TASKS / 2


@pytest.mark.parametrize(
    ("execution", "gpus", "scans", "expected"),
    [
        (Execution(nprocs=5), 0, 9, 5),
        (Execution(nprocs=5), 0, 3, 3),
        (Execution(nprocs=5, mem_gb=9), 0, 9, 2),
        (Execution(mem_gb=1), 0, 9, 1),
        (Execution(), 4, 9, 4),
        (Execution(), 4, 1, 1),
        (Execution(nprocs=8), 2, 9, 2),
        (Execution(nprocs=8), 0, 0, 1),
    ],
)
def test_workers_are_as_many_as_scans_gpus_or_memory_allow(execution, gpus, scans, expected):
    assert worker_count(execution, gpus, scans) == expected


@pytest.mark.parametrize(
    ("execution", "expected"),
    [
        (Execution(), None),
        (Execution(nprocs=2), None),
        (Execution(nprocs=5, mem_gb=9), 4.5),
        (Execution(mem_gb=3), 3),
        (Execution(nprocs=8, mem_gb=16, cluster="slurm"), 4),
        (Execution(nprocs=2, cluster="slurm"), GB_PER_SCAN),
        (Execution(scheduler="tcp://127.0.0.1:9", mem_gb=9), None),
    ],
)
def test_a_worker_has_its_share_of_the_memory(execution, expected):
    config = RunConfig(Path("bids"), Path("out"), execution=execution, device="cpu")
    assert room_of_worker(config, 4) == expected


def test_a_scan_that_needs_more_than_its_worker_has_is_refused_in_a_line_before_it_is_read(
    tmp_path,
):
    bids = write_dataset(tmp_path / "bids")
    scan, large = (t1w_path(bids, subject) for subject in ("01", "02"))
    # 84 million voxels of zeros: nothing is read but the header, or these would be complained about
    nib.save(
        nib.Nifti1Image(np.zeros((512, 512, 320), np.uint8), np.diag([0.5, 0.5, 0.5, 1])), large
    )
    nib.save(nib.Nifti1Image(np.zeros((90, 90, 90), np.uint8), np.diag([2.0, 2, 2, 1])), scan)
    model = write_tiny_model(tmp_path / "model")
    command = ("hetseg", bids, tmp_path / "out", "participant", "--model", model)
    done = run_cli(*command, "--executor", "dask", "--mem-gb", 3)
    assert done.code == 1
    lines = done.err.splitlines()
    assert len([line for line in lines if large.name in line]) == 1, done.err
    assert re.search(
        r"sub-02_T1w\.nii\.gz: needs about 4\.\d GB of memory, 2\.\d GB are there for it; "
        r"give fewer --nprocs or more --mem-gb",
        done.err,
    )
    assert "workers died" not in done.err
    assert "every voxel is zero" in done.err  # the small one had its turn
    assert len(list((tmp_path / "out" / "logs").glob("crash-sub-02-*.txt"))) == 1


def test_what_a_scan_needs_grows_with_its_voxels_and_broken_headers_are_left_to_the_reader(
    tmp_path,
):
    def needed(shape: tuple[int, ...], affine: np.ndarray, settings: Settings) -> float:
        path = tmp_path / "sub-01_T1w.nii"
        image = nib.Nifti1Image(np.zeros(shape, np.uint8), affine)
        image.to_filename(path)
        return needed_gb(path, settings)

    affine = np.diag([1.0, 1, 1, 1])
    usual = needed((160, 160, 160), affine, Settings())
    fine = np.diag([0.5, 0.5, 1, 1])
    more = needed((320, 320, 160), fine, Settings())
    assert 1 < usual < more < 3
    assert needed((320, 320, 160), fine, Settings(output_resolution="1mm")) < more
    assert needed((320, 320, 160), fine, Settings(write_probseg=True)) > more
    assert needed((160, 160, 160), np.diag([1000.0, 1000, 1000, 1]), Settings()) == 0
    assert needed((160, 160), affine, Settings()) == 0  # no volume


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dask-scheduler", "tcp://127.0.0.1:9"], "no answer"),
        (["--work-dir", "nowhere"], "no such folder"),
        (["--nprocs", "0"], "at least 1"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(tmp_path, phantom, arguments, message):
    bids = write_dataset(tmp_path / "bids")
    nib.save(phantom, t1w_path(bids, "01"))
    done = run_cli("hetseg", bids, tmp_path / "out", "participant", *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[dict[str, str]]:
    with running_slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.mark.timeout(1800)  # jobs start late on a busy machine
@pytest.mark.slow
def test_workers_may_be_slurm_jobs(slurm, tmp_path, monkeypatch):
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    bids, out = two_scans(tmp_path), tmp_path / "out"
    arguments = ("--dask-cluster", "slurm", "--nprocs", 2, "--omp-nthreads", 1, *FAST)
    model = write_tiny_model(tmp_path / "model")
    done = run_cli("hetseg", bids, out, "participant", "--model", model, *arguments)
    assert done.code == 0, done.err
    assert {p.name for p in out.glob("sub-*.html")} == {"sub-01.html", "sub-02.html"}
    assert list((out / "logs" / "slurm").glob("dask-worker-*"))
    facts = json.loads((out / "logs" / "sub-01_run.json").read_text())
    assert "--dask-cluster slurm" in facts["Command line"]


@pytest.mark.slow
def test_a_job_array_of_single_subjects(slurm, tmp_path):
    bids, out = two_scans(tmp_path), tmp_path / "out"
    script = tmp_path / "array.sh"
    options = " ".join(("--model", str(write_tiny_model(tmp_path / "model")), *FAST))
    command = f"{sys.executable} -m hetseg_bids.cli.run {bids} {out} participant {options}"
    script.write_text(
        "#!/bin/bash\n#SBATCH --array=1-2\n#SBATCH --cpus-per-task=1\n#SBATCH --mem=3000\n"
        f"{command} --omp-nthreads 1 --participant-label $(printf %02d $SLURM_ARRAY_TASK_ID)\n"
    )
    done = subprocess.run(
        ["sbatch", "--wait", str(script)],
        env=slurm,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {p.name for p in out.glob("sub-*.html")} == {"sub-01.html", "sub-02.html"}
