"""SIGINT and SIGTERM unwind a run, which removes temporary files and ends workers."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

STOPPED = 128  # plus the number of the signal: the exit code, as shells have it
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_S = 0.2


class Stop(BaseException):
    """A signal asked for the end.

    Attributes
    ----------
    code : int
        Exit code of the command.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = STOPPED + number


def raise_on_signals() -> None:
    """From here on `Stop` is raised in the main thread when SIGINT or SIGTERM arrives.

    Python drops what is raised in a finaliser or a weak reference's callback, and some libraries
    catch everything. So it is raised again until the program unwinds. Does nothing in other
    threads, which may not handle signals.
    """
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, _first)


def unwound() -> None:
    """To be called once a `Stop` has arrived where it ends: it isn't raised again."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def _first(number: int, _: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # unwinding must not be interrupted
    # not print: the signal may have come in the middle of one
    os.write(2, b"hetseg: stopping\n")

    def again(*_: object) -> None:
        if not _is_unwinding(sys.exception()):
            raise Stop(number)

    _silence_dropped()
    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S, _AGAIN_S)
    raise Stop(number)


def _is_unwinding(handled: BaseException | None) -> bool:
    # an error that clean-up met and handles has the stop as its context; a generator that nobody
    # closed ends without
    while handled is not None and not isinstance(handled, Stop | GeneratorExit):
        handled = handled.__context__
    return handled is not None


def _silence_dropped() -> None:
    hook = sys.unraisablehook

    def but_stops(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, Stop):
            hook(dropped)

    sys.unraisablehook = but_stops
