#!/bin/sh
# On a CPU, ReLU in place of 2 million bfloat16 numbers takes nearly three times as long as of as many float32
# numbers, which have twice the bytes, and six times as long as the same operation on their bits as int16 (a
# bfloat16 below 0 has the bits of an int16 below 0, so both give the same numbers). Half precision is widened to
# float32 and rounded again, although nothing is calculated; negation and abs, which don't do this, take as long as
# on int16. So a network that computes in bfloat16 because its convolutions are faster pays it back in part.
#
# The guess: ReLU is bound by memory, so bfloat16 takes half of float32's time.
#
# hetseg: on a CPU its networks take the larger of 0 and the bits (hetseg_bids/network/layers.py, Positive).
#
# Version: torch 2.13.0, x86-64 with AVX2 and with AVX-512.
# Source: measured; ATen/native/cpu/TensorCompareKernel.cpp (clamp_min) and cpu/vec (conversion of bfloat16).
# Date: 2026-12-01
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.*' 'numpy==2.*'
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import time

import torch

torch.manual_seed(0)
torch.set_num_threads(1)


def milliseconds(change):
    times = []
    for _ in range(40):
        start = time.process_time()
        change()
        times.append(time.process_time() - start)
    return 1000 * min(times)


print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability())
wide = torch.randn(2**21)
half = wide.bfloat16()
bits = half.clone().view(torch.int16)
took = {
    "float32, relu_": milliseconds(wide.relu_),
    "bfloat16, neg_": milliseconds(half.clone().neg_),
    "bfloat16, relu_": milliseconds(half.relu_),
    "int16, clamp_min_(0)": milliseconds(lambda: bits.clamp_min_(0)),
}
for name, value in took.items():
    print(f"{name}: {value:.3f} ms")
same = torch.equal(bits.view(torch.bfloat16), half)
print("the same numbers:", same)
slow = took["bfloat16, relu_"]
sys.exit(not (same and slow > 1.5 * took["float32, relu_"] and slow > 2.5 * took["int16, clamp_min_(0)"]))
PYTHON
