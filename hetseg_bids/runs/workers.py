"""Where scans are processed: in this process, or by dask workers."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from hetseg_bids.config import Execution, RunConfig
from hetseg_bids.dataset.discovery import Scan
from hetseg_bids.errors import COLON, OptionError
from hetseg_bids.images import one_line
from hetseg_bids.network.devices import resolve_device, set_threads, worker_environment
from hetseg_bids.network.models import Model, head_model_beside, load_model
from hetseg_bids.runs.memory import PROGRAM_GB
from hetseg_bids.runs.overlap import run_here
from hetseg_bids.runs.room import free_gb
from hetseg_bids.runs.scan import Outcome, ScanStages, report_loss, run_scan
from hetseg_bids.runs.turns import Turns, scans_at_once

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)
GB_PER_SCAN = (
    4.0  # room for one process and a whole head of 42 million voxels (docs/performance.md)
)
_USABLE = 0.95  # of a worker's memory: dask ends a worker that uses more
_BACKLOG = 4  # tasks that may wait per worker thread: more would only cost memory
_LEAST_BACKLOG = 32
_DEATHS = 2  # workers that may die with a scan; when one more does, the scan is given up
T = TypeVar("T")
R = TypeVar("R")


def run_scans(
    scans: Sequence[Scan], config: RunConfig, stages: ScanStages | None = None
) -> Generator[Outcome]:
    """Process scans, yielding the outcome of each when it ends.

    Scans that fail don't stop the others, unless ``config.stop_on_first_crash``.

    Parameters
    ----------
    scans : sequence of Scan
    config : RunConfig
    stages : ScanStages, optional
        Progress display; not used by dask workers.

    Raises
    ------
    ModelError
        If the model can't be used.
    OptionError
        If the device or the cluster can't be used.
    """
    local = config.execution.executor == "local"
    run = run_here(scans, config, stages) if local else _with_dask(scans, config)
    with contextlib.closing(run) as outcomes:
        for outcome in outcomes:
            yield outcome
            if outcome.status == "failed" and config.stop_on_first_crash:
                break


def _with_dask(scans: Sequence[Scan], config: RunConfig) -> Generator[Outcome]:
    share = _Share.of(config, len(scans))
    with _client(config, len(scans), share) as client:
        for scan, result in map_bounded(client, _run_in_worker, scans, config, share):
            if isinstance(result, BaseException):
                yield report_loss(scan, config, _why_lost(result))
            else:
                yield result


@dataclass(frozen=True)
class _Share:
    """What each dask worker that hetseg starts may use.

    Attributes
    ----------
    threads : int
        For one scan.
    at_once : int
        Scans; 1 also for workers that others started.
    room_gb : float or None
        A scan that needs more than this isn't begun; None means no limit.
    free_gb : float or None
        For the scans that it works on at once, GB of 10^9 bytes beside the program.
    """

    threads: int
    at_once: int
    room_gb: float | None
    free_gb: float | None

    @classmethod
    def of(cls, config: RunConfig, scans: int) -> _Share:
        """The share of each worker in a run over this many scans."""
        execution, gpus = config.execution, _gpus(config)
        given = room_of_worker(config, scans)
        room = None if given is None else given * _USABLE
        if execution.scheduler is not None:
            return cls(config.threads or 1, 1, room, None)
        slurm = execution.cluster == "slurm"
        count = _jobs(execution, scans) if slurm else worker_count(execution, gpus, scans)
        cores = 1 if slurm else max(1, (os.cpu_count() or 1) // count)
        threads, each = config.threads or cores, -(-scans // count)
        left = free_gb()
        most = room if room is not None or left is None else left / count
        free = None if most is None else most - PROGRAM_GB
        at_once = min(scans_at_once(resolve_device(config.device), threads, free), each)
        return cls(threads, at_once, room, free)


def map_bounded(
    client: Client, function: Callable[..., R], items: Sequence[T], *arguments: Any
) -> Iterator[tuple[T, R | BaseException]]:
    """Run ``function(item, *arguments)`` on workers, yielding each item with its result.

    Only a few tasks per worker are submitted at a time, so that memory doesn't grow with the
    number of items.  A task whose worker dies is tried again on another one.  Dask counts a death
    for the tasks that only waited at that worker, too; so the tasks that it gives up are run once
    more, one at a time, after all others.  The exception of a task that fails is yielded in place
    of its result.
    """
    from distributed.scheduler import KilledWorker

    suspects: list[T] = []
    for item, result in _side_by_side(client, function, items, arguments):
        if isinstance(result, KilledWorker):
            suspects.append(item)
        else:
            yield item, result
    for item in suspects:
        yield from _side_by_side(client, function, [item], arguments)


def _side_by_side(
    client: Client, function: Callable[..., R], items: Iterable[T], arguments: tuple[Any, ...]
) -> Iterator[tuple[T, R | BaseException]]:
    from distributed import as_completed

    waiting = iter(items)
    running: dict[Any, T] = {}
    done = as_completed()

    def submit() -> None:
        room = max(_LEAST_BACKLOG, _BACKLOG * sum(client.nthreads().values()))
        for item in waiting:
            future = client.submit(function, item, *arguments, pure=False)
            running[future] = item
            done.add(future)
            if len(running) >= room:
                break

    submit()
    while running:
        future = next(done)
        item = running.pop(future)
        error = future.exception()
        result = future.result() if error is None else error
        future.release()
        submit()
        yield item, result


def _run_in_worker(scan: Scan, config: RunConfig, share: _Share) -> Outcome:
    set_threads(config.threads)
    with _BEGINNING:
        model, turns = _of_worker(config.settings.model, config.device, share)
    return run_scan(
        scan, config, model, room_gb=share.room_gb, turns=turns if share.at_once > 1 else None
    )


_BEGINNING = threading.Lock()  # the threads of a worker share one of each


@lru_cache(maxsize=1)
def _of_worker(name: str, device: str, share: _Share) -> tuple[Model, Turns]:
    place = resolve_device(device)
    model = load_model(name, place)
    head_model_beside(model)
    return model, Turns(share.at_once, place, share.free_gb)


def _why_lost(error: BaseException) -> str:
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return (
            f"{_DEATHS + 1} workers died with it, probably out of memory; give fewer --nprocs "
            "or more --mem-gb"
        )
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _client(config: RunConfig, scans: int, share: _Share) -> Iterator[Client]:
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise OptionError(
            "--executor dask needs dask", "pip install 'hetseg[dask]'", form=COLON
        ) from None
    execution = config.execution
    settings = {
        "distributed.scheduler.allowed-failures": _DEATHS,
        "distributed.worker.daemon": False,  # data loaders and libraries may start processes
        "distributed.comm.timeouts.connect": "20s",
    }
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with (
        tempfile.TemporaryDirectory(prefix="hetseg-", dir=execution.work_dir) as scratch,
        dask.config.set({**settings, "temporary-directory": scratch}),
        _cluster(config, scans, share, scratch) as address,
    ):
        try:
            client = Client(address)
        except (OSError, TimeoutError) as error:
            raise OptionError(
                f"no answer ({error})", option=f"--dask-scheduler {address}"
            ) from None
        with client:
            workers = len(client.nthreads())
            log.info("dask workers: %d; each scan is reported when it ends", workers)
            yield client


@contextlib.contextmanager
def _cluster(config: RunConfig, scans: int, share: _Share, scratch: str) -> Iterator[Any]:
    execution = config.execution
    if execution.scheduler is not None:
        yield execution.scheduler
    elif execution.cluster == "slurm":
        with _slurm_cluster(config, scans, share, scratch) as cluster:
            yield cluster
    else:
        with _local_cluster(config, scans, share, scratch) as cluster:
            yield cluster


def _local_cluster(config: RunConfig, scans: int, share: _Share, scratch: str) -> Any:
    """One worker process per GPU, or as many as processors and memory allow."""
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    gpus = _gpus(config)
    count = worker_count(config.execution, gpus, scans)
    room = room_of_worker(config, scans)
    limit = 0 if room is None else int(room * 1e9)
    workers = {}
    for number in range(count):
        options = {
            "nthreads": share.at_once,
            "memory_limit": limit,
            "env": {"CUDA_VISIBLE_DEVICES": str(number)} if gpus else {},
            "local_directory": scratch,
            "dashboard_address": None,
            "silence_logs": logging.CRITICAL,  # hetseg reports each scan itself
        }
        workers[number] = {"cls": Nanny, "options": options}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard": False}}
    # by default dask gives workers one thread, and lets them keep no freed memory
    environment = {"distributed.nanny.pre-spawn-environ": worker_environment(share.threads)}
    try:
        with dask.config.set(environment):
            return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL)
    except RuntimeError as error:
        cause = one_line(error.__cause__ or error)
        raise OptionError(f"no worker could be started ({cause})", "try without --nprocs") from None


def _gpus(config: RunConfig) -> int:
    """Number of GPUs that are divided among the workers; 0 if they use none, or a named one."""
    device = resolve_device(config.device)
    return torch.cuda.device_count() if device.type == "cuda" and device.index is None else 0


def room_of_worker(config: RunConfig, scans: int) -> float | None:
    """Memory of each worker, GB of 10^9 bytes.

    None where there is no limit, or where hetseg didn't start the workers.
    """
    execution = config.execution
    if execution.scheduler is not None:
        return None
    if execution.cluster == "slurm":
        jobs = _jobs(execution, scans)
        return (execution.mem_gb or GB_PER_SCAN * jobs) / jobs
    if execution.mem_gb is None:
        return None
    return execution.mem_gb / worker_count(execution, _gpus(config), scans)


def _jobs(execution: Execution, scans: int) -> int:
    return max(1, min(execution.nprocs or 1, scans))


def worker_count(execution: Execution, gpus: int, scans: int) -> int:
    """Number of workers of a local cluster.

    As many as were asked for, by default one per GPU or per core; but no more than scans, because
    the workers share the cores and an idle one slows the others, and no more than memory holds.

    Examples
    --------
    >>> worker_count(Execution(nprocs=8, mem_gb=20), gpus=0, scans=100)  # 4 GB each
    5
    """
    wanted = min(execution.nprocs or gpus or os.cpu_count() or 1, scans)
    if gpus:
        wanted = min(wanted, gpus)
    if execution.mem_gb is not None:
        wanted = min(wanted, int(execution.mem_gb // GB_PER_SCAN))
    return max(1, wanted)


def _slurm_cluster(config: RunConfig, scans: int, share: _Share, scratch: str) -> Any:
    """Workers as SLURM jobs; partition, account and time come from dask's jobqueue.yaml."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise OptionError(
            "--dask-cluster slurm needs dask-jobqueue", "pip install 'hetseg[dask]'", form=COLON
        ) from None
    execution = config.execution
    jobs, memory = _jobs(execution, scans), room_of_worker(config, scans)
    environment = worker_environment(share.threads)
    cluster = SLURMCluster(
        cores=share.at_once,  # threads of dask
        processes=1,
        job_cpu=share.threads,
        job_script_prologue=[f"export {k}={v}" for k, v in environment.items()],
        memory=f"{memory:.1f}GB",
        local_directory=scratch if execution.work_dir else None,
        log_directory=str(Path(config.out_dir) / "logs" / "slurm"),
        scheduler_options={"dashboard": False},
    )
    cluster.scale(jobs=jobs)
    return cluster
