#!/bin/sh
# torch.compile finds out what vector instructions a CPU has by compiling a tiny library for each kind and loading it. These
# stay in its cache, which all programs of a user share (/tmp/torchinductor_USER). A compiler that was killed with its job, or
# whose disk was full, leaves half of a library under its final name. It is never compiled again: whoever compiles
# later, also another program weeks after, gets code without these instructions, several times as slow, with other rounding, and
# without a warning. (Half of a library with the code itself ends the program that loads it.)
#
# The guess: a library gets its name when it is complete, or one that can't be loaded is compiled again.
#
# hetseg: `hetseg-train --compile` keeps compiled code in the folder of the run, and makes it anew after a run that
# didn't end by itself (hetseg_bids/training/compiled.py).
#
# Version: torch 2.13.0, x86-64, g++.
# Source: measured; torch/_inductor/cpu_vec_isa.py (check_build).
# Date: 2026-12-01
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
command -v g++ > /dev/null || { echo "needs g++"; exit 2; }
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.*' 'numpy==2.*'
cat > "$folder/compiled.py" <<'PYTHON'
import time

import torch
from torch._inductor.cpu_vec_isa import pick_vec_isa

torch.set_num_threads(1)
x = torch.randn(2**18)


@torch.compile
def changed(x):
    return torch.exp(-x * x) / (1 + x.abs())


changed(x)
times = []
for _ in range(40):
    start = time.process_time()
    changed(x)
    times.append(time.process_time() - start)
print(f"{1000 * min(times):.3f} {pick_vec_isa()}")
PYTHON
run() {
    TORCHINDUCTOR_CACHE_DIR="$folder/$1" "$folder/venv/bin/python" "$folder/compiled.py"
}
before=$(run cache)
echo "milliseconds and instructions, whole libraries: $before"
# what is left of tiny libraries whose compiler was stopped; the cache holds nothing else
mkdir "$folder/again"
TORCHINDUCTOR_CACHE_DIR="$folder/again" "$folder/venv/bin/python" -c \
    'from torch._inductor.cpu_vec_isa import pick_vec_isa; pick_vec_isa()'
find "$folder/again" -name '*.so' -exec truncate -s 20 {} +
after=$(run again)
echo "after the compiler of the tiny ones was stopped: $after"
"$folder/venv/bin/python" - "$before" "$after" <<'PYTHON'
import sys

(fast, *known), (slow, *found) = (text.split() for text in sys.argv[1:])
sys.exit(not (known and known != found and float(slow) > 1.5 * float(fast)))
PYTHON
