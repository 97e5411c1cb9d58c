"""Starting a run from trained weights instead of random ones."""

from __future__ import annotations

from hetseg_bids.errors import InputError
from hetseg_bids.models import Model
from hetseg_bids.network import HetsegNet
from hetseg_bids.structures import N_TASKS

_HEAD = "head."


def start_from(network: HetsegNet, system: str, model: Model) -> None:
    """Copy a model's weights into a fresh network, in place.

    The second map means something else in every system: where the systems differ, only the
    label logits of the head are copied and the second map stays as it was.

    Parameters
    ----------
    network : HetsegNet
    system : str
        What the network will be trained as.
    model : Model

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
    rows = len(state["head.bias"]) if system == model.plan.system else N_TASKS
    for name, tensor in state.items():
        if name.startswith(_HEAD):
            tensor[:rows].copy_(weights[name][:rows])
        else:
            tensor.copy_(weights[name])
