"""Change over time: people with several sessions, from their scans to tables and pages."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hetseg_bids.structures.aseg import N_STRUCTURES
from support.browsing import HOSTILE_NAME, Opened, Tags, drawn
from support.commands import run_cli
from support.datasets import write_dataset
from support.phantoms import small_brain
from support.results import write_results

DOCS = Path(__file__).parents[2] / "docs"
HOSTILE = f"sub-{HOSTILE_NAME}"


def brain(lost: int = 0) -> np.ndarray:
    """A phantom whose left putamen has lost voxels."""
    labels = small_brain()
    places = np.argwhere(labels == 12)
    labels[tuple(places[:lost].T)] = 2
    return labels


@dataclass(frozen=True)
class Study:
    """A dataset with several sessions, its results, and what the group level said."""

    bids: Path
    out: Path
    said: str = ""

    def add(self, stem: str, lost: int = 0, *, image: bool = False, **changes: str) -> None:
        """A scan whose record has some changes; with its T1w where pictures need it."""
        paths, source = write_results(self.out, stem, brain(lost))
        paths.record.write_text(json.dumps(json.loads(paths.record.read_text()) | changes))
        person, session, *_ = stem.split("_")
        if image:
            t1w = self.bids / person / session / "anat" / source.name
            t1w.parent.mkdir(parents=True)
            shutil.copy(source, t1w)

    def write(self, path: str, *rows: str) -> None:
        file = self.bids / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(row.replace(" ", "\t") for row in rows) + "\n")

    def run(self) -> Study:
        done = run_cli("hetseg", self.bids, self.out, "group")
        assert done.code == 0, done.err
        return Study(self.bids, self.out, done.err)

    def table(self, person: str) -> pd.DataFrame:
        return pd.read_csv(self.out / person / f"{person}_seg-hetseg_change.tsv", sep="\t")

    def page(self, person: str) -> str:
        return (self.out / f"{person}_change.html").read_text()

    @property
    def group_page(self) -> str:
        return (self.out / "group.html").read_text()

    def files(self) -> dict[str, bytes]:
        found = [*self.out.rglob("*_change.*"), *self.out.glob("group*")]
        return {path.relative_to(self.out).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    root = tmp_path_factory.mktemp("change")
    study = Study(write_dataset(root / "bids"), root / "out")
    # anonymised dates, and sessions whose labels are in another order
    for session, date, lost in (("c", "1900-01-01", 0), ("a", "1900-12-31", 30), ("b", "n", 250)):
        study.add(f"sub-01_ses-{session}", lost, image=True)
        date = date.replace("n", "1901-12-31T10:00:00")
        row = f"anat/sub-01_ses-{session}_T1w.nii.gz {date}"
        study.write(
            f"sub-01/ses-{session}/sub-01_ses-{session}_scans.tsv", "filename acq_time", row
        )
    for field, session in ((1.5, "a"), (3, "c")):
        text = json.dumps({"MagneticFieldStrength": field})
        folder = study.bids / "sub-01" / f"ses-{session}" / "anat"
        (folder / f"sub-01_ses-{session}_T1w.json").write_text(text)
    # two runs in a session, no date
    study.add(f"{HOSTILE}_ses-2_run-1", 0)
    study.add(f"{HOSTILE}_ses-2_run-2", 100)
    study.add(f"{HOSTILE}_ses-10", 50)
    # of one kind there are too few
    study.add("sub-03_ses-1")
    study.add("sub-04_ses-1")
    study.add("sub-04_ses-2", HetsegModelSHA256="2" * 64)
    study.add("sub-05_ses-1")
    study.add("sub-05_ses-2")
    study.add("sub-05_ses-2_acq-other")
    study.write(
        "sub-05/sub-05_sessions.tsv", "session_id acq_time", "ses-1 2001-01-01", "ses-2 soon"
    )
    return study.run()


def row(table: pd.DataFrame, start: str, end: str, name: str = "left_putamen") -> pd.Series:
    chosen = table[(table["session_from"] == start) & (table["session_to"] == end)]
    return chosen.set_index("name").loc[name]


def sd_of(out: Path, scan: str) -> float:
    """Repeat noise of the left putamen."""
    path = out / scan.split("_")[0] / "anat" / f"{scan}_seg-hetseg_morph.tsv"
    table = pd.read_csv(path, sep="\t").set_index("name")
    return table.loc["left_putamen", "volume_repeat_sd_mm3"]


def test_sessions_are_compared_in_the_order_of_their_dates(study):
    table = study.table("sub-01")
    pairs = table[["session_from", "session_to"]].drop_duplicates().to_numpy().tolist()
    assert pairs == [["ses-c", "ses-a"], ["ses-a", "ses-b"], ["ses-c", "ses-b"]]
    assert len(table) == 3 * N_STRUCTURES
    whole = row(table, "ses-c", "ses-b")
    assert whole["years"] == pytest.approx(729.4 / 365.25, abs=0.001)
    assert whole["difference_mm3"] == -250 * 8  # voxels of 2 mm
    percent = 100 * whole["difference_mm3"] / whole["volume_from_mm3"]
    assert whole["percent_per_year"] == pytest.approx(percent / whole["years"], abs=0.01)
    dictionary = json.loads((study.out / "sub-01/sub-01_seg-hetseg_change.json").read_text())
    assert list(dictionary) == list(table.columns)
    assert "order of time (acq_time in scans.tsv)" in dictionary["session_from"]["Description"]


def test_the_interval_is_that_of_the_repeat_noise(study):
    whole = row(study.table("sub-01"), "ses-c", "ses-b")
    noise = 1.959964 * np.hypot(*(sd_of(study.out, f"sub-01_ses-{s}") for s in ("c", "b")))
    assert whole["smallest_change_mm3"] == pytest.approx(noise, abs=0.01)
    assert whole["difference_ci95_high_mm3"] == pytest.approx(-2000 + noise, abs=0.01)
    rate = whole["percent_per_year_ci95_low"] * whole["years"] * whole["volume_from_mm3"] / 100
    assert rate == pytest.approx(-2000 - noise, rel=0.001)
    assert whole["more_than_noise"] == "decrease"
    assert row(study.table("sub-01"), "ses-c", "ses-a")["more_than_noise"] == "no"
    assert row(study.table("sub-01"), "ses-c", "ses-b", "brainstem")["more_than_noise"] == "no"


def test_scans_of_a_session_count_as_their_mean(study):
    table = study.table(HOSTILE)
    found = row(table, "ses-2", "ses-10")  # labels in natural order
    assert (found["scans_from"], found["scans_to"]) == (2, 1)
    assert found["difference_mm3"] == 0
    one, two, other = (
        sd_of(study.out, f"{HOSTILE}_ses-{name}") for name in ("2_run-1", "2_run-2", "10")
    )
    noise = 1.959964 * np.hypot(np.hypot(one, two) / 2, other)
    assert found["smallest_change_mm3"] == pytest.approx(noise, abs=0.01)
    assert table[["years", "percent_per_year"]].isna().all(axis=None)
    dictionary = next((study.out / HOSTILE).glob("*_change.json")).read_text()
    assert "order of their labels" in dictionary


def test_what_cannot_be_compared_or_dated_is_named_once(study):
    (line,) = [line for line in study.said.splitlines() if "left out of change" in line]
    assert line.endswith(": sub-04_ses-1, sub-04_ses-2, sub-05_ses-2_acq-other")
    (line,) = [line for line in study.said.splitlines() if "dates or ages that" in line]
    assert "sub-05_sessions.tsv: acq_time 'soon' is no date" in line
    (line,) = [line for line in study.said.splitlines() if "another scanner" in line]
    assert line.endswith(": sub-01")
    assert "MagneticFieldStrength: ses-c 3, ses-a 1.5" in study.page("sub-01")
    assert study.table("sub-05")["years"].isna().all()
    assert {p.name for p in study.out.glob("*_change.html")} == {
        f"{person}_change.html" for person in ("sub-01", HOSTILE, "sub-05")
    }


def test_a_person_has_a_page_with_plots_pictures_and_links(study):
    page = study.page("sub-01")
    assert page.count("<svg") == N_STRUCTURES
    assert page.count('src="data:image/jpeg') == 6
    thirds = np.split(drawn(page), 3, axis=1)  # the sessions of an axial slice
    assert thirds[0].std() > 20
    for other in thirds[1:]:
        assert np.corrcoef(thirds[0].ravel(), other.ravel())[0, 1] > 0.95
    assert "Left putamen: decrease" in page
    links = [a.get("href") for tag, a in Tags(page).found if tag == "a"]
    assert "./sub-01_ses-a.html" in links
    # without its T1w, a page has no pictures
    assert 'src="data:image/jpeg' not in study.page("sub-05")


def test_names_from_files_are_text_on_both_pages(study):
    for page in (study.page(HOSTILE), study.group_page):
        for tag, attributes in Tags(page).found:
            assert not any(name.startswith("on") for name in attributes)
            assert tag != "img" or attributes["src"].startswith("data:")


def test_the_group_page_counts_changes_of_each_person(study):
    (section,) = study.group_page.split('<section id="change">')[1:]
    rows = [line for line in section.splitlines() if line.startswith("<tr><td><a")]
    assert len(rows) == 3
    assert rows[0].startswith('<tr><td><a href="./sub-01_change.html">sub-01</a></td><td>3</td>')
    assert "Left putamen (-" in rows[0]
    (putamen,) = [line for line in section.splitlines() if line.startswith("<tr><td>Left putamen")]
    assert putamen.endswith("<td>1</td><td>0</td></tr>")


def test_the_same_scans_give_the_same_files_and_an_old_page_is_kept(study):
    before = study.files()
    times = {path: path.stat().st_mtime_ns for path in study.out.glob("*_change.html")}
    assert study.run().files() == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_what_is_left_of_an_earlier_call_goes_when_sessions_do(study, tmp_path):
    copy = Study(tmp_path / "gone", tmp_path / "out")
    shutil.copytree(study.out, copy.out)
    for path in copy.out.rglob("*ses-10*"):
        path.unlink()
    for path in (copy.out / "sub-01").rglob("*ses-b*"):
        path.unlink()
    copy = copy.run()
    assert not [name for name in copy.files() if name.startswith(HOSTILE)]
    table = copy.table("sub-01")  # the dataset is gone, too: no dates, no pictures
    assert table[["session_from", "session_to"]].drop_duplicates().to_numpy().tolist() == [
        ["ses-a", "ses-c"]
    ]
    assert table["years"].isna().all()
    assert 'src="data:image/jpeg' not in copy.page("sub-01")


def test_an_image_that_cannot_be_read_costs_the_pictures_until_it_can(study, tmp_path):
    copy = Study(tmp_path / "bids", tmp_path / "out")
    shutil.copytree(study.out / "sub-01", copy.out / "sub-01")
    shutil.copytree(study.bids, copy.bids)
    t1w = next((copy.bids / "sub-01").rglob("*_T1w.nii.gz"))
    content = t1w.read_bytes()
    t1w.write_bytes(content[:1000])
    copy = copy.run()
    (line,) = [line for line in copy.said.splitlines() if "no pictures of its sessions" in line]
    assert t1w.name in line
    assert 'src="data:image/jpeg' not in copy.page("sub-01")
    t1w.write_bytes(content)
    assert copy.run().page("sub-01") == study.page("sub-01")


def test_a_model_without_repeat_noise_has_no_intervals(tmp_path):
    study = Study(write_dataset(tmp_path / "bids"), tmp_path / "out")
    for session in "12":
        write_results(study.out, f"sub-01_ses-{session}", brain(), flip=False)
    table = study.run().table("sub-01")
    assert table[["smallest_change_mm3", "more_than_noise"]].isna().all(axis=None)
    assert (table["difference_mm3"] == 0).all()


def test_the_page_of_the_documentation_joins_the_tables(study, tmp_path, monkeypatch, capsys):
    (tmp_path / "OUT").symlink_to(study.out)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "change.md").read_text(), re.S)
    names: dict[str, object] = {}
    exec(block, names)  # noqa: S102 - our own page
    assert "left_putamen" in capsys.readouterr().out
    assert set(names["change"]["participant_id"]) == {"sub-01", HOSTILE, "sub-05"}


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_of_change_opens_without_complaint(chromium, study, scheme):
    opened = Opened(chromium, study.out / f"{HOSTILE}_change.html", color_scheme=scheme)
    assert opened.page.evaluate("window.hacked") is None
    opened.keep_picture(f"change-{scheme}")
    assert opened.complaints == []


def test_scans_with_a_lesion_are_left_out_by_name(tmp_path):
    study = Study(write_dataset(tmp_path / "bids"), tmp_path / "out")
    lesion = {"source": "bids:raw:x", "volume_ml": 12.0, "structures": ["left_putamen"]}
    for person, sessions in (("sub-a", 3), ("sub-c", 1)):
        for number in range(1, sessions + 1):
            # sub-c has one session: nothing is said of it
            masked = {"HetsegLesion": lesion} if number == sessions else {}
            study.add(f"{person}_ses-{number}", **masked)
    done = study.run()
    assert set(done.table("sub-a")["session_to"]) == {"ses-2"}
    assert "(with a lesion mask): sub-a_ses-3\n" in done.said


def a_study(root: Path) -> Study:
    return Study(write_dataset(root / "bids"), root / "out")


def test_no_pair_runs_backwards_where_only_some_sessions_have_a_time(tmp_path):
    study = a_study(tmp_path)
    for session, lost in (("a", 0), ("b", 10), ("c", 100)):
        study.add(f"sub-01_ses-{session}", lost)
    dates = ("ses-a 2010-01-01", "ses-b n/a", "ses-c 2005-01-01")
    study.write("sub-01/sub-01_sessions.tsv", "session_id acq_time", *dates)
    table = study.run().table("sub-01")
    whole = row(table, "ses-c", "ses-a")
    assert whole["years"] == pytest.approx(5, abs=0.01)
    assert whole["more_than_noise"] == "increase"
    assert not (table["years"] < 0).any()
    assert "those with a time are in the order of time" in study.page("sub-01")


def two_sessions(root: Path, first: str = "1", second: str = "2") -> Study:
    """A person who lost voxels between two sessions."""
    study = a_study(root)
    study.add(f"sub-01_ses-{first}", 0)
    study.add(f"sub-01_ses-{second}", 100)
    return study


def test_times_outlive_the_dataset(tmp_path):
    study = two_sessions(tmp_path, "pre", "post")
    study.write("sub-01/sub-01_sessions.tsv", "session_id age", "ses-pre 60.5", "ses-post 65.25")
    before = study.run().table("sub-01")
    study.bids.rename(tmp_path / "away")
    again = study.run()
    pd.testing.assert_frame_equal(again.table("sub-01"), before)
    assert "times of sessions are those of earlier tables" in again.said


def test_hours_of_removed_dates_are_no_order(tmp_path):
    study = two_sessions(tmp_path)
    hours = ("sub-01_ses-1_T1w.nii.gz 1800-01-01T13:05:00", "sub-01_ses-2_T1w.nii.gz 1800-01-01")
    study.write("sub-01/sub-01_scans.tsv", "filename acq_time", *hours)
    study.write("sub-01/sub-01_sessions.tsv", "session_id age", "ses-1 70", "ses-2 72.5")
    study = study.run()
    assert row(study.table("sub-01"), "ses-1", "ses-2")["years"] == 2.5
    assert "all sessions are on one day before 1925" in study.said


def test_a_table_with_tabs_at_the_end_of_its_rows_is_named(tmp_path):
    study = two_sessions(tmp_path)
    rows = ("ses-1 2010-01-01 ", "ses-2 2005-01-01 ")
    study.write("sub-01/sub-01_sessions.tsv", "session_id acq_time", *rows)
    study.write("participants.tsv", "participant_id age", "sub-01 30 ")
    said = study.run().said
    assert said.count("rows have more fields than the header") >= 2


def test_changes_on_the_page_are_of_the_sessions_that_are_named(tmp_path):
    study = a_study(tmp_path)
    for session, lost in (("1", 0), ("2", 50), ("3", 100)):
        study.add(f"sub-01_ses-{session}", lost)
    study.run()
    assert "sub-01_change.html" in study.group_page
    table = study.table("sub-01")
    done = run_cli("hetseg", study.bids, study.out, "group", "--session-label", "1", "2")
    assert done.code == 0, done.err
    assert "sub-01_change.html" not in study.group_page
    pd.testing.assert_frame_equal(study.table("sub-01"), table)


def test_the_scanner_of_every_scan_of_a_session_counts(tmp_path):
    study = a_study(tmp_path)
    for name, field in (("ses-1", 3), ("ses-2_run-1", 3), ("ses-2_run-2", 1.5)):
        study.add(f"sub-01_{name}", image=name != "ses-2_run-2")
        folder = study.bids / "sub-01" / name[:5] / "anat"
        (folder / f"sub-01_{name}_T1w.nii.gz").touch()
        text = json.dumps({"MagneticFieldStrength": field})
        (folder / f"sub-01_{name}_T1w.json").write_text(text)
    study.run()
    assert "MagneticFieldStrength: ses-1 3, ses-2 3 and 1.5" in study.page("sub-01")
