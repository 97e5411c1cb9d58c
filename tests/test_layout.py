"""The rooms of the package: who may know whom, and how large they are."""

import ast
from pathlib import Path

import pytest

import hetseg_bids

ROOT = Path(hetseg_bids.__file__).parent
# each line may use the lines below it and its own, never one above
LAYERS = (
    ("cli",),
    ("app", "api", "demo", "freesurfer", "training.session"),
    ("execution", "group"),
    ("workflow",),
    ("reports", "evaluation", "training"),
    ("missing",),
    ("derivatives", "qc", "cohort", "outliers", "finished"),
    ("image_quality",),
    ("morphometry",),
    ("segmentation",),
    ("plausibility",),
    ("inference",),
    (
        "alignment",
        "atlas",
        "islands",
        "memory",
        "uncertainty",
        "models",
        "preprocessing",
        "bids_index",
        "discovery",
        "validation",
        "label_tables",
    ),
    ("network", "locks", "config"),
    ("images", "file_formats", "devices", "files", "planes", "robust", "structures"),
    ("errors",),
)
MODULES = sorted(p for p in ROOT.rglob("*.py") if p.name != "__init__.py")


def layer_of(module: str) -> int:
    """The deepest name that a layer has for a module decides."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        for number, names in enumerate(LAYERS):
            if ".".join(parts[:length]) in names:
                return number
    raise AssertionError(f"{module} is in no layer")


def imports_of(path: Path) -> set[str]:
    """Modules of ours that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hetseg_bids."):
            found.add(node.module.removeprefix("hetseg_bids."))
        elif isinstance(node, ast.ImportFrom) and node.module == "hetseg_bids":
            names = {alias.name for alias in node.names}
            found |= {n for n in names if (ROOT / f"{n}.py").exists() or (ROOT / n).is_dir()}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_imports_upward_or_grows_too_large(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    above = {name for name in imports_of(path) if layer_of(name) < layer_of(module)}
    assert not above
    assert len(path.read_text().splitlines()) <= 400


def test_inference_needs_nothing_of_training():
    for path in MODULES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if not module.startswith(("training", "cli.train", "evaluation", "cli.evaluate")):
            assert not {n for n in imports_of(path) if n.startswith(("training", "evaluation"))}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_function_fits_on_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
