"""A process that has imported what the commands import, and forks for each call of one.

`python -m support.fork_server` reads calls as JSON lines and answers each with its exit code.
A fork runs the command's module as `python -m` does, with arguments, folder, output and exit of
its own. It need not import torch, pybids and matplotlib again, which takes three seconds.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import sys
from typing import Any

# everything but the modules that are run as __main__
_PRELOADED = (
    "bids.layout",
    "deepbet",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "nilearn.datasets",
    "torch._dynamo",  # optimisers import it
    "hetseg_bids.evaluation.compare",
    "hetseg_bids.outputs.freesurfer",
    "hetseg_bids.runs.group",
    "hetseg_bids.runs.participants",
    "hetseg_bids.runs.scan",
    "hetseg_bids.training.session",
)


def serve() -> dict[str, Any]:
    """Answer calls until there are no more; returns, in a fork, the call that it is for."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy every page
    for line in sys.stdin:
        call = json.loads(line)
        child = os.fork()
        if child == 0:
            return call
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
    sys.exit()


def become(call: dict[str, Any]) -> None:
    """Take on the environment, the arguments, the folder and the files of a call."""
    os.environ.clear()
    os.environ.update(call["environment"])
    for target, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, call["stdout"], os.O_WRONLY | os.O_CREAT),
        (2, call["stderr"], os.O_WRONLY | os.O_CREAT),
    ):
        opened = os.open(name, flags, 0o600)
        os.dup2(opened, target)
        os.close(opened)
    os.chdir(call["folder"])
    sys.path[0] = call["folder"]
    sys.argv[1:] = call["arguments"]


if __name__ == "__main__":
    CALL = serve()
    become(CALL)
    runpy.run_module(CALL["module"], run_name="__main__", alter_sys=True)
