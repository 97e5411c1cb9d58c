"""brainchop's 104-class model on a CPU, scored as hetseg is.

    python benchmarks/brainchop.py MODEL OUT T1W ... [--crop-by MODEL]

MODEL is a folder public/models/... of https://github.com/neuroneural/brainchop (model21_104class),
with model.json, the weights that it names and colormap.json. T1W are whole heads. As in the browser
(settings of the entries "Aparc+Aseg 104"), the box of all voxels above 0 is segmented ("Low Mem")
or, with --crop-by (model5_gw_ae), the box of what that model finds ("Fast"); of the result the
largest piece is kept.

Writes OUT/sub-X_dseg.nii.gz (ids of FreeSurfer's aseg, on the scan's grid) and, of the scans with
FreeSurfer's labels (sub-X_dseg.nii.gz) beside them, OUT/scores.tsv. Prints mean Dice, seconds and
the largest memory so far. A scan takes about a minute of one core.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from nibabel.processing import conform, resample_from_to
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from hetseg_bids.evaluation.compare import Match, evaluate, write_table
from hetseg_bids.outputs.freesurfer import freesurfer_name
from hetseg_bids.structures.aseg import WHOLE_ASEG

Labels: TypeAlias = npt.NDArray[np.uint8]

_CUBE = (256, 256, 256)
_AXES = "LIA"  # of a conformed image; the network sees them in this order
_BRIGHTEST = 0.999  # this quantile of the voxels above 0 becomes 255
_SLAB = 32  # planes that are convolved at once
_CORTEX = {"ctx-lh-": 3, "ctx-rh-": 42}
_CC = "corpus_callosum"  # SAMSEG has none, so a mean without it is printed, too


@dataclass(frozen=True)
class Convolution:
    """A 3-D convolution whose output has the size of its input.

    Attributes
    ----------
    weight : (out, in, k, k, k) tensor
    bias : (out,) tensor
    dilation : int
    """

    weight: Tensor
    bias: Tensor
    dilation: int

    def __call__(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """The planes from `start` to `stop` of the output; zeros lie around `x`.

        Parameters
        ----------
        x : (in, X, Y, Z) tensor
        start, stop : int

        Returns
        -------
        y : (out, stop - start, Y, Z) tensor
        """
        stop = x.shape[1] if stop is None else stop
        reach = self.dilation * (self.weight.shape[-1] // 2)
        first = max(start - reach, 0)
        part = x[:, first : stop + reach]
        y = functional.conv3d(part, self.weight, self.bias, 1, reach, self.dilation)
        return y[:, start - first : stop - first]


@dataclass(frozen=True)
class MeshNet:
    """A chain of convolutions with ReLU between them.

    Attributes
    ----------
    layers : tuple of Convolution
    """

    layers: tuple[Convolution, ...]

    @classmethod
    def read(cls, folder: Path) -> MeshNet:
        """Read a layers-model of TensorFlow.js.

        Parameters
        ----------
        folder : Path
            With model.json and the file of float32 weights that it names.
        """
        model = json.loads((folder / "model.json").read_text())
        (group,) = model["weightsManifest"]
        raw = b"".join((folder / name).read_bytes() for name in group["paths"])
        weights, start = {}, 0
        for w in group["weights"]:
            if w["dtype"] != "float32" or "quantization" in w:
                sys.exit(f"{folder / 'model.json'}: {w['name']} isn't float32")
            size = int(np.prod(w["shape"]))
            flat = np.frombuffer(raw, "<f4", size, start)
            weights[w["name"]] = torch.from_numpy(flat.reshape(w["shape"]).copy())
            start += flat.nbytes
        layers = model["modelTopology"]["model_config"]["config"]["layers"][1:]
        convolutions, others = layers[::2], layers[1::2]
        if not all(_is_same_convolution(c) for c in convolutions) or not all(
            o["config"].get("activation") == "relu" for o in others
        ):
            sys.exit(f"{folder / 'model.json'}: not a chain of convolutions and ReLU")
        return cls(
            tuple(
                Convolution(
                    weights[f"{c['name']}/kernel"].permute(4, 3, 0, 1, 2).contiguous(),
                    weights[f"{c['name']}/bias"],
                    c["config"]["dilation_rate"][0],
                )
                for c in convolutions
            )
        )

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Labels:
        """The most probable class of each voxel.

        Parameters
        ----------
        image : (X, Y, Z) tensor

        Returns
        -------
        classes : (X, Y, Z) uint8 array
        """
        x = image[None]
        slabs = [(i, min(i + _SLAB, len(image))) for i in range(0, len(image), _SLAB)]
        for layer in self.layers[:-1]:
            y = torch.empty((len(layer.bias), *image.shape))
            for slab in slabs:
                y[:, slice(*slab)] = layer(x, *slab).relu_()
            x = y
        classes = [self.layers[-1](x, *slab).argmax(0) for slab in slabs]
        return torch.cat(classes).numpy().astype(np.uint8)


def _is_same_convolution(layer: dict) -> bool:
    c = layer["config"]
    return (
        layer["class_name"] == "Conv3D"
        and (c["padding"], c["activation"], c["data_format"]) == ("same", "linear", "channels_last")
        and set(c["strides"]) == {1}
        and len(set(c["dilation_rate"])) == 1
    )


def main() -> None:
    """Segment, write, score and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("t1w", type=Path, nargs="+")
    parser.add_argument("--crop-by", type=Path, metavar="MODEL", help="a model that finds brain")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    network = MeshNet.read(args.model)
    cropper = args.crop_by and MeshNet.read(args.crop_by)
    ids = aseg_ids(json.loads((args.model / "colormap.json").read_text())["labels"])
    tables = []
    for t1w in args.t1w:
        clock, cpu = time.perf_counter(), time.process_time()
        dseg = args.out / t1w.name.replace("_T1w", "_dseg")
        segment(network, cropper, ids, t1w, dseg)
        wall, cpu = time.perf_counter() - clock, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        name = t1w.name.split("_")[0]
        told = f"{wall:.0f} s, {cpu:.0f} s of CPU, {peak:.1f} GiB"
        reference = t1w.with_name(dseg.name)
        if reference.is_file():
            tables.append(evaluate(Match(name, dseg, reference)))
            write_table(pd.concat(tables), args.out / "scores.tsv")
            told += f"; {_means(tables[-1])}"
        print(f"{name}: {told}", flush=True)
    if tables:
        scores = pd.concat(tables)
        print(scores.groupby("name", sort=False)["dice"].mean().round(3).to_string())
        print(_means(scores))


