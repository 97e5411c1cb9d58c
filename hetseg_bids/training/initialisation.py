"""Starting a run from trained weights instead of random ones."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from hetseg_bids.errors import ModelError
from hetseg_bids.network.architecture import HetsegNet, NetworkConfig
from hetseg_bids.network.models import Model
from hetseg_bids.network.systems import System
from hetseg_bids.structures.label_sets import LabelSet

_Parts = tuple[int, ...]
_HEADS = ("head.", "coarse_heads.0.", "coarse_heads.1.")


def start_from_(
    network: HetsegNet, system: System, model: Model, label_set: LabelSet
) -> frozenset[str]:
    """Copy a model's weights into a fresh network.

    The network may be wider, and may have more dense blocks: new channels keep their random
    weights, but channels of the model get weight 0 for them, so that at first the logits are those
    of the model (Net2Net, Chen et al. 2016, with zeros instead of copied channels).

    A network that adds what the encoder found takes over, from a model that puts it beside, the
    layers at half and quarter resolution; what it adds is as similar as can be.

    Rows of the head are copied by the names of the tasks; other tasks keep their random weights. If
    stacks get logits of more or fewer slices than in the model, every slice begins with the weights
    of the model's middle one. Where systems differ, only the label logits of the head are copied:
    the second map has another meaning in each.

    Parameters
    ----------
    network : HetsegNet
        Its weights change.
    system : System
        What the network will be trained as.
    model : Model
    label_set : LabelSet
        What the network will label.

    Returns
    -------
    copied : frozenset of str
        Names of the network's parameters that were copied, or a part of them.

    Raises
    ------
    ModelError
        If the model's network is wider or deeper, or its stem or dense blocks are others.
    """
    _check(network.config, model)
    weights, state = model.network.state_dict(), network.state_dict()
    old, new = _channels(model.plan.network), _channels(network.config)
    rows = torch.tensor(_head_rows(network.config, system, model, label_set))
    copied: set[str] = set()
    for layer in _shared(model.plan.network, network.config):
        # what the model has beside comes last
        places = [_places(a[: len(b)], b) for a, b in zip(old[layer], new[layer], strict=True)]
        for name in (name for name in weights if name.startswith(layer)):
            copied.add(name)
            if layer in _HEADS:
                _copy_(state[name], weights[name][rows[:, 1]], [rows[:, 0], places[1]])
            else:
                _copy_(state[name], weights[name], places)
    if network.config.added_skips and not model.plan.network.added_skips:
        _project_(state, weights)
    return frozenset(copied)


def _project_(state: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Let what is added change the decoder as what lay beside did, in least squares."""
    halves = weights["decode1.0.weight"].chunk(2, dim=1)
    added, beside = (half.transpose(0, 1).flatten(1).T for half in halves)
    found = torch.linalg.lstsq(added, beside).solution
    known = torch.arange(len(found))
    _copy_(state["join1.project.weight"], found[:, :, None, None], [known, known])


def _check(network: NetworkConfig, model: Model) -> None:
    if not _fits(model.plan.network, network):
        raise ModelError(
            "its network is wider or deeper than the recipe's, or takes other stacks",
            "leave the recipe out to train the network as it is, or choose a larger one",
            path=model.folder,
        )


def _copy_(target: Tensor, source: Tensor, places: list[Tensor]) -> None:
    if target.dim() == 1:  # of a norm, or a bias
        target[places[0]] = source
        return
    target[places[0]] = 0  # new channels don't change the model's at first
    target[places[0][:, None], places[1][None]] = source[:, : len(places[1])]


def _fits(model: NetworkConfig, network: NetworkConfig) -> bool:
    """Whether a network has at least a model's channels and blocks, in the same order."""
    coarse = all(a <= b for a, b in zip(_coarse(model), _coarse(network), strict=True))
    coarse &= network.dilations[: len(model.dilations)] == model.dilations
    if _coarse_only(model, network):
        return coarse
    kinds = [(len(c.stem), c.added_skips) for c in (model, network)]
    if kinds[0] != kinds[1]:
        return False
    fine = [(*c.stem, c.levels[0]) for c in (model, network)]
    return coarse and all(a <= b for a, b in zip(*fine, strict=True))


