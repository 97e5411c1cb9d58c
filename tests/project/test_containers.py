"""The image of the Dockerfile and the root of the Singularity recipe, built and run for real.

Skipped unless pytest is given ``--containers FOLDER`` (`make container-test` does): building
takes minutes.  What's not proven: docker's and Singularity's own engines don't run here;
bubblewrap gives what they promise (read-only root, bound folders, another user, no network).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hetseg_bids import __version__
from support.commands import QUICK
from support.containers import BASE, REPOSITORY, THREADS, UID, Recipe, Sealed, Storage
from support.corruptions import good
from support.datasets import t1w_path, write_dataset

_LARGEST_GB = 2.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def storage(request: pytest.FixtureRequest) -> Iterator[Storage]:
    folder = request.config.getoption("--containers")
    if folder is None:
        pytest.skip("builds images for minutes; make container-test runs it")
    tools = ("buildah", "debootstrap", "bwrap")
    if os.geteuid() != 0 or not all(map(shutil.which, tools)):
        pytest.fail("needs root and: apt-get install buildah debootstrap bubblewrap")
    storage = Storage(Path(folder).resolve())
    storage.folder.mkdir(parents=True, exist_ok=True)
    if not storage.has_image(BASE):
        storage.make_base()
    yield storage
    storage.clean()


@pytest.fixture(scope="module")
def image(storage: Storage) -> str:
    storage.build("hetseg", REPOSITORY, {"VERSION": __version__, "REVISION": "test"})
    return "localhost/hetseg"


@pytest.fixture(scope="module")
def docker(storage: Storage, image: str) -> Path:
    return storage.mount(storage.container(image))


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.read(REPOSITORY / "Singularity.def")


@pytest.fixture(scope="module")
def singularity(storage: Storage, recipe: Recipe) -> Path:
    """What %files and %post make of a fresh base."""
    assert BASE.endswith(recipe.base)
    container = storage.container(BASE)
    for source, target in recipe.files():
        storage.copy(container, REPOSITORY / source, target)
    storage.run(container, ["/bin/sh", "-ec", recipe.sections["post"]])
    return storage.mount(container)


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small brain, for what doesn't depend on the scan."""
    root = write_dataset(tmp_path_factory.mktemp("data") / "bids")
    good(t1w_path(root, "01"))
    return _readable(root)


@pytest.fixture
def whole_head(tmp_path: Path, mni152: nib.Nifti1Image) -> Path:
    root = write_dataset(tmp_path / "bids")
    nib.save(mni152, t1w_path(root, "mni152"))
    return _readable(root)


@pytest.fixture(scope="module")
def by_docker(
    tmp_path_factory: pytest.TempPathFactory,
    storage: Storage,
    image: str,
    docker: Path,
    bids: Path,
) -> Path:
    """The results of the image with two workers and a home that can't be used."""
    out = _owned(_readable(tmp_path_factory.mktemp("docker")) / "out")
    environment = {**_environment(storage, image), "HOME": "/nonexistent"}
    sealed = Sealed(docker, bids, out, environment)
    done = sealed.run("hetseg", "/bids", "/out", "participant", "--nprocs", "2", *QUICK)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return _owned(_readable(tmp_path) / "out")


def _readable(folder: Path) -> Path:
    """Let other users through pytest's folders."""
    for path in (folder, *folder.parents):
        if path.stat().st_mode & 0o777 == 0o700:
            path.chmod(0o755)
    return folder


def _owned(folder: Path) -> Path:
    folder.mkdir()
    os.chown(folder, int(UID), int(UID))
    return folder


def _environment(storage: Storage, image: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in storage.config(image)["Env"])


