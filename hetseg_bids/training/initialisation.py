"""Starting a run from trained weights instead of random ones."""

from __future__ import annotations

from hetseg_bids.errors import InputError
from hetseg_bids.models import Model
from hetseg_bids.network import HetsegNet
from hetseg_bids.structures import LabelSet

_HEAD = "head."


def start_from(network: HetsegNet, system: str, model: Model, label_set: LabelSet) -> None:
    """Copy a model's weights into a fresh network, in place.

    The head's rows go by the names of the tasks; one that the model doesn't have stays as it
    was.  The second map means something else in every system: where the systems differ, only the
    label logits of the head are copied and the second map stays as it was.

    Parameters
    ----------
    network : HetsegNet
    system : str
        What the network will be trained as.
    model : Model
    label_set : LabelSet
        What the network will label.

    Raises
    ------
    InputError
        If the model's network has another width or depth.
    """
    weights, state = model.network.state_dict(), network.state_dict()
    shape = {k: tuple(v.shape) for k, v in state.items() if not k.startswith(_HEAD)}
    if shape != {k: tuple(v.shape) for k, v in weights.items() if not k.startswith(_HEAD)}:
        raise InputError(
            f"{model.folder}: its network has another width or depth than the recipe's; "
            "choose the recipe that it was trained with"
        )
    here, there = _rows(
        label_set, model, second=model.plan.heteroscedastic and system == model.plan.system
    )
    for name, tensor in state.items():
        if name.startswith(_HEAD):
            tensor[here] = weights[name][there]
        else:
            tensor.copy_(weights[name])


def _rows(label_set: LabelSet, model: Model, *, second: bool) -> tuple[list[int], list[int]]:
    """Rows of the head that mean the same, in the new network and in the model."""
    old = {name: row for row, name in enumerate(model.plan.label_set.task_names)}
    shared = [(row, old[name]) for row, name in enumerate(label_set.task_names) if name in old]
    pairs = list(shared)
    if second:
        pairs += [(len(label_set.tasks) + a, len(old) + b) for a, b in shared]
    return [a for a, _ in pairs], [b for _, b in pairs]
