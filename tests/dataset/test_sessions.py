"""When sessions were: dates and ages as datasets have them, and as they shouldn't."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetseg_bids.dataset.sessions import session_times

SCANS = {"ses-1": ["sub-1_ses-1_run-1", "sub-1_ses-1_run-2"], "ses-2": ["sub-1_ses-2"]}
FIRST, SECOND = "1900-01-01T12:00:00", "1901-07-02T12:00:00"  # anonymised: 547 days


def write(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(row.replace(" ", "\t") for row in rows) + "\n")


def write_scans(root: Path, *dates: str) -> None:
    """Dates of the three scans, each session's in a file of its own."""
    names = [name for ours in SCANS.values() for name in ours]
    rows = [f"anat/{n}_T1w.nii.gz {d}" for n, d in zip(names, dates, strict=True)]
    header, other = "filename acq_time", f"func/sub-1_ses-1_task-rest_bold.nii.gz {FIRST[:4]}"
    write(root / "sub-1" / "ses-1" / "sub-1_ses-1_scans.tsv", header, other, *rows[:2])
    write(root / "sub-1" / "ses-2" / "sub-1_ses-2_scans.tsv", header, rows[2])


def write_sessions(root: Path, *rows: str) -> None:
    write(root / "sub-1" / "sub-1_sessions.tsv", *rows)


def test_dates_of_scans_come_first(tmp_path):
    write_scans(tmp_path, FIRST, "1900-01-03", "1901-07-02T12:00:00.500000Z")
    write_sessions(tmp_path, "session_id acq_time", "ses-1 2000-01-01", "ses-2 2010-01-01")
    times = session_times(tmp_path, "sub-1", SCANS)
    assert times.source == "acq_time in scans.tsv"
    assert times.years == pytest.approx({"ses-1": 0, "ses-2": (547 - 0.75) / 365.25}, abs=1e-4)
    assert not times.problems


def test_one_file_may_list_the_scans_of_all_sessions(tmp_path):
    rows = [f"ses-{n}/anat/sub-1_ses-{n}_T1w.nii.gz {d}" for n, d in ((1, FIRST), (2, SECOND))]
    write(tmp_path / "sub-1" / "sub-1_scans.tsv", "filename acq_time", *rows)
    scans = {"ses-1": ["sub-1_ses-1"], "ses-2": ["sub-1_ses-2"]}
    years = session_times(tmp_path, "sub-1", scans).years
    assert years["ses-2"] == pytest.approx(547 / 365.25)


@pytest.mark.parametrize(
    ("dates", "said"),
    [
        (("n/a", "n/a", "n/a"), None),
        ((FIRST, FIRST, "n/a"), None),  # of one session alone
        ((FIRST, FIRST, "31.12.2001"), "ses-2_scans.tsv: acq_time '31.12.2001' is no date"),
        ((FIRST, SECOND, SECOND), "scans of ses-1 lie more than a month apart"),
        ((FIRST, FIRST, "2019-01-01"), "some dates are before 1925, others aren't"),
    ],
)
def test_without_usable_dates_the_next_source_is_asked(tmp_path, dates, said):
    write_scans(tmp_path, *dates)
    write_sessions(tmp_path, "session_id age acq_time", "1 30.5 n/a", "ses-2 32 n/a", "ses-3 x x")
    times = session_times(tmp_path, "sub-1", SCANS)
    assert (times.source, times.years) == ("age in sessions.tsv", {"ses-1": 0.0, "ses-2": 1.5})
    assert len(times.problems) == bool(said)
    assert (said or "") in "".join(times.problems)
    assert all("sub-1" in problem for problem in times.problems)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["session_id age", "ses-1 30", "ses-2 89+"], "age '89+' is no number of years"),
        (["session_id age", "ses-1 30", "ses-2 inf"], "age 'inf' is no number of years"),
        (["session_id age", "ses-1 30", "ses-2"], None),
        (["session_id age", "ses-1 30", "ses-2 31 x y z"], "can't be read"),
        (["session age", "ses-1 30", "ses-2 31"], None),
        ([""], "can't be read"),
    ],
)
def test_tables_that_cannot_be_used_give_no_years_and_no_error(tmp_path, rows, said):
    write_sessions(tmp_path, *rows)
    times = session_times(tmp_path, "sub-1", SCANS)
    assert (times.source, times.years) == ("", {})
    assert bool(times.problems) == bool(said)
    assert (said or "") in "".join(times.problems)


def test_bytes_that_are_no_text_give_no_years_and_no_error(tmp_path):
    write_sessions(tmp_path, "session_id age")
    (tmp_path / "sub-1" / "sub-1_sessions.tsv").write_bytes(b"session_id\tage\nses-1\t\xff\xfe\n")
    assert "can't be read" in session_times(tmp_path, "sub-1", SCANS).problems[0]


def test_a_dataset_that_is_gone_gives_no_years(tmp_path):
    assert not session_times(tmp_path / "gone", "sub-1", SCANS).years
