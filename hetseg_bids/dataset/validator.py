"""The BIDS validator over the input, where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

_PROGRAM = "bids-validator-deno"
_SHOWN = 3
_SECONDS = 1800


def bids_complaint(bids_dir: Path) -> str | None:
    """The errors that the BIDS validator finds, in one line.

    Parameters
    ----------
    bids_dir : Path

    Returns
    -------
    complaint : str or None
        None if there are none, or the validator (PyPI: bids-validator-deno) isn't installed.
    """
    beside = Path(sys.executable).with_name(_PROGRAM)  # the environment may not be on PATH
    program = str(beside) if beside.is_file() else shutil.which(_PROGRAM)
    if program is None:
        return None
    command = [program, "--format", "json", "--ignoreNiftiHeaders", "--ignoreWarnings"]
    try:
        done = subprocess.run(  # noqa: S603 (the program was found, the folder is an argument)
            [*command, str(bids_dir.resolve())],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        return f"the BIDS validator gave no answer ({type(error).__name__})"
    errors = [i for i in issues if i.get("severity") == "error"]
    if not errors:
        return None
    first = "; ".join(f"{i.get('code')} in {i.get('location')}" for i in errors[:_SHOWN])
    more = "" if len(errors) <= _SHOWN else f" and {len(errors) - _SHOWN} more"
    return f"the BIDS validator found {first}{more}"
