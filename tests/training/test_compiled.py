"""Compiled code of one run doesn't spoil that of another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from hetseg_bids.training.compiled import FOLDER_NAME, compiled_code

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@pytest.fixture(autouse=True)
def _chosen_by_nobody(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def test_code_is_kept_in_the_folder_of_the_run(tmp_path):
    with compiled_code(tmp_path):
        doubled = torch.compile(lambda x: torch.sin(x) * 2, fullgraph=True)
        torch.testing.assert_close(doubled(torch.ones(50)), 2 * torch.ones(50).sin())
    made = set((tmp_path / FOLDER_NAME).rglob("*.so"))
    assert made
    assert VARIABLE not in os.environ
    with compiled_code(tmp_path):
        assert made <= set((tmp_path / FOLDER_NAME).rglob("*.so"))  # and used again


def leave_half(out: Path, library: Path) -> None:
    with compiled_code(out):
        library.parent.mkdir()
        library.write_bytes(b"half")
        raise KeyboardInterrupt


def test_code_of_a_run_that_was_killed_is_made_anew(tmp_path):
    half = tmp_path / FOLDER_NAME / "4a" / "c4a.main.so"
    with pytest.raises(KeyboardInterrupt):
        leave_half(tmp_path, half)
    assert VARIABLE not in os.environ
    with compiled_code(tmp_path):
        assert not half.parent.exists()


def test_a_folder_that_the_user_chose_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "chosen"))
    with compiled_code(tmp_path):
        assert os.environ[VARIABLE] == str(tmp_path / "chosen")
    assert os.environ[VARIABLE] == str(tmp_path / "chosen")
    assert not (tmp_path / FOLDER_NAME).exists()
