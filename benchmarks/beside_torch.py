"""What hetseg needs beside PyTorch, with the versions that are installed here.

    python benchmarks/beside_torch.py > requirements.txt

For machines without network whose PyTorch is there already: neither PyTorch nor what only
PyTorch needs is listed. What --nprocs needs is.
"""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_THERE = "torch"
_EXTRAS = {"hetseg": "dask"}  # for --nprocs


def needed(name: str, known: set[str]) -> None:
    """Add the names of all that a package needs."""
    extra = _EXTRAS.get(name, "")
    for line in metadata.requires(name) or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        other = canonicalize_name(requirement.name)
        if other not in known and other != _THERE:
            known.add(other)
            needed(other, known)


if __name__ == "__main__":
    found: set[str] = set()
    needed("hetseg", found)
    print(*(f"{name}=={metadata.version(name)}" for name in sorted(found)), sep="\n")
