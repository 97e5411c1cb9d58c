"""What the command line fills in and the rest of the package reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hetseg_bids.planes import PLANES

BIDS_VERSION = "1.11.1"
RECIPE_NAMES = ("fast", "wide", "small", "polish", "paper")  # of hetseg-train
SYSTEM_NAMES = ("plain", "predictive-variance", "label-flip")  # `network.systems`


@dataclass(frozen=True)
class Selection:
    """Which T1w images to take; empty means all.

    Attributes
    ----------
    participants, sessions, runs : tuple of str
        Labels without their BIDS prefix.
    filter_file : Path or None
        fMRIPrep-style BIDS filter file; its ``t1w`` entry adds entity filters.
    database : Path or None
        Folder of a pybids index that is reused between calls.
    validate : bool
        Whether the dataset must describe itself (dataset_description.json).
    """

    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    filter_file: Path | None = None
    database: Path | None = None
    validate: bool = True


@dataclass(frozen=True)
class Settings:
    """What changes the result of a scan (and so belongs to its fingerprint).

    Attributes
    ----------
    model : str
        Name of a shipped model or a model folder.
    views : tuple of str
    mirror : bool
        Average over the mirror image, too.
    brain_extraction : str
    output_resolution : str
        ``native`` or ``1mm``.
    write_probseg : bool
    """

    model: str = "label-flip"
    views: tuple[str, ...] = tuple(PLANES)
    mirror: bool = True
    brain_extraction: str = "auto"
    output_resolution: str = "native"
    write_probseg: bool = False


@dataclass(frozen=True)
class Execution:
    """Where scans are processed; none of it changes a result.

    Attributes
    ----------
    executor : {"local", "dask"}
        This process, or dask workers.
    nprocs : int or None
        Workers (SLURM: jobs); None lets the machine decide.
    mem_gb : float or None
        Memory that all workers together may use.
    scheduler : str or None
        Address of a dask scheduler that runs already.
    cluster : {"local", "slurm"}
        What to start otherwise.
    work_dir : Path or None
        For temporary files; None is the system's.
    """

    executor: str = "local"
    nprocs: int | None = None
    mem_gb: float | None = None
    scheduler: str | None = None
    cluster: str = "local"
    work_dir: Path | None = None


@dataclass(frozen=True)
class RunConfig:
    """One call of ``hetseg BIDS OUT participant``.

    Attributes
    ----------
    bids_dir, out_dir : Path
    selection : Selection
    settings : Settings
    execution : Execution
    device : str
    threads : int or None
        Threads of one process; None lets torch decide.
    overwrite : bool
        Redo scans whose results are complete.
    stop_on_first_crash, dry_run, reports_only : bool
    command : str
        The command line, for provenance.
    """

    bids_dir: Path
    out_dir: Path
    selection: Selection = field(default_factory=Selection)
    settings: Settings = field(default_factory=Settings)
    execution: Execution = field(default_factory=Execution)
    device: str = "auto"
    threads: int | None = None
    overwrite: bool = False
    stop_on_first_crash: bool = False
    dry_run: bool = False
    reports_only: bool = False
    command: str = ""
