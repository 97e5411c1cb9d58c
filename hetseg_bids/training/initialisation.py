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

_HEADS = ("head.", "coarse_heads.0.", "coarse_heads.1.")


def start_from_(network: HetsegNet, system: System, model: Model, label_set: LabelSet) -> None:
    """Copy a model's weights into a fresh network.

    The network may be wider, and may have more dense blocks: new channels keep their random
    weights, but channels of the model get weight 0 for them, so that at first the logits are those
    of the model (Net2Net, Chen et al. 2016, with zeros instead of copied channels).

    Rows of the head are copied by the names of the tasks; a task that the model doesn't have keeps
    its random weights.  If stacks get logits of more or fewer slices than in the model, every slice
    begins with the weights of the model's middle one.
    The second map has another meaning in each system: where the systems differ, only the label
    logits of the head are copied.

    Parameters
    ----------
    network : HetsegNet
        Its weights change.
    system : System
        What the network will be trained as.
    model : Model
    label_set : LabelSet
        What the network will label.

    Raises
    ------
    ModelError
        If the model's network is wider or deeper, or its stem or dense blocks are others.
    """
    if not _fits(model.plan.network, network.config):
        raise ModelError(
            "its network is wider or deeper than the recipe's, or takes other stacks",
            "leave the recipe out to train the network as it is, or choose a larger one",
            path=model.folder,
        )
    weights, state = model.network.state_dict(), network.state_dict()
    old, new = _channels(model.plan.network), _channels(network.config)
    rows = torch.tensor(_head_rows(network.config, system, model, label_set))
    for layer in old.keys() & new.keys():
        parts = old[layer]
        places = [_places(a, b) for a, b in zip(parts, new[layer], strict=True)]
        for name in (name for name in weights if name.startswith(layer)):
            if layer in _HEADS:
                _copy_(state[name], weights[name][rows[:, 1]], [rows[:, 0], places[1]])
            else:
                _copy_(state[name], weights[name], places)


def _copy_(target: Tensor, source: Tensor, places: list[Tensor]) -> None:
    if target.dim() == 1:  # of a norm, or a bias
        target[places[0]] = source
        return
    target[places[0]] = 0  # new channels don't change the model's at first
    target[places[0][:, None], places[1][None]] = source


def _fits(model: NetworkConfig, network: NetworkConfig) -> bool:
    """Whether a network has at least a model's channels and blocks, in the same order."""
    widths = [(*c.stem, *c.levels, c.growth) for c in (model, network)]
    return (
        len(model.stem) == len(network.stem)
        and (model.fold, model.added_skips) == (network.fold, network.added_skips)
        and all(a <= b for a, b in zip(*widths, strict=True))
        and network.dilations[: len(model.dilations)] == model.dilations
    )


_Parts = tuple[int, ...]


def _channels(config: NetworkConfig) -> dict[str, tuple[_Parts, _Parts]]:
    """Output and input channels of each layer, in the parts that are concatenated."""
    c0, c1, c2 = config.levels
    layers: dict[str, tuple[_Parts, _Parts]] = {
        f"stem.conv{i}.": ((b,), (a,)) for i, (a, b) in enumerate(pairwise((1, *config.stem)), 1)
    }
    layers |= {
        "stem_norm.": ((config.stem[-1],), ()),
        "encode0.": ((c0,), (config.stem[-1],)),
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
        "decode1.": ((c1,), (c1, c1)),
        "reduce0.": ((c0,), (c1,)),
        "decode0.": ((c0,), (c0, c0)),
    }
    rows = (config.n_outputs * config.labelled,)
    seen = ((c0,), (c1,), dense) if config.deep_supervision else ((c0,),)
    layers |= {head: (rows, inp) for head, inp in zip(_HEADS, seen, strict=False)}
    return layers


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
        starts = (i * network.n_outputs, source * old.n_outputs)
        pairs += [(starts[0] + a, starts[1] + b) for a, b in one]
    return pairs


def _rows(label_set: LabelSet, model: Model, *, second: bool) -> list[tuple[int, int]]:
    """Rows of one slice that mean the same, in the new network and in the model."""
    old = {name: row for row, name in enumerate(model.plan.label_set.task_names)}
    shared = [(row, old[name]) for row, name in enumerate(label_set.task_names) if name in old]
    pairs = list(shared)
    if second:
        pairs += [(len(label_set.tasks) + a, len(old) + b) for a, b in shared]
    return pairs
