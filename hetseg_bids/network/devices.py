"""Which device computes, with how many threads, and whether a process keeps freed memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from hetseg_bids.errors import COLON, OptionError
from hetseg_bids.preprocessing.number_formats import computes_bf16
from hetseg_bids.preprocessing.transfer import CPU

_CHOICES = "use auto, cpu, cuda, cuda:N or mps"
# bytes; arrays of a head at 1 mm are kept; larger ones are given back to the system, otherwise
# scans of 0.7 mm would need a GiB more
_KEPT_ARRAY, _KEPT = 96 * 2**20, 2**28
_SPARED_ARRAY = 48 * 2**20  # a head at 1 mm in float32 is larger
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def resolve_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda[:i]`` or ``mps`` into a device of this machine.

    Raises
    ------
    OptionError
        If the name is unknown or the device is absent.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    # float32 means float32 on CUDA, too; for all threads, which a scan shares with the next one
    torch.backends.cudnn.allow_tf32 = False
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise OptionError(f"--device {name}", _CHOICES, form=COLON) from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not torch.cuda.is_available() or (device.index or 0) >= count:
            raise OptionError(
                f"{count} CUDA devices found", "use auto or cpu", option=f"--device {name}"
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise OptionError("not available here", "use auto or cpu", option="--device mps")
    elif device.type not in ("cpu", "mps"):
        raise OptionError(f"--device {name}", _CHOICES, form=COLON)
    return device


def device_name(device: torch.device) -> str:
    """Description of a device for logs: the GPU's name, or the CPU with its threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device}, {torch.get_num_threads()} threads"


def set_threads(threads: int | None) -> None:
    """Limit the CPU threads of this process; None leaves torch's choice."""
    if threads:
        torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Let this process keep memory that it freed; has no effect without glibc.

    A scan allocates the same large arrays again and again. Given back to the system at once,
    their pages are cleared and mapped anew each time: 8 % of a run, 40 % of one in a dask worker.
    To be called before there are threads, which then share the memory.
    """
    _set_malloc(_M_ARENA_MAX, 1)  # other arenas can't hold large arrays
    _set_malloc(_M_TRIM_THRESHOLD, _KEPT)
    _set_malloc(_M_MMAP_THRESHOLD, _KEPT_ARRAY)


def return_freed_memory() -> None:
    """Give what `keep_freed_memory` kept back to the system, once; no effect without glibc.

    For steps that need much memory of other sizes than the step before. To get half a GiB again
    takes a tenth of a second.
    """
    trim = _libc_function("malloc_trim")
    if trim is not None:
        trim(0)


@contextmanager
def sparing_memory() -> Iterator[None]:
    """Within a process that keeps freed memory: a step that shall not keep large arrays.

    deepbet's arrays in float32 leave holes of which, from run to run, up to 500 MiB can't be used
    again. Given back at once, they cost a half second of one core. In half precision they leave no
    such holes.
    """
    if not computes_bf16(CPU):
        _set_malloc(_M_MMAP_THRESHOLD, _SPARED_ARRAY)
    try:
        yield
    finally:
        _set_malloc(_M_MMAP_THRESHOLD, _KEPT_ARRAY)
        return_freed_memory()


def _set_malloc(option: int, value: int) -> None:
    mallopt = _libc_function("mallopt")
    if mallopt is not None:
        mallopt(option, value)


def _libc_function(name: str) -> Callable[..., int] | None:
    """A function of glibc; None elsewhere. Windows can't even look for it."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def worker_environment(threads: int) -> dict[str, str]:
    """Variables of a process that is yet to start: its threads, all of them keeping memory.

    Examples
    --------
    >>> worker_environment(2)["OMP_NUM_THREADS"]
    '2'
    """
    return {
        "MALLOC_ARENA_MAX": "1",  # other arenas can't hold large arrays
        "MALLOC_TRIM_THRESHOLD_": str(_KEPT),
        "MALLOC_MMAP_THRESHOLD_": str(_KEPT_ARRAY),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
    }


def autocast(
    device: torch.device, *, enabled: bool | None = None, dtype: torch.dtype = torch.bfloat16
) -> torch.autocast:
    """bfloat16 autocast, by default where `computes_bf16`.

    A compiled caller gives `enabled`, because the test of the CPU can't be traced.
    """
    wanted = computes_bf16(device) if enabled is None else enabled
    return torch.autocast(device.type, dtype=dtype, enabled=wanted)
