"""The network in other inference engines: time against PyTorch as hetseg runs it, and deviation.

    python benchmarks/backends.py T1W OUT [--model NAME] [--threads N] [--repeats 9]

Needs `pip install onnx onnxscript onnxruntime openvino` besides hetseg. Runs one pass of the
axial view (8 slices at the middle of the brain) in each engine, in turns, so that the ratios
hold on a machine that isn't idle. Writes OUT/backends.tsv.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino
import pandas as pd
import torch
from torch import Tensor, nn

from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.network.architecture import HetsegNet
from hetseg_bids.network.devices import autocast, set_threads
from hetseg_bids.network.models import load_model
from hetseg_bids.preprocessing.pipeline import prepare_image
from hetseg_bids.structures.aseg import N_STRUCTURES

_SLICES = 8
_MULTIPLE = 4
_CPU = torch.device("cpu")

Engine = Callable[[Tensor], npt.NDArray[np.float32]]


class Block(nn.Module):
    """`HetsegNet.forward_block` as a module of its own, for the exporters."""

    def __init__(self, network: HetsegNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, block: Tensor) -> Tensor:
        """(D, H, W) to (D - 2 reach, n_outputs, H, W)."""
        return self.network.forward_block(block)


def main() -> None:
    """Build the engines, run them in turns, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("t1w", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="label-flip")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    set_threads(args.threads)
    network = Block(load_model(args.model, _CPU).network)
    block = middle_block(args.t1w, _SLICES + 2 * network.network.config.reach)
    args.out.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        truth = network(block).numpy()
    rows = []
    engines = build(network, block, args.out / "network.onnx", args.threads)
    seconds = time_in_turns(engines, block, args.repeats)
    for name, engine in engines.items():
        found = engine(block)
        label, right = found[:, :N_STRUCTURES] > 0, truth[:, :N_STRUCTURES] > 0
        dice = 2 * (label & right).sum() / (label.sum() + right.sum())
        ratio = np.array(seconds[name]) / np.array(seconds["PyTorch, bfloat16"])
        rows.append(
            {
                "engine": name,
                "ratio": np.median(ratio),
                "low": ratio.min(),
                "high": ratio.max(),
                "median_s": np.median(seconds[name]),
                "dice_to_float32": dice,
                "mean_logit_deviation": np.abs(found - truth).mean(),
            }
        )
    table = pd.DataFrame(rows).round(4)
    write_table(table, args.out / "backends.tsv")
    print(table.to_string(index=False))


def middle_block(t1w: Path, slices: int) -> Tensor:
    """Slices from the middle of the brain, standard scores, (slices, H, W)."""
    scan = prepare_image(t1w)
    places = torch.nonzero(scan.mask)
    low, high = places.min(dim=0).values, places.max(dim=0).values + 1
    size = (high - low) // _MULTIPLE * _MULTIPLE
    start = int((low[2] + high[2] - slices) // 2)
    box = scan.image[low[0] : low[0] + size[0], low[1] : low[1] + size[1], start : start + slices]
    return box.permute(2, 0, 1).contiguous()


def build(network: Block, block: Tensor, onnx: Path, threads: int) -> dict[str, Engine]:
    """Every engine by name, PyTorch as hetseg runs it first."""

    def bf16(x: Tensor) -> npt.NDArray[np.float32]:
        with torch.inference_mode(), autocast(_CPU):
            return network(x).float().numpy()

    def fp32(x: Tensor) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return network(x).numpy()

    compiled = torch.compile(network)

    def inductor(x: Tensor) -> npt.NDArray[np.float32]:
        with torch.no_grad(), autocast(_CPU):
            return compiled(x).float().numpy()

    with torch.no_grad():
        torch.onnx.export(network, (block,), onnx, dynamo=True, external_data=False, verbose=False)
    engines = {"PyTorch, bfloat16": bf16, "PyTorch, float32": fp32}
    engines["torch.compile, bfloat16"] = inductor
    engines["ONNX Runtime, float32"] = onnx_runtime(onnx, threads)
    for precision in ("bf16", "f32"):
        engines[f"OpenVINO, {precision}"] = open_vino(onnx, precision, threads)
    return engines


def onnx_runtime(onnx: Path, threads: int) -> Engine:
    """ONNX Runtime on the CPU; it has no bfloat16 convolutions there."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: np.asarray(session.run(None, {name: x.numpy()})[0])


def open_vino(onnx: Path, precision: str, threads: int) -> Engine:
    """OpenVINO on the CPU."""
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(str(onnx), "CPU", settings)
    return lambda x: np.asarray(model(x.numpy())[0])


def time_in_turns(
    engines: dict[str, Engine], block: Tensor, repeats: int
) -> dict[str, list[float]]:
    """Seconds of each pass; every engine once a turn, two turns to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(repeats + 2):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(block)
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
