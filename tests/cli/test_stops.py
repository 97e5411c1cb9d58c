"""A signal ends the program, whatever swallows its exception, and lets clean-up finish."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import contextlib, gc, os, signal, sys, time, weakref
from hetseg_bids.cli import stops

NUMBER = signal.{name}

def stop_me():
    os.kill(os.getpid(), NUMBER)
    time.sleep(0.1)

class Finalised:
    def __del__(self):
        stop_me()

def in_finaliser():
    Finalised()

def in_weak_reference():
    thing = set()
    kept = weakref.ref(thing, lambda _: stop_me())
    del thing

def in_bare_except():
    try:
        stop_me()
    except:
        pass

def twice():
    in_bare_except()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            time.sleep(1)
        except:
            pass

def plainly():
    stop_me()

@contextlib.contextmanager
def cleaned():
    try:
        yield
    finally:
        for _ in range(12):
            try:
                os.unlink("/no/such/file")
            except FileNotFoundError:
                time.sleep(0.05)
        print("cleaned", flush=True)

def generated():
    try:
        yield
    finally:
        time.sleep(0.6)
        print("closed", flush=True)

def work():
    with cleaned():
        for _ in generated():
            {where}()
            time.sleep(30)
            print("went on")

try:
    with stops.raised():
        work()
except stops.Stop as stop:
    time.sleep(0.5)
    sys.exit(stop.code)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    "where", ["plainly", "in_finaliser", "in_weak_reference", "in_bare_except", "twice"]
)
def test_stop_is_not_lost(name, where):
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(name=name, where=where)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == {"SIGINT": 130, "SIGTERM": 143}[name], done.stderr
    assert done.stdout.split() == ["closed", "cleaned"]
    assert done.stderr == "hetseg: stopping\n"


def test_a_failing_clean_up_ends_it_too():
    program = """
import os, signal, sys, time
from hetseg_bids.cli import stops
try:
    with stops.raised():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        finally:
            time.sleep(0.5)
            raise OSError("disk full")
except OSError as error:
    time.sleep(0.5)
    print(error, type(error.__context__).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "disk full Stop\n"), done.stderr
