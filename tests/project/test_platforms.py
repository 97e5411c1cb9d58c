"""Branches for systems that the tests don't run on, as far as they can be imitated."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from hetseg_bids.errors import HeldError
from hetseg_bids.files import write_tsv
from hetseg_bids.network import devices
from hetseg_bids.runs.locks import claimed


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_memory_of_systems_without_glibc_is_left_alone(monkeypatch, system):
    def no_library(name: str | None) -> None:
        raise TypeError(name)  # as on Windows for None

    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    devices.keep_freed_memory()
    with devices.sparing_memory():
        devices.return_freed_memory()


def test_a_lock_file_that_can_not_be_removed_while_it_is_open(monkeypatch, tmp_path):
    def refuse(self: Path, missing_ok: bool = False) -> None:  # noqa: ARG001
        raise PermissionError(13, "in use", str(self))

    lock = tmp_path / ".sub-01.lock"
    with monkeypatch.context() as windows:
        windows.setattr(Path, "unlink", refuse)
        with claimed(lock, tmp_path), pytest.raises(HeldError), claimed(lock, tmp_path):
            pass
    with claimed(lock, tmp_path):  # it was released all the same
        pass
    assert not lock.exists()


def test_tables_have_the_same_bytes_where_lines_end_otherwise(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "linesep", "\r\n")
    write_tsv(tmp_path / "a.tsv", pd.DataFrame({"name": ["brainstem"]}))
    assert (tmp_path / "a.tsv").read_bytes() == b"name\nbrainstem\n"
