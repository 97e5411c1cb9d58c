#!/bin/sh
# On a CPU, group_norm with one channel a group (instance norm) of a channels_last tensor takes several times
# longer (20 times on an Intel Xeon) for maps of 22 x 18 pixels than for maps of 44 x 36, four times as many. Below 1024 pixels
# a kernel is taken that walks through each channel by itself, a cache line a value; from 1024 on another that reads
# memory in order. A network that works at a coarser resolution to be faster can become slower. In the
# contiguous order, time follows the number of pixels.
#
# The guess: a quarter of the pixels takes a quarter of the time, or a little more.
#
# hetseg: its networks stop at a quarter of the resolution (44 x 36 pixels); one that went on to an eighth was
# slower than its multiply-adds promised.
#
# Version: torch 2.13.0, x86-64.
# Source: measured; ATen/native/cpu/group_norm_kernel.cpp (feature_map_threshold = 1024).
# Date: 2026-11-30
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.*' 'numpy==2.*'
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import time

import torch
from torch.nn import functional

torch.manual_seed(0)
torch.set_num_threads(1)
channels = 160


def milliseconds(shape, order):
    x = torch.randn(8, channels, *shape).bfloat16().contiguous(memory_format=order)
    with torch.inference_mode():
        times = []
        for _ in range(15):
            start = time.process_time()
            functional.group_norm(x, channels)
            times.append(time.process_time() - start)
    return 1000 * min(times)


print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability())
ratios = {}
for name, order in (("channels_last", torch.channels_last), ("contiguous", torch.contiguous_format)):
    small, large = (milliseconds(shape, order) for shape in ((22, 18), (44, 36)))
    ratios[name] = small / large
    print(f"{name}: 22 x 18 pixels {small:.2f} ms, 44 x 36 pixels {large:.2f} ms")
sys.exit(not (ratios["channels_last"] > 1.5 and ratios["contiguous"] < 1))
PYTHON
