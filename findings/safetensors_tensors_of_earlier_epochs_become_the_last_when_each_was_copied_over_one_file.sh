#!/bin/sh
# safetensors.torch.load_file (and safe_open) reads nothing: its tensors are the file itself, mapped into memory. If another
# file is copied over it (cp, shutil.copy, rsync --inplace), tensors that were loaded before, also such as were used already,
# change without a word. A program that waits for each epoch's weights under one name, loads them, and takes the mean of all
# gets the last epoch's. A model that is served while its file is replaced changes in the middle of a scan. A file that is
# renamed over it, which save_file has done since 0.8, changes nothing; nor does any copy after safetensors.numpy.load_file or
# torch.load, which read.
#
# The guess: load_file gives numbers that are the program's own, as its name says and as torch.load and the numpy version do;
# if weights are mapped, then privately, so that a later change of the file can't be seen.
#
# hetseg: copies what it loads into its own memory (load_state_dict without assign) and writes every file under another name
# first (hetseg_bids/files.py, atomic_path). Its training can be pointed at a model that is being replaced.
#
# Version: safetensors 0.8.0, torch 2.13.0, Linux.
# Source: measured; safetensors issues 758 and 762 and pull request 759 (mapping; other symptoms of it).
# Date: 2026-12-01
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' E"latest")["weight"]IT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'safetensors==0.8.0' 'torch==2.13.*' 'numpy==2.*'
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os
import shutil
import sys

import safetensors
import safetensors.numpy
import torch
from safetensors.torch import load_file, save_file

EPOCHS = (1.0, 2.0, 6.0)


def mean_of_epochs(load, save, put):
    """Mean of the weights of three epochs, each taken from latest.* when it was new."""
    seen = []
    for epoch in EPOCHS:
        save({"weight": torch.full((1000,), epoch)}, "epoch")
        put("epoch", "latest")
        seen.append(load("latest")["weight"])
        assert float(seen[-1].mean()) == epoch  # right when it is loaded
    return float(sum(seen).mean() / len(seen))


def move(source, target):
    os.replace(source, target)


ways = {
    "safetensors.torch, copied over": (load_file, save_file, shutil.copyfile),
    "safetensors.torch, renamed over": (load_file, save_file, move),
    "safetensors.numpy, copied over": (safetensors.numpy.load_file, save_file, shutil.copyfile),
    "torch.load, copied over": (torch.load, torch.save, shutil.copyfile),
}
print("safetensors", safetensors.__version__, "torch", torch.__version__)
means = {name: mean_of_epochs(*way) for name, way in ways.items()}
for name, mean in means.items():
    print(f"{name}: mean of 1, 2 and 6 is {mean:g}")
sys.exit(list(means.values()) != [6.0, 3.0, 3.0, 3.0])
PYTHON
