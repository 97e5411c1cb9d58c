#!/bin/sh
# On a CPU, torch.sigmoid, silu, softplus and pow give another last bit for the same number when the
# number of threads changes, when the tensor is cut into pieces, or (but for pow) when its values don't
# lie side by side in memory. The main loop of each thread's share uses a vector formula, the last few
# values and strided ones a scalar formula. torch.exp, log, log1p and erfc don't: 1 / (1 + exp(-x)) is
# the same bits always.
#
# The guess: an elementwise function of a number is a function of that number; only sums depend on the
# number of threads.
#
# Version: torch 2.13.0, x86-64 with AVX2 or AVX-512.
# Source: measured; ATen/native/cpu/Loops.h (vectorized_loop) calls `op` for the rest and `vop` before it.
# Date: 2026-11-29
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.*' 'numpy==2.*'
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch

torch.manual_seed(0)
x = 4 * torch.randn(1_000_003)
strided = torch.empty(3 * len(x))[::3].copy_(x)
functions = {
    "sigmoid": torch.sigmoid,
    "silu": torch.nn.functional.silu,
    "softplus": torch.nn.functional.softplus,
    "pow": lambda v: v.abs().pow(0.3),
    "exp": torch.exp,
    "log1p": lambda v: torch.log1p(v.abs()),
    "1 / (1 + exp(-x))": lambda v: 1 / (1 + torch.exp(-v)),
}
changed = {}
print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability())
print("of 1,000,003 values, those with another last bit than on one thread, in one piece:")
for name, function in functions.items():
    torch.set_num_threads(1)
    alone = function(x)
    pieces = int((torch.cat([function(part) for part in x.split(777)]) != alone).sum())
    apart = int((function(strided) != alone).sum())
    threads = {}
    for count in (2, 3, 5):
        torch.set_num_threads(count)
        threads[count] = int((function(x) != alone).sum())
    changed[name] = pieces + apart + sum(threads.values())
    print(f"{name:18} on 2, 3, 5 threads {list(threads.values())}, in pieces {pieces}, strided {apart}")
depend = {name for name, count in changed.items() if count}
sys.exit(depend != {"sigmoid", "silu", "softplus", "pow"})
PYTHON