def _coarse(config: NetworkConfig) -> tuple[int, ...]:
    return (*config.levels[1:], config.growth)


def _coarse_only(model: NetworkConfig, network: NetworkConfig) -> bool:
    """Whether only layers at half and quarter resolution mean the same."""
    return network.added_skips and not model.added_skips


def _shared(model: NetworkConfig, network: NetworkConfig) -> list[str]:
    """Layers that are copied."""
    layers = _channels(model).keys() & _channels(network).keys()
    if _coarse_only(model, network):
        coarse = ("encode1.1.", "encode2.", "bottleneck.", "reduce1.", "decode1.")
        layers = {layer for layer in layers if layer.startswith(coarse)}
    return sorted(layers)


def _channels(config: NetworkConfig) -> dict[str, tuple[_Parts, _Parts]]:
    """Output and input channels of each layer, in the parts that are concatenated."""
    c0, c1, c2 = config.levels
    convs = enumerate(pairwise((1, *config.stem)), 1)
    layers: dict[str, tuple[_Parts, _Parts]] = {
        f"stem.conv{i}.": ((b,), (a,)) for i, (a, b) in convs
    }
    seen = config.stem[-1]
    layers |= {
        "stem_norm.": ((seen,), ()),
        "encode0.": ((c0,), (seen,)),
        "encode1.0.": ((c1,), (c0,)),
        "encode1.1.": ((c1,), (c1,)),
        "encode2.": ((c2,), (c1,)),
    }
    dense: _Parts = (c2,)
    for block in range(len(config.dilations)):
        layers[f"bottleneck.{block}.squeeze."] = ((config.growth,), dense)
        layers[f"bottleneck.{block}.dilated."] = ((config.growth,), (config.growth,))
        dense = (*dense, config.growth)
    layers |= {
        "reduce1.": ((c1,), dense),
        "join1.": ((c1,), (c1,)),
        "decode1.": ((c1,), _joined(c1, config)),
        "reduce0.": ((c0,), (c1,)),
        "join0.": ((c0,), (c0,)),
        "decode0.": ((c0,), _joined(c0, config)),
    }
    rows = (config.n_outputs * config.labelled,)
    inputs = ((c0,), (c1,), dense) if config.deep_supervision else ((c0,),)
    layers |= {head: (rows, inp) for head, inp in zip(_HEADS, inputs, strict=False)}
    return layers


def _joined(channels: int, config: NetworkConfig) -> _Parts:
    return (channels,) if config.added_skips else (channels, channels)


def _places(old: _Parts, new: _Parts) -> Tensor:
    """Where a model's channels lie in the larger network: first in each part."""
    starts = [sum(new[:part]) for part in range(len(old))]
    return torch.tensor(
        [s + i for s, width in zip(starts, old, strict=True) for i in range(width)],
        dtype=torch.int64,
    )


def _head_rows(
    network: NetworkConfig, system: System, model: Model, label_set: LabelSet
) -> list[tuple[int, int]]:
    """Rows of the whole head that mean the same, in the new network and in the model."""
    plan = model.plan
    old = plan.network
    one = _rows(label_set, model, second=plan.heteroscedastic and system == plan.system)
    pairs = []
    for i in range(network.labelled):
        source = i if network.labelled == old.labelled else old.labelled // 2
        row, old_row = i * network.n_outputs, source * old.n_outputs
        pairs += [(row + a, old_row + b) for a, b in one]
    return pairs


def _rows(label_set: LabelSet, model: Model, *, second: bool) -> list[tuple[int, int]]:
    """Rows of one slice that mean the same, in the new network and in the model."""
    old = {name: row for row, name in enumerate(model.plan.label_set.task_names)}
    shared = [(row, old[name]) for row, name in enumerate(label_set.task_names) if name in old]
    pairs = list(shared)
    if second:
        pairs += [(len(label_set.tasks) + a, len(old) + b) for a, b in shared]
    return pairs
