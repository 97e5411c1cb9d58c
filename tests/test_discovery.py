"""Which images are found, in small and large datasets, with and without a database."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import run_cli, write_dataset

from hetseg_bids.config import Selection
from hetseg_bids.discovery import find_scans


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
    return [scan.stem for scan in find_scans(root, Selection(**selection))]


def test_t1w_images_and_nothing_else_are_found(dataset):
    assert len(stems(dataset)) == 11
    assert stems(dataset, participants=("00003",)) == [f"sub-00003_ses-{s}" for s in (1, 2)]
    assert stems(dataset, runs=("2",)) == ["sub-00000_ses-1_acq-b_run-2"]
    (scan,) = find_scans(dataset, Selection(participants=("00002",), sessions=("2",)))
    assert (scan.subject, scan.session) == ("00002", "2")
    assert str(scan.anat_folder) == "sub-00002/ses-2/anat"


def test_a_database_is_made_whole_and_used_by_single_subject_jobs(dataset, tmp_path):
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