def test_image_says_what_it_is(storage, image, docker):
    config = storage.config(image)
    assert config["Entrypoint"] == ["hetseg"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    size = sum(p.lstat().st_size for p in docker.rglob("*") if not p.is_symlink()) / 1e9
    print(f"image: {size:.2f} GB unpacked")
    assert size < _LARGEST_GB
    left = {path.name for path in (docker / "opt/hetseg/bin").iterdir()}
    assert "pip" not in left, "what installs packages has no use in an image"
    assert not (docker / "src").exists()


def test_image_runs_sealed_off(storage, image, docker, whole_head, out):
    """Read-only root and input, no network, uid 1000, HOME unset: participant, then group.

    One view is enough here: the test of the Singularity recipe has all of them.
    """
    environment = _environment(storage, image)
    del environment["HOME"]
    sealed = Sealed(docker, whole_head, out, environment)
    words = ("hetseg", "/bids", "/out", "participant", "--brain-extraction", "deepbet")
    done = sealed.run(*words, "--views", "axial", "--no-mirror")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
    dseg = out / "sub-mni152/anat/sub-mni152_seg-hetseg_dseg.nii.gz"
    assert (np.asarray(nib.load(dseg).dataobj) == 17).any(), "no left hippocampus"
    assert dseg.stat().st_uid == int(UID)
    assert (out / "sub-mni152.html").stat().st_size > 1e6
    assert f"hetseg:{__version__}" in (out / "dataset_description.json").read_text()
    done = sealed.run("hetseg", "/bids", "/out", "group")
    assert done.returncode == 0, done.stderr
    assert (out / "group.html").exists()


def test_image_with_workers_and_an_unwritable_home(by_docker):
    assert (by_docker / "sub-01.html").exists()


def test_image_as_another_user_in_a_writable_root(storage, image, bids, out):
    """As `docker run --user 1000` without --read-only; nothing but /out may be needed."""
    volumes = (f"--volume={bids}:/bids:ro", f"--volume={out}:/out", "--user", UID)
    command = ["hetseg", "/bids", "/out", "participant", *QUICK]
    threads = (f"--env={name}={value}" for name, value in THREADS.items())
    storage.run(storage.container(image), command, *volumes, *threads)
    assert (out / "sub-01.html").exists()


def test_what_cannot_work_is_said_in_a_line(storage, image, docker, bids, tmp_path, out):
    environment = _environment(storage, image)
    empty = _readable(write_dataset(tmp_path / "empty"))
    nothing = Sealed(docker, empty, out, environment)
    closed = Sealed(docker, bids, out, environment, temporary=False)
    for sealed, words in ((nothing, "no participants"), (closed, "--tmpfs /tmp")):
        done = sealed.run("hetseg", "/bids", "/out", "participant", *QUICK)
        assert done.returncode == 2
        assert words in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


def test_singularity_recipe(singularity, recipe, by_docker, bids, out):
    """%test and %runscript of the recipe, sealed off; the same result as the Docker image."""
    host = {"PYTHONPATH": "/nowhere", "HOME": "/nonexistent"}  # the host's, as Singularity does
    sealed = Sealed(singularity, bids, out, host)

    def run(section: str, *arguments: str) -> None:
        script = recipe.sections["environment"] + recipe.sections[section]
        done = sealed.run("/bin/sh", "-ec", script, "singularity", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    run("test")
    run("runscript", "/bids", "/out", "participant", *QUICK)
    images = [path.relative_to(out) for path in out.rglob("*.nii.gz")]
    assert len(images) == 3
    for name in images:
        assert (out / name).read_bytes() == (by_docker / name).read_bytes(), name
    assert "singularity" in (out / "dataset_description.json").read_text()


def test_both_recipes_set_the_same_environment(storage, image, recipe):
    """The paths of caches and programs; HOME is the host's in Singularity."""
    lines = recipe.sections["environment"].split("\n")
    exported = dict(line.split("export ")[1].split("=", 1) for line in lines if "export " in line)
    environment = _environment(storage, image)
    assert exported.keys() == environment.keys() - {"HOME"}
    for name in exported.keys() - {"HETSEG_CONTAINER"}:
        assert exported[name] == environment[name], name


def test_no_host_name_in_the_recipes():
    for name in ("Dockerfile", "Singularity.def", "container/install.sh"):
        assert "://" not in (REPOSITORY / name).read_text(), name
