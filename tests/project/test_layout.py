"""The rooms of the package: who may know whom, and how large they are."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hetseg_bids

ROOT = Path(hetseg_bids.__file__).parent
# the way of a scan: each room may use those above it and itself, never one below
ROOMS = (
    ("errors",),
    ("file_formats", "files", "images", "planes"),
    ("config",),
    ("structures",),
    ("dataset",),
    ("preprocessing",),
    ("network",),
    ("segmentation",),
    ("quality",),
    ("outputs",),
    ("reports",),
    ("runs", "evaluation", "training"),
    ("api",),
    ("cli",),
)
MOST_IN_THE_ROOT = 8
MODULES = sorted(p for p in ROOT.rglob("*.py") if p.name != "__init__.py")
FOLDERS = sorted(p.parent for p in ROOT.rglob("__init__.py") if p.parent != ROOT)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def room_of(module: str) -> int:
    first = module.split(".")[0]
    return next(number for number, names in enumerate(ROOMS) if first in names)


def imports_of(path: Path) -> set[str]:
    """Modules of ours that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hetseg_bids"):
            base = (node.module or "").removeprefix("hetseg_bids").removeprefix(".")
            inside = {".".join(filter(None, (base, alias.name))) for alias in node.names}
            modules = {n for n in inside if (ROOT / f"{n.replace('.', '/')}.py").exists()}
            found |= modules or ({base} if base else set())
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_imports_from_a_later_room_or_grows_too_large(path):
    later = {name for name in imports_of(path) if room_of(name) > room_of(name_of(path))}
    assert not later
    assert len(path.read_text().splitlines()) <= 400


def test_no_imports_go_in_a_circle():
    graph = {name_of(path): imports_of(path) for path in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES)


def test_only_commands_of_their_own_need_training_and_evaluation():
    for path in MODULES:
        name = name_of(path)
        foreign = {"training", "evaluation"} - {name.split(".")[0]}
        if name not in ("cli.train", "cli.evaluate"):
            assert not {n for n in imports_of(path) if n.split(".")[0] in foreign}, name


def test_the_root_is_short_and_every_folder_says_what_lives_in_it():
    assert len([path for path in MODULES if path.parent == ROOT]) <= MOST_IN_THE_ROOT
    for folder in FOLDERS:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_function_fits_on_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
