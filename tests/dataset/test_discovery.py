"""Which images are found, in small and large datasets, with and without a database."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hetseg_bids.config import Selection
from hetseg_bids.dataset.bids_index import image_paths
from hetseg_bids.dataset.discovery import expected_scans, find_scans
from hetseg_bids.errors import DatasetError, OptionError
from support.commands import run_cli
from support.datasets import write_dataset


def many(root: Path, subjects: int) -> Path:
    """Two sessions a subject, with sidecars and other images beside the T1w."""
    write_dataset(root)
    for number in range(subjects):
        for session in (1, 2):
            anat = root / f"sub-{number:05d}" / f"ses-{session}" / "anat"
            anat.mkdir(parents=True)
            stem = f"sub-{number:05d}_ses-{session}"
            for name in ("T1w.nii.gz", "T1w.json", "T2w.nii.gz"):
                (anat / f"{stem}_{name}").touch()
    return root


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    root = many(tmp_path_factory.mktemp("found") / "bids", 5)
    (root / "sub-00000" / "ses-1" / "anat" / "sub-00000_ses-1_acq-b_run-2_T1w.nii").touch()
    (root / "derivatives" / "x" / "sub-9").mkdir(parents=True)
    (root / "derivatives" / "x" / "sub-9" / "sub-9_T1w.nii.gz").touch()
    return root


def stems(root: Path, **selection: object) -> list[str]:
    return [scan.stem for scan in find_scans(root, Selection(**selection)).scans]


def refused(root: Path, **selection: object) -> dict[str, str]:
    """Why images are refused, by their path in the dataset."""
    found = find_scans(root, Selection(**selection)).refused
    return {scan.path.relative_to(root).as_posix(): why for scan, why in found}


def with_images(root: Path, *paths: str) -> Path:
    """A dataset with empty T1w images at these places; ``_T1w.nii.gz`` is added."""
    write_dataset(root)
    for path in paths:
        image = root / f"{path}_T1w.nii.gz"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    return root


def test_t1w_images_and_nothing_else_are_found(dataset):
    assert len(stems(dataset)) == 11
    assert stems(dataset, participants=("00003",)) == [f"sub-00003_ses-{s}" for s in (1, 2)]
    assert stems(dataset, runs=("2",)) == ["sub-00000_ses-1_acq-b_run-2"]
    (scan,) = find_scans(dataset, Selection(participants=("00002",), sessions=("2",))).scans
    assert (scan.subject, scan.session) == ("00002", "2")
    assert str(scan.folder) == "sub-00002/ses-2/anat"


def test_a_database_is_made_whole_or_not_at_all(dataset, tmp_path):
    database = tmp_path / "db"
    one = {"participants": ("00001",), "database": database}
    assert len(stems(dataset, **one)) == 2
    assert not database.exists()  # an index of one participant would mislead the others
    assert len(stems(dataset, database=database)) == 11
    assert len(stems(dataset, database=database)) == 11
    assert len(stems(dataset, **one)) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["db"]


def test_jobs_that_start_together_share_one_database(dataset, tmp_path):
    database = tmp_path / "db"
    command = [sys.executable, "-m", "hetseg_bids.cli.run", str(dataset), str(tmp_path / "out")]
    command += ["participant", "--dry-run", "--bids-database-dir", str(database)]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    listings = [job.communicate()[0] for job in jobs]
    assert all(job.returncode == 0 for job in jobs)
    assert len({*listings}) == 1
    assert listings[0].count("_T1w.nii") == 11
    assert [p.name for p in tmp_path.iterdir()] == ["db"]


def test_a_database_never_answers_for_another_dataset(tmp_path):
    first = with_images(tmp_path / "a", "sub-01/anat/sub-01", "sub-02/anat/sub-02")
    second = with_images(tmp_path / "b", "sub-07/anat/sub-07")
    database = tmp_path / "db"
    assert stems(first, database=database) == ["sub-01", "sub-02"]
    for participants in ((), ("07",)):
        with pytest.raises(DatasetError, match=f"index of {first}, not of {second}"):
            find_scans(second, Selection(participants, database=database))
    # in a container every dataset is /bids
    first.rename(tmp_path / "old")
    second.rename(first)
    assert stems(first, database=database) == ["sub-07"]
    assert stems(first, database=database) == ["sub-07"]


def written(database: Path) -> tuple[int, int]:
    """Which file an index is and when it was written; reading it changes when it was read."""
    found = (database / "layout_index.sqlite").stat()
    return found.st_ino, found.st_mtime_ns


def test_a_database_notices_what_was_added_and_removed(tmp_path, caplog):
    root = with_images(tmp_path / "a", "sub-01/ses-1/anat/sub-01_ses-1", "sub-02/anat/sub-02")
    database = tmp_path / "db"
    assert stems(root, database=database) == ["sub-01_ses-1", "sub-02"]
    made = written(database)
    assert stems(root, database=database) == ["sub-01_ses-1", "sub-02"]
    assert written(database) == made
    with_images(root, "sub-01/ses-2/anat/sub-01_ses-2")
    shutil.rmtree(root / "sub-02")
    assert stems(root, database=database, participants=("01",)) == ["sub-01_ses-1", "sub-01_ses-2"]
    assert not caplog.records
    assert stems(root, database=database) == ["sub-01_ses-1", "sub-01_ses-2"]
    assert "1 T1w images were added and 1 removed" in caplog.text
    assert [p.name for p in database.iterdir()] == ["layout_index.sqlite"]


def test_links_in_a_circle_stop_neither_the_index_nor_who_is_expected(tmp_path):
    root = with_images(tmp_path / "a", "sub-01/anat/sub-01")
    cyclic = root / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    cyclic.parent.mkdir(parents=True)
    cyclic.symlink_to(cyclic.name)
    (root / "sub-03").symlink_to("sub-03")
    for _ in range(2):  # the index is made, then checked
        assert stems(root, database=tmp_path / "db") == ["sub-01", "sub-02"]
    assert [scan.stem for scan in expected_scans(root)] == ["sub-01", "sub-02"]


def test_an_index_that_another_program_made_through_a_link_is_used(tmp_path, caplog):
    from bids import BIDSLayout

    root = with_images(tmp_path / "a", "sub-01/anat/sub-01", "sub-02/anat/sub-02")
    (tmp_path / "link").symlink_to(root)
    BIDSLayout(tmp_path / "link", database_path=tmp_path / "db")
    made = written(tmp_path / "db")
    found = find_scans(root, Selection(database=tmp_path / "db")).scans
    assert [scan.path.parents[2] for scan in found] == [root, root]
    assert written(tmp_path / "db") == made
    assert not caplog.records


def test_images_are_those_of_pybids_index(tmp_path):
    root = with_images(
        tmp_path / "a",
        *("sub-01/anat/sub-01", "sub-01/ses-1/anat/sub-01_ses-1", "sub-01/sub-01_acq-odd", "loose"),
        *("sub-03/derivatives/x/sub-01", "code/sub-01/anat/sub-01", "work/sub-01", "derivatives/a"),
        *("sub-01/.hidden/sub-01", "sub-01/anat/.sub-01", "sub-01/anat/sub-01_acq-a.b"),
        *("sub-02/anat/sub-02.zarr/sub-02", "sub-02/anat/run-1_T1w.nii.gz/sub-02", "sub-03/T1w/a"),
    )
    anat = root / "sub-01" / "anat"
    for name in (
        "T1w.nii.gz",
        "sub-01_UNIT1.nii",
        "sub-01_T1w.json",
        "sub-01_T1w.NII",
        "x_T1w.nii",
    ):
        (anat / name).touch()
    for link, target in {
        "sub-04": "sub-01",
        "sub-05_T1w.nii.gz": "nowhere",
        "sub-03/circle": "../sub-03",
        "sub-06": "sub-06",
    }.items():
        (root / link).symlink_to(target)
    for suffix in ("T1w", "UNIT1"):
        found = _without_rounds(root, image_paths(root, suffix, (), None))
        assert found == _without_rounds(root, image_paths(root, suffix, (), tmp_path / suffix))
        assert len(found) > 1
    whole = image_paths(root, "T1w", (), None)
    assert not any("circle" in path.parts for path in whole)
    one = image_paths(root, "T1w", ("01", "04"), None)
    assert one == [
        path for path in whole if path.relative_to(root).parts[0] in ("sub-01", "sub-04")
    ]


def _without_rounds(root: Path, paths: list[Path]) -> set[str]:
    """Paths in the dataset but those through a circle of links, which pybids goes round often."""
    places = {path.relative_to(root) for path in paths}
    return {place.as_posix() for place in places if "circle" not in place.parts}


def test_a_file_that_is_no_index_is_refused(tmp_path):
    root = with_images(tmp_path / "a", "sub-01/anat/sub-01")
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "layout_index.sqlite").write_text("no database at all, but a text")
    with pytest.raises(DatasetError, match="not readable as a pybids index"):
        stems(root, database=tmp_path / "db")


def test_a_folder_and_a_name_of_different_sessions_are_refused(tmp_path):
    """Their results would go to one place."""
    root = with_images(
        tmp_path / "a",
        "sub-01/ses-1/anat/sub-01",
        "sub-01/ses-2/anat/sub-01",
        "sub-02/ses-1/anat/sub-02_ses-2",
        "sub-03/anat/sub-03_ses-1",
        "sub-04/ses-1/anat/sub-04_ses-1",
    )
    assert stems(root) == ["sub-04_ses-1"]
    reasons = refused(root)
    assert len(reasons) == 4
    why = reasons["sub-02/ses-1/anat/sub-02_ses-2_T1w.nii.gz"]
    assert why == "it lies in sub-02/ses-1/anat but its name says ses-2; rename or move it"
    assert "no session" in reasons["sub-01/ses-1/anat/sub-01_T1w.nii.gz"]
    done = run_cli("hetseg", root, tmp_path / "out", "participant", "--dry-run")
    assert done.code == 1
    assert done.out.strip() == str(root / "sub-04/ses-1/anat/sub-04_ses-1_T1w.nii.gz")
    assert done.err.count("rename or move it") == 4


def test_images_in_the_wrong_place_are_named_and_left_out(tmp_path, caplog):
    misplaced = ["backup/sub-01/anat", "sub-01/func", "sub-01", "sub-01/anat/old", "sub-02/anat"]
    places = [f"{folder}/sub-01" for folder in ("sub-01/anat", *misplaced)]
    root = with_images(tmp_path / "a", *places)
    assert stems(root) == ["sub-01"]
    assert caplog.text.count("left out") == 5
    for folder in misplaced:
        assert f"{root}/{folder}/sub-01_T1w.nii.gz'" in caplog.text


def test_names_that_some_drives_cannot_tell_apart_are_refused(tmp_path):
    names = ("sub-a/anat/sub-a", "sub-A/anat/sub-A", "sub-b/anat/sub-b_acq-x", "sub-c/anat/sub-c")
    root = with_images(tmp_path / "a", *names, "sub-b/anat/sub-b_acq-X")
    assert stems(root) == ["sub-c"]
    assert len(refused(root)) == 4
    (why,) = refused(root, participants=("a",)).values()  # also where the other isn't asked for
    assert "sub-A_T1w.nii.gz differ in upper and lower case only" in why


def test_only_magnitude_images_are_segmented(tmp_path, caplog):
    names = [f"sub-01/anat/sub-01_part-{part}" for part in ("mag", "phase", "real", "imag")]
    root = with_images(tmp_path / "a", *names)
    assert stems(root) == ["sub-01_part-mag"]
    assert caplog.text.count("not a magnitude image") == 3
    for part in ("phase", "real", "imag"):
        assert f"sub-01_part-{part}_T1w.nii.gz" in caplog.text


def test_uniform_images_are_found_when_asked_for_and_never_share_a_name_with_a_t1w(tmp_path):
    root = with_images(tmp_path / "a", "sub-01/anat/sub-01_run-1", "sub-01/anat/sub-01_mod-UNIT1")
    for name in ("run-1_UNIT1.nii.gz", "run-1_inv-1_MP2RAGE.nii.gz"):
        (root / "sub-01" / "anat" / f"sub-01_{name}").touch()
    database = {"database": tmp_path / "db"}
    for more in ({}, database, database):
        assert stems(root, **more) == ["sub-01_run-1"]
        assert stems(root, suffix="UNIT1", **more) == ["sub-01_run-1_mod-UNIT1"]
    (root / "sub-01" / "anat" / "sub-01_run-1_T1w.nii.gz").unlink()
    done = run_cli("hetseg", root, tmp_path / "out", "participant", "--dry-run")
    assert done.code == 2
    assert "no sub-*/[ses-*/]anat/*_T1w.nii[.gz]; --suffix UNIT1 takes the UNIT1 images" in done.err
    done = run_cli("hetseg", root, tmp_path, "participant", "--dry-run", "--suffix", "UNIT1")
    assert done.out.strip() == str(root / "sub-01" / "anat" / "sub-01_run-1_UNIT1.nii.gz")
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"t1w": {"suffix": "UNIT1"}}))
    with pytest.raises(OptionError, match="give --suffix UNIT1"):
        stems(root, filter_file=path)


def test_the_first_of_a_session_goes_by_numbers(tmp_path):
    runs = [f"sub-01/ses-{s}/anat/sub-01_ses-{s}_run-{run}" for s in "12" for run in ("9", "10")]
    root = with_images(tmp_path / "a", *runs, "sub-02/anat/sub-02", "sub-02/anat/sub-02_acq-b")
    assert len(stems(root)) == len(stems(root, choose="best")) == 6
    assert stems(root, choose="first") == ["sub-01_ses-1_run-9", "sub-01_ses-2_run-9", "sub-02"]


def test_labels_are_no_numbers_but_runs_are(tmp_path):
    names = [f"sub-0{n}/ses-0{n}/anat/sub-0{n}_ses-0{n}_run-0{n}" for n in (1, 2)]
    root = with_images(tmp_path / "a", *names)
    assert stems(root, runs=("1",)) == stems(root, sessions=("01",)) == ["sub-01_ses-01_run-01"]
    for selection in ({"sessions": ("1",)}, {"participants": ("1",)}):
        with pytest.raises(DatasetError, match="no "):
            stems(root, **selection)
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"t1w": {"subject": "1"}}))
    with pytest.raises(DatasetError, match="no T1w image matches"):
        stems(root, filter_file=path)


def test_an_entity_that_a_name_has_twice_is_no_bids_name(tmp_path, caplog):
    root = with_images(tmp_path / "a", "sub-01/anat/sub-01_sub-02", "sub-03/anat/sub-03")
    assert stems(root) == ["sub-03"]
    assert "not the BIDS name" in caplog.text


def test_labels_may_hold_a_plus(tmp_path):
    stem = "sub-a+b_ses-x+y_acq-p+q"
    root = with_images(tmp_path / "a", f"sub-a+b/ses-x+y/anat/{stem}", "sub-a/anat/sub-a")
    wanted = ("--participant-label", "sub-a+b", "--session-label", "x+y")
    done = run_cli("hetseg", root, tmp_path / "out", "participant", "--dry-run", *wanted)
    assert done.code == 0, done.err
    assert done.out.strip().endswith(f"sub-a+b/ses-x+y/anat/{stem}_T1w.nii.gz")
    for _ in range(2):
        assert stems(root, database=tmp_path / "db") == ["sub-a", stem]
    assert stems(root, participants=("a",)) == ["sub-a"]


@pytest.fixture(scope="module")
def sessions(tmp_path_factory) -> Path:
    names = ("sub-01/ses-1/anat/sub-01_ses-1", "sub-01/ses-2/anat/sub-01_ses-2_run-01")
    root = tmp_path_factory.mktemp("sessions") / "bids"
    with_images(root, *names, "sub-02/ses-1/anat/sub-02_ses-1")
    (root / "sub-03" / "ses-1" / "func").mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("selection", "count", "message"),
    [
        ({"participants": ("01", "98", "99")}, 2, "no participant sub-98, sub-99"),
        ({"participants": ("01", "03")}, 2, "no T1w image of sub-03"),
        (
            {"participants": ("01", "02"), "sessions": ("2",)},
            1,
            "sub-02 has no T1w image of ses-2 (there: sub-02_ses-1_T1w.nii.gz)",
        ),
        ({"sessions": ("1", "9")}, 2, "no T1w image of ses-9"),
        ({"runs": ("1", "9")}, 1, "no T1w image of run-9"),
    ],
)
def test_what_is_missing_is_said_and_the_others_are_found(
    sessions, caplog, selection, count, message
):
    assert len(stems(sessions, **selection)) == count
    assert f"{message}" in caplog.text


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"participants": ("98", "99")}, "no participant sub-98, sub-99"),
        ({"participants": ("02",), "sessions": ("2",)}, "sub-02 has no T1w image of ses-2"),
        ({"sessions": ("9",)}, "no T1w image of ses-9"),
    ],
)
def test_when_nothing_is_left_the_reason_is_said(sessions, selection, message):
    with pytest.raises(DatasetError, match=message):
        stems(sessions, **selection)


def test_a_wrong_label_among_good_ones_is_a_warning(sessions, tmp_path):
    command = ("hetseg", sessions, tmp_path / "out", "participant", "--dry-run")
    some = run_cli(*command, "--participant-label", "01", "99")
    assert (some.code, some.out.count("\n")) == (0, 2)
    assert "no participant sub-99" in some.err


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"session": "2"}, ["sub-01_ses-2_run-01"]),
        ({"run": None}, ["sub-01_ses-1", "sub-02_ses-1"]),
        ({"run": "Query.NONE", "session": ["1", "2"]}, ["sub-01_ses-1", "sub-02_ses-1"]),
        ({"run": "*"}, ["sub-01_ses-2_run-01"]),
        ({"run": 1}, ["sub-01_ses-2_run-01"]),
        ({"run": "run-1"}, ["sub-01_ses-2_run-01"]),
        ({"subject": "sub-01", "session": "ses-1"}, ["sub-01_ses-1"]),
        ({"session": ["ses-2", "1"], "subject": "01"}, ["sub-01_ses-1", "sub-01_ses-2_run-01"]),
        ({"run": [None, 1], "subject": "01"}, ["sub-01_ses-1", "sub-01_ses-2_run-01"]),
        ({"run": "Query.OPTIONAL", "suffix": "bold", "subject": "02"}, ["sub-02_ses-1"]),
    ],
)
def test_filter_files_are_read_as_fmriprep_does(sessions, tmp_path, wanted, expected):
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"t1w": wanted}))
    assert stems(sessions, filter_file=path) == expected


def test_a_filter_file_for_other_images_only_leaves_all_t1w(sessions, tmp_path, caplog):
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"bold": {"task": "rest"}}))
    with caplog.at_level("INFO"):
        assert stems(sessions, filter_file=path) == stems(sessions)
    assert 'no entry "t1w"' in caplog.text


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"sesion": "1", "suffix": "T1w"}, r"unknown entities \['sesion'\]; use subject, session"),
        (["ses-1"], '"t1w" isn\'t an object'),
    ],
)
def test_a_filter_that_is_none_is_named(sessions, tmp_path, wanted, message):
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"t1w": wanted}))
    with pytest.raises(OptionError, match=message):
        stems(sessions, filter_file=path)


def test_a_dataset_below_folders_named_like_entities_is_searched_by_its_own_names(tmp_path):
    root = with_images(tmp_path / "sub-pilot" / "ses-9" / "bids", "sub-01/anat/sub-01")
    assert stems(root, participants=("01",)) == ["sub-01"]
    with pytest.raises(DatasetError, match="no T1w image of ses-9"):
        stems(root, sessions=("9",))


@pytest.mark.slow
def test_large_datasets_are_found_in_time(tmp_path):
    root = many(tmp_path / "bids", 1000)
    database = tmp_path / "db"
    began = time.process_time()
    assert len(stems(root, database=database)) == 2000
    # processor time: other tests run beside this one; 60 s for 10,000 subjects
    assert time.process_time() - began < 6
    began = time.process_time()
    assert len(stems(root, database=database)) == 2000
    assert time.process_time() - began < 1
    began = time.process_time()
    assert len(stems(root, participants=("00500",))) == 2
    assert time.process_time() - began < 2
    done = run_cli(
        "hetseg", root, tmp_path / "o", "participant", "--dry-run", "--participant-label", "00500"
    )
    assert done.out.count("\n") == 2
