"""Errors that users see as one line: which file, what is wrong with it, what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Self

# how the line leads from the problem to the remedy
AFTER, COLON, ASIDE = "{}; {}", "{}: {}", "{} ({})"


class HetsegError(Exception):
    """Input that hetseg refuses; with one class per domain, so that callers can tell them apart.

    Attributes
    ----------
    problem : str
        What is wrong.
    remedy : str
        What to do about it; may be empty.
    path : Path or None
        The file or folder that can't be used, if there is one.
    option : str
        The option of the command line that names `path`, or option and value.
    scan : Path or None
        The T1w image that `path` was read for, if that is another file.
    form : str
        `AFTER`, `COLON` or `ASIDE`: where the remedy stands in the line.

    Examples
    --------
    >>> from pathlib import Path
    >>> from hetseg_bids.errors import HeaderError
    >>> try:  # as `segment` does with an image of complex numbers
    ...     raise HeaderError("voxels are complex64", "export a grey T1w", path=Path("a.nii"))
    ... except HeaderError as error:
    ...     print(error)
    ...     print(error.path, "|", error.problem, "|", error.remedy)
    a.nii: voxels are complex64; export a grey T1w
    a.nii | voxels are complex64 | export a grey T1w
    """

    def __init__(
        self,
        problem: str,
        remedy: str = "",
        *,
        path: Path | None = None,
        option: str = "",
        scan: Path | None = None,
        form: str = AFTER,
    ) -> None:
        super().__init__(problem, remedy)  # pickled as these and the attributes
        self.problem = problem
        self.remedy = remedy
        self.path = path
        self.option = option
        self.scan = scan
        self.form = form

    def __str__(self) -> str:
        named = " ".join(str(part) for part in (self.option, self.path) if part)
        line = self.form.format(self.problem, self.remedy) if self.remedy else self.problem
        return ": ".join(str(part) for part in (self.scan, named, line) if part)

    def at(self, scan: Path) -> Self:
        """The same error with the scan that was processed, as `path` or, if that is set, `scan`."""
        path, scanned = (scan, None) if self.path is None else (self.path, scan)
        fields = {"path": path, "scan": scanned}
        return type(self)(self.problem, self.remedy, option=self.option, form=self.form, **fields)


class DatasetError(HetsegError):
    """A dataset, a folder of scans or a table in it."""


class ImageError(HetsegError):
    """An image file: missing, damaged, or with voxels that can't be segmented."""


class HeaderError(ImageError):
    """The header of an image file: its format, shape, voxel type or place in space."""


class MaskError(HetsegError):
    """A brain mask: given, looked for or computed."""


class ModelError(HetsegError):
    """A model: its folder, plan or weights, or the data and models used to make it."""


class OutputError(HetsegError):
    """Results, or the folder for them."""


class HeldError(OutputError):
    """Another process holds the lock of the same results."""


class OptionError(HetsegError):
    """An option, or a machine without what the options need: device, memory, workers."""
