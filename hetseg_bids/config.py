"""What the command line fills in and the rest of the package reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hetseg_bids.planes import PLANES

BIDS_VERSION = "1.11.1"
RECIPE_NAMES = ("fast", "wide", "small", "compact", "polish", "paper", "head")  # of hetseg-train
BRAIN_EXTRACTION_CHOICES = ("auto", "deepbet", "mask", "skip")
SYSTEM_NAMES = ("plain", "predictive-variance", "label-flip")  # `network.systems`


@dataclass(frozen=True)
class Selection:
    """Which images to take.

    Attributes
    ----------
    images : tuple of Path
        Without a BIDS dataset: files, and folders that are searched. The others are of datasets.
    participants, sessions, runs : tuple of str
        Labels without their prefix: ``01`` and not ``sub-01``. An empty tuple means all.
    suffix : {"T1w", "UNIT1"}
        Suffix of the images.
    choose : {"best", "first", "all"}
        Which images of a session: with ``first`` the first by name. All of them with ``best``, too,
        since quality is known afterwards: the group level chooses.
    filter_file : Path or None
        fMRIPrep-style BIDS filter file; its ``t1w`` entry adds entity filters.
    database : Path or None
        Folder of a pybids index that is reused between calls.
    validate : bool
        Whether the dataset must describe itself (dataset_description.json).
    """

    images: tuple[Path, ...] = field(default=(), kw_only=True)
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    suffix: str = "T1w"
    choose: str = "all"
    filter_file: Path | None = None
    database: Path | None = None
    validate: bool = True


@dataclass(frozen=True)
class Settings:
    """Options that change the result of a scan; they are written into its sidecar.

    Attributes
    ----------
    model : str
        Name of a shipped model or a model folder.
    structures : {"paper", "aseg"}
        What is labelled: the paper's 28 structures, or every label of FreeSurfer's aseg.
    views : tuple of str
        Planes in which the network sees the scan: any of ``axial``, ``coronal``, ``sagittal``.
    mirror : bool
        Average over the mirror image, too.
    brain_extraction : {"auto", "deepbet", "mask", "skip"}
        ``auto`` takes deepbet, or ``skip`` for images that are stripped already; ``mask`` takes
        the ``*_desc-brain_mask`` of the dataset.
    output_resolution : {"native", "1mm"}
        Grid of the results: the one of the T1w, or RAS with voxels of 1 mm.
    write_probseg : bool
        Whether to write the probability of each structure, too.
    lesion_mask : {"none", "auto"}
        ``auto`` takes the ``*_label-lesion_mask`` or ``_roi`` of a scan where there is one.
    lesion_label : {"background", "surrounding"}
        What a lesion is labelled as.
    """

    model: str = "label-flip"
    structures: str = "paper"
    views: tuple[str, ...] = tuple(PLANES)
    mirror: bool = True
    brain_extraction: str = "auto"
    output_resolution: str = "native"
    write_probseg: bool = False
    lesion_mask: str = "none"
    lesion_label: str = "background"


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
    """One call of ``hetseg BIDS OUT participant`` or ``group``, or ``hetseg T1W [T1W ...] OUT``.

    Attributes
    ----------
    bids_dir : Path or None
        The dataset; None if ``selection.images`` are taken.
    out_dir : Path
        Folder for the results.
    selection : Selection
    settings : Settings
    execution : Execution
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    threads : int or None
        Threads of one process; None lets torch decide.
    overwrite : bool
        Redo scans whose results are complete.
    stop_on_first_crash : bool
        End the run with the first scan that fails; otherwise the others go on.
    dry_run : bool
        List the selected images and process nothing.
    reports_only : bool
        Write the pages of complete results again.
    covariates : tuple of str
        Columns of participants.tsv that the group level joins to its wide tables, or ``all``.
    normalise : {"none", "icv"}
        With ``icv`` the group level writes its wide tables divided by the intracranial volume, too.
    command : str
        The command line, for provenance.
    """

    bids_dir: Path | None
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
    covariates: tuple[str, ...] = ()
    normalise: str = "none"
    command: str = ""
