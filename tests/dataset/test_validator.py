"""The BIDS validator, or a program in its place, beside a run."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hetseg_bids.dataset import validator


def fake_validator(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    program = folder / "validator"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setattr(validator, "_program", lambda: str(program))
    return program


@pytest.mark.parametrize("script", ["exec sleep 100", "sleep 100; echo"])
def test_a_run_that_ends_early_ends_the_validator(tmp_path, monkeypatch, script):
    fake_validator(tmp_path, monkeypatch, f"#!/bin/sh\n{script}\n")
    heard: list[str] = []

    def interrupted_run() -> None:
        with validator.validated(tmp_path, heard.append):
            time.sleep(0.5)  # a shell starts what it waits for
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted_run()
    assert not heard
    assert time.monotonic() - begun < 50


WAITING = """
import signal, sys
from pathlib import Path
from hetseg_bids.dataset import validator

validator._program = lambda: sys.argv[1]
signal.signal(signal.SIGINT, signal.default_int_handler)  # parallel tests ignore it
with validator.validated(Path(), print):
    pass
"""


def test_a_run_that_only_waits_for_the_validator_can_be_stopped(tmp_path, monkeypatch):
    script = '#!/bin/sh\necho $$ >"$0.pid"\nexec sleep 100\n'
    program = fake_validator(tmp_path, monkeypatch, script)
    command = [sys.executable, "-c", WAITING, str(program)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    begun, noted = time.monotonic(), program.with_suffix(".pid")
    while not (noted.exists() and noted.read_text()) and time.monotonic() - begun < 60:
        time.sleep(0.05)
    time.sleep(0.5)  # until it waits
    run.send_signal(signal.SIGINT)
    heard, said = run.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    assert not heard
    begun = time.monotonic()
    while psutil.pid_exists(int(noted.read_text())) and time.monotonic() - begun < 20:
        time.sleep(0.05)
    assert not psutil.pid_exists(int(noted.read_text()))


def test_ctrl_c_comes_to_hetseg_which_ends_the_validator(tmp_path, monkeypatch):
    """Else the validator ended first, and its missing answer was complained of."""
    answer = 'print(json.dumps({"issues": {"issues": [{"severity": "error", "code": code}]}}))'
    script = "import json, os\ncode = os.getpgrp() == os.getpid()"
    fake_validator(tmp_path, monkeypatch, f"#!{sys.executable}\n{script}\n{answer}\n")
    heard: list[str] = []
    with validator.validated(tmp_path, heard.append):
        pass
    assert heard == ["the BIDS validator found True in None"]


@pytest.mark.parametrize(
    "answer", ["", "hello", "[]", '{"issues": {"issues": null}}', '{"issues": {"issues": ["x"]}}']
)
def test_an_answer_that_is_no_answer_is_told(tmp_path, monkeypatch, answer):
    fake_validator(tmp_path, monkeypatch, f"#!/bin/sh\necho '{answer}'\nexit 3\n")
    heard: list[str] = []
    with validator.validated(tmp_path, heard.append):
        pass
    assert len(heard) == 1
    assert "gave no answer" in heard[0]
