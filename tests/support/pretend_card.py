"""A CUDA device for machines without one: tensors that say they lie on it, and are as strict.

Values are computed on the CPU, so results are those of a CPU. What this shows is where each tensor
is: PyTorch refuses to compute with tensors of two devices, and so does this. Kernels, memory and
time of a real GPU are not imitated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

CARD = torch.device("cuda", 0)
_INDEXING = ("__getitem__", "__setitem__")
_COPYING = ("copy_", "__setitem__", "_has_compatible_shallow_copy_type")
_LEAVING = ("numpy", "__array__")


class OnCard(Tensor):
    """A tensor on the card."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CARD

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _LEAVING:
            raise TypeError(f"can't convert a tensor on {CARD} to numpy")
        _check(func, name, args, kwargs or {})
        return super().__torch_function__(func, types, args, kwargs)


def _check(func: Callable, name: str, args: tuple, kwargs: dict) -> None:
    """Refuse tensors of two devices, as PyTorch does."""
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    if name in _INDEXING:
        # a tensor of the card takes indices from the CPU, one of the CPU none from it; values that
        # are put at indices have to be there already
        indices = [t for t in tree_leaves(args[1]) if isinstance(t, Tensor)]
        wrong = not isinstance(args[0], OnCard) and any(isinstance(t, OnCard) for t in indices)
        if indices and name == "__setitem__" and isinstance(args[2], Tensor) and args[2].ndim:
            wrong = wrong or isinstance(args[2], OnCard) != isinstance(args[0], OnCard)
    else:
        there = any(isinstance(t, OnCard) for t in given)
        here = [t for t in given if not isinstance(t, OnCard) and t.ndim]
        wrong = there and bool(here) and name not in _COPYING
    if (
        name == "native_group_norm"
        and given[0].dtype != given[1].dtype
        and isinstance(given[0], OnCard)
    ):
        raise RuntimeError(f"expected scalar type {given[0].dtype} but found {given[1].dtype}")
    if wrong:
        raise RuntimeError(f"{resolve_name(func) or name}: tensors on {CARD} and on the CPU")


class _Card(TorchFunctionMode):
    """What creates or moves a tensor, with the card as a place for it."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        first = args[0] if args else None
        if name == "pin_memory":
            return first
        kwargs.pop("pin_memory", None)
        if name in ("to", "cpu") and isinstance(first, Tensor):
            return self._moved(first, name, args[1:], kwargs)
        if name == "copy_" and isinstance(first, OnCard) != isinstance(args[1], OnCard):
            self._count(args[1], "in" if isinstance(first, OnCard) else "out")
            first.as_subclass(Tensor).copy_(args[1].as_subclass(Tensor))
            return first
        if "device" not in kwargs:
            return func(*args, **kwargs)
        on_card = torch.device(kwargs["device"] or "cpu").type == "cuda"
        kwargs["device"] = "cpu"
        plain = [a.as_subclass(Tensor) if isinstance(a, OnCard) else a for a in args]
        made = func(*plain, **kwargs)
        return made.as_subclass(OnCard) if on_card else made

    def _moved(self, tensor: Tensor, name: str, args: tuple, kwargs: dict) -> Tensor:
        given = [*args, *kwargs.values()]
        devices = [torch.device(g) for g in given if isinstance(g, torch.device | str)]
        if name == "cpu":
            devices = [torch.device("cpu")]
        kinds = [g for g in given if isinstance(g, torch.dtype)]
        plain = tensor.as_subclass(Tensor)
        converted = plain.to(kinds[0]) if kinds else plain
        kind = OnCard if isinstance(tensor, OnCard) else Tensor
        if devices and (devices[0].type == "cuda") != (kind is OnCard):
            self._count(tensor, "in" if kind is Tensor else "out")
            converted = converted.clone()
            kind = Tensor if kind is OnCard else OnCard
        elif not kinds:
            return tensor
        return converted.as_subclass(kind)

    def _count(self, tensor: Tensor, way: str) -> None:
        self.moved[way] += tensor.numel() * tensor.element_size()
        self.moved[f"copies {way}"] += 1


@contextmanager
def pretend_card() -> Iterator[Counter[str]]:
    """Within it `torch.device("cuda", 0)` exists; gives bytes and copies, "in" and "out"."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    # else the parameters of a module that moves keep their class
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Card() as card:
            yield card.moved
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
