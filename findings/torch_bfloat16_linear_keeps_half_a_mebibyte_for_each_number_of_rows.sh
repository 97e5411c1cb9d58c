#!/usr/bin/env bash
# torch.nn.functional.linear of bfloat16 rows on a CPU keeps about 0.6 MiB for every number of rows that it has
# seen: 400 batches of different sizes hold 250 MiB that 400 batches of one size don't need, and it ends at 0.9 GiB
# after about 1,500 sizes. One would guess that a product of an (N, 16) by a (16, 78) matrix, 3 MB at most, keeps
# nothing, as it does in float32 and as a 1 x 1 convolution of images of different sizes does. Work on sets of
# pixels or points whose number differs each time (a mask's voxels in each slice) looks like a leak. Multiples of
# 1,024 rows, the rest filled up, are few sizes.
#
# Version: torch 2.13.0 (CPU), x86-64 with AVX512-BF16. Without such instructions the script says so and ends.
# Source: measured. oneDNN makes a kernel for each shape and PyTorch caches it; with
# ONEDNN_PRIMITIVE_CACHE_CAPACITY=0 half of it still stays.
# Date: 2026-12-01
#
# hetseg fills up to multiples of 1,024 pixels (hetseg_bids/network/architecture.py): a scan took 270 MiB more without.
set -eu
grep -q avx512_bf16 /proc/cpuinfo || { echo "no AVX512-BF16 on this CPU: nothing to see"; exit 0; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.*' 'numpy==2.*'
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from pathlib import Path

import torch
from torch.nn import functional

torch.set_num_threads(1)
weight, bias = torch.randn(78, 16), torch.randn(78)


def held_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 / 1024


def growth(kind, sizes):
    x, parameters = torch.randn(20_000, 16).to(kind), (weight.to(kind), bias.to(kind))
    with torch.inference_mode():
        for _ in range(3):
            functional.linear(x, *parameters)
        before = held_mib()
        for size in sizes:
            functional.linear(x[:size], *parameters)
    return held_mib() - before


print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability())
one, many = [19_000] * 400, range(18_000, 19_200, 3)
found = {
    "float32, 400 sizes": growth(torch.float32, many),
    "bfloat16, one size, 400 times": growth(torch.bfloat16, one),
    "bfloat16, 400 sizes": growth(torch.bfloat16, many),
    "bfloat16, 2,000 further sizes": growth(torch.bfloat16, range(1_000, 17_000, 8)),
}
for what, mib in found.items():
    print(f"{what}: {mib:+.0f} MiB")
few, same, first, later = found.values()
sys.exit(not (few < 90 and same < 30 and first > 100 and later > 300))
PYTHON
