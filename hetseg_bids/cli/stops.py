"""SIGINT and SIGTERM unwind a run, which removes temporary files and ends workers."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SIGNALLED = 128  # plus the number of the signal, as shells have it
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
        self.code = _SIGNALLED + number


@contextmanager
def raised() -> Iterator[None]:
    """Here `Stop` is raised in the main thread when SIGINT or SIGTERM arrives.

    Python drops what is raised in a finaliser or a weak reference's callback, and some libraries
    catch everything. So it is raised again until the program unwinds. Other threads may not handle
    signals: nothing changes there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def first(number: int, _: FrameType | None) -> NoReturn:
        came.append(number)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # unwinding must not be interrupted
        # not print: the signal may have come in the middle of one
        os.write(2, b"hetseg: stopping\n")
        _silence_dropped()
        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S, _AGAIN_S)
        raise Stop(number)

    def again(_: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if not _is_unwinding(sys.exception()):
            raise Stop(came[0])

    before = {number: signal.signal(number, first) for number in _SIGNALS}
    try:
        yield
    finally:
        if came:
            signal.setitimer(signal.ITIMER_REAL, 0)
        else:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


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
