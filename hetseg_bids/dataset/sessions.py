"""When and on which scanner the sessions of a person took place, as far as a dataset says."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from hetseg_bids.dataset.bids_index import EXTENSIONS
from hetseg_bids.dataset.names import SUFFIXES, derivative_stem
from hetseg_bids.files import read_sidecar, read_tsv

_DAYS_A_YEAR = 365.25
_ONE_DAY = 1 / _DAYS_A_YEAR
_ONE_SESSION = 31 / _DAYS_A_YEAR  # years within which scans of a session lie
_ANONYMOUS_BEFORE = datetime.datetime(1925, 1, 1)  # BIDS: dates before it are no true ones
_ABSENT = ("", "n/a")
_SCANNER = ("Manufacturer", "ManufacturersModelName", "DeviceSerialNumber", "MagneticFieldStrength")
_LONGEST = 40  # characters of a value


@dataclass(frozen=True)
class SessionTimes:
    """Times of a person's sessions.

    Attributes
    ----------
    years : dict of str to float
        Of each session whose time is known, since the first of them.
    source : str
        Where they are from, in words; empty without times.
    problems : tuple of str
        What can't be used, each with the file and the reason.
    """

    years: dict[str, float] = field(default_factory=dict)
    source: str = ""
    problems: tuple[str, ...] = ()


def session_times(bids_dir: Path, person: str, scans: Mapping[str, Sequence[str]]) -> SessionTimes:
    """Times from ``scans.tsv``, or else from ``sessions.tsv``, or else ages from the latter.

    All times are from one of them, because dates are often shifted: the first one that knows
    the most sessions.  Never raises for what a file holds.

    Parameters
    ----------
    bids_dir : Path
        The dataset; it may be absent.
    person : str
        ``sub-X``.
    scans : mapping of str to sequence of str
        Names of the T1w scans (``sub-X_ses-Y...``) of each session (``ses-Y``).

    Examples
    --------
    >>> root = getfixture("tmp_path")
    >>> (root / "sub-1").mkdir()
    >>> table = pd.DataFrame({"session_id": ["ses-a", "ses-b"], "age": [30, 31.5]})
    >>> table.to_csv(root / "sub-1" / "sub-1_sessions.tsv", sep=chr(9), index=False)  # a tab
    >>> times = session_times(root, "sub-1", {"ses-a": ["sub-1_ses-a"], "ses-b": ["sub-1_ses-b"]})
    >>> times.years, times.source
    ({'ses-a': 0.0, 'ses-b': 1.5}, 'age in sessions.tsv')
    """
    sessions = bids_dir / person / f"{person}_sessions.tsv"
    sources: tuple[tuple[str, Callable[[], Iterable[tuple[str, float]]]], ...] = (
        ("acq_time in scans.tsv", lambda: _of_scans(bids_dir / person, person, scans)),
        ("acq_time in sessions.tsv", lambda: _of_sessions(sessions, scans, "acq_time", _date)),
        ("age in sessions.tsv", lambda: _of_sessions(sessions, scans, "age", _number)),
    )
    best, problems = SessionTimes(), []
    for source, read in sources:
        try:
            years = _together(read(), source)
        except (OSError, ValueError) as error:  # pandas raises ValueErrors
            text = " ".join(str(error).split())
            problems.append(text if person in text else f"{person}: {text}")
            continue
        if len(years) > max(1, len(best.years)):
            first = min(years.values())
            best = SessionTimes({name: time - first for name, time in years.items()}, source)
        if len(best.years) == len(scans):
            break
    return SessionTimes(best.years, best.source, tuple(dict.fromkeys(problems)))


def scanner_of(t1w: Path) -> dict[str, str]:
    """What the sidecar of an image says of its scanner; nothing where there is none.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "sub-1_T1w.nii.gz"
    >>> _ = path.with_name("sub-1_T1w.json").write_text('{"MagneticFieldStrength": 3}')
    >>> scanner_of(path)
    {'MagneticFieldStrength': '3'}
    """
    facts = read_sidecar(t1w)
    return {key: str(facts[key])[:_LONGEST] for key in _SCANNER if key in facts}


def _of_scans(
    folder: Path, person: str, scans: Mapping[str, Sequence[str]]
) -> Iterable[tuple[str, float]]:
    session_of = {name: session for session, names in scans.items() for name in names}
    paths = [folder / f"{person}_scans.tsv"]
    paths += [folder / session / f"{person}_{session}_scans.tsv" for session in scans]
    for path in paths:
        table = _read(path, ("filename", "acq_time"))
        for name, text in zip(table["filename"], table["acq_time"], strict=True):
            session = session_of.get(_scan_of(name))
            if session is not None and text not in _ABSENT:
                yield session, _date(text, path)


def _of_sessions(
    path: Path,
    scans: Mapping[str, Sequence[str]],
    column: str,
    parse: Callable[[str, Path], float],
) -> Iterable[tuple[str, float]]:
    table = _read(path, ("session_id", column))
    for name, text in zip(table["session_id"], table[column], strict=True):
        session = f"ses-{name.removeprefix('ses-')}"
        if session in scans and text not in _ABSENT:
            yield session, parse(text, path)


def _read(path: Path, columns: tuple[str, str]) -> pd.DataFrame:
    """Two columns of a table as text; no rows where there is no such file or column."""
    try:
        table = read_tsv(path)
    except FileNotFoundError:
        return pd.DataFrame(columns=list(columns), dtype=str)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: can't be read ({error})") from None
    return table.reindex(columns=list(columns), fill_value="n/a").fillna("n/a")


def _scan_of(filename: str) -> str:
    """``anat/sub-01_ses-1_T1w.nii.gz`` is of the scan ``sub-01_ses-1``; see `derivative_stem`."""
    stem, _, suffix = _bare(filename.rsplit("/", 1)[-1]).rpartition("_")
    return derivative_stem(stem, suffix) if suffix in SUFFIXES else ""


def _bare(name: str) -> str:
    return next((name.removesuffix(e) for e in EXTENSIONS if name.endswith(e)), name)


def _date(text: str, path: Path) -> float:
    """Years; the hours between time zones don't count."""
    try:
        date = datetime.datetime.fromisoformat(text.strip()).replace(tzinfo=None)
    except ValueError:
        problem = f"{path}: acq_time {text!r} is no date such as 2024-05-31T13:00:00"
        raise ValueError(problem) from None
    return _years(date)


def _years(date: datetime.datetime) -> float:
    return (date - datetime.datetime.min) / datetime.timedelta(days=_DAYS_A_YEAR)


def _number(text: str, path: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path}: age {text!r} is no number of years")
    return value


def _together(times: Iterable[tuple[str, float]], source: str) -> dict[str, float]:
    """One time for each session, the mean of its scans."""
    found: dict[str, list[float]] = {}
    for session, time in times:
        found.setdefault(session, []).append(time)
    for session, several in found.items():
        if max(several) - min(several) > _ONE_SESSION:
            raise ValueError(f"{source}: scans of {session} lie more than a month apart")
    years = {session: sum(several) / len(several) for session, several in found.items()}
    hidden = [time < _years(_ANONYMOUS_BEFORE) for time in years.values()]
    if any(hidden) and not all(hidden):
        raise ValueError(f"{source}: some dates are before {_ANONYMOUS_BEFORE.year}, others aren't")
    if len(years) > 1 and all(hidden) and max(years.values()) - min(years.values()) < _ONE_DAY:
        problem = f"all sessions are on one day before {_ANONYMOUS_BEFORE.year}: removed dates?"
        raise ValueError(f"{source}: {problem}")
    return years