def _means(scores: pd.DataFrame) -> str:
    without = scores[scores["name"] != _CC]
    return (
        f"mean Dice {scores['dice'].mean():.4f} over {scores['name'].nunique()} structures, "
        f"{without['dice'].mean():.4f} over {without['name'].nunique()} without corpus callosum"
    )


def aseg_ids(names: list[str]) -> Labels:
    """FreeSurfer's ids of classes: parcels of the cortex become cortex.

    Parameters
    ----------
    names : list of str
        As in colormap.json; the first one is the background.

    Examples
    --------
    >>> aseg_ids(["BG", "ctx-rh-insula", "Left-Thalamus-Proper*", "CC_Central", "4th-Ventricle"])
    array([  0,  42,  10, 253,  15], dtype=uint8)
    """
    known = {freesurfer_name(s): s.label for s in WHOLE_ASEG.structures}
    parcels = [_CORTEX.get(name[:7]) for name in names]
    bare = [name.removesuffix("*").removesuffix("-Proper") for name in names]
    others = [parcel or known[name] for parcel, name in zip(parcels[1:], bare[1:], strict=True)]
    return np.array([0, *others], np.uint8)


def segment(network: MeshNet, cropper: MeshNet | None, ids: Labels, t1w: Path, dseg: Path) -> None:
    """Segment a scan and write its labels on its own grid."""
    scan = nib.load(t1w)
    conformed = conformed_image(scan)
    voxels = torch.from_numpy(np.asarray(conformed.dataobj).astype(np.float32))
    image = (voxels - voxels.min()) / (voxels.max() - voxels.min())
    inside = (image.numpy() > 0) if cropper is None else (cropper(image) > 0)
    (box,) = ndimage.find_objects(inside.astype(np.uint8))
    classes = np.zeros(image.shape, np.uint8)
    classes[box] = network(image[box].contiguous())
    pieces, _ = ndimage.label(classes > 0, np.ones((3, 3, 3)))
    classes[pieces != np.bincount(pieces.ravel())[1:].argmax() + 1] = 0
    labels = nib.Nifti1Image(ids[classes], conformed.affine)
    resample_from_to(labels, (scan.shape, scan.affine), order=0).to_filename(dseg)


def conformed_image(scan: nib.spatialimages.SpatialImage) -> nib.spatialimages.SpatialImage:
    """256 x 256 x 256 voxels of 1 mm and one byte; what is so already stays as it is."""
    zooms = nib.affines.voxel_sizes(scan.affine)
    axes = "".join(nib.aff2axcodes(scan.affine))
    done = (scan.shape, axes, scan.get_data_dtype()) == (_CUBE, _AXES, np.dtype(np.uint8))
    if done and np.allclose(zooms, 1, atol=1e-3):
        return scan
    moved = conform(scan, _CUBE, (1, 1, 1), order=1, orientation=_AXES)
    data = moved.get_fdata(dtype=np.float32)
    data -= data.min()
    data *= 255 / np.quantile(data[data > 0], _BRIGHTEST)
    return nib.Nifti1Image(data.clip(0, 255).round().astype(np.uint8), moved.affine)


if __name__ == "__main__":
    main()
