"""Building and running images with Debian's tools alone: no registry, no container engine."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BASE = "docker.io/library/debian:bookworm-slim"
UID = "1000"
# beside other tests, threads that wait for one another take many times their time
THREADS = {"OMP_NUM_THREADS": "1"}
_FILE = re.compile(r"(?:file:)?(?://)?(/\S+)")
_APT = "/etc/apt/apt.conf.d"
_PIP, _CERTIFICATES = "/etc/pip.conf", "/etc/pip-certificates.crt"


@dataclass(frozen=True)
class Storage:
    """Images and containers of buildah, in a folder of their own.

    Attributes
    ----------
    folder : Path
    """

    folder: Path

    def call(self, *arguments: object) -> str:
        """Run buildah; returns what it printed."""
        options = ["--root", self.folder / "images", "--runroot", self.folder / "run"]
        command = ["buildah", *options, "--storage-driver", "overlay", *arguments]
        return _output([str(word) for word in command])

    def has_image(self, name: str) -> bool:
        """Whether an image is in the storage."""
        return bool(self.call("images", "--quiet", "--filter", f"reference={name}").strip())

    def make_base(self) -> None:
        """Debian's minimal system under the name that Dockerfile and recipe start from."""
        container = self.call("from", "scratch").strip()
        system = Path(self.call("mount", container).strip())
        _output(["debootstrap", "--variant=minbase", "bookworm", str(system)])
        # as in Debian's own image: no packages are kept, and none is waited for on the disk
        _output(["chroot", str(system), "apt-get", "clean"])
        (system / "etc/dpkg/dpkg.cfg.d/docker-apt-speedup").write_text("force-unsafe-io\n")
        self.call("umount", container)
        self.call("commit", "--quiet", "--rm", container, BASE)

    def build(self, name: str, context: Path, arguments: dict[str, str]) -> None:
        """Build a Dockerfile with this machine's package indexes."""
        options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        options += [*self._machine(), "--isolation=chroot", "--network=host", "--pull=never"]
        # a layer for each line would be 1.6 GB to pack and to keep, of what changes every time
        self.call("build", "--quiet", "--layers=false", *options, "-t", name, context)

    def container(self, image: str) -> str:
        """Make a container of an image; returns its name."""
        return self.call("from", "--pull-never", image).strip()

    def copy(self, container: str, source: Path, target: str) -> None:
        """Copy a file or folder of the host."""
        self.call("copy", "--quiet", container, source, target)

    def run(self, container: str, command: list[str], *options: str) -> str:
        """Run a command in a container that may be written to, with this machine's indexes."""
        flags = ["--isolation=chroot", "--network=host", *self._machine(), *options]
        return self.call("run", *flags, container, "--", *command)

    def mount(self, container: str) -> Path:
        """The file system of a container, with the mount points that engines make."""
        root = Path(self.call("mount", container).strip())
        for name in ("bids", "out"):
            (root / name).mkdir(exist_ok=True)
        return root

    def config(self, image: str) -> dict[str, object]:
        """The OCI configuration of an image."""
        inspected = json.loads(self.call("inspect", "--type", "image", image))
        return inspected["OCIv1"]["config"]

    def clean(self) -> None:
        """Remove all containers; images stay for the next time."""
        self.call("rm", "--all")

    def _machine(self) -> list[str]:
        # pip's settings come from files and environment: one file carries them all
        settings = configparser.ConfigParser(interpolation=None)
        settings["global"] = dict(_pip_settings())
        volumes = {_PIP: self.folder / "pip.conf", _APT: Path(_APT)}
        if "cert" in settings["global"]:
            # not in its own place, where Debian's ca-certificates writes
            volumes[_CERTIFICATES] = Path(settings["global"].pop("cert"))
        for value in settings["global"].values():
            for name in _FILE.findall(value):
                # a folder of links may point beside itself
                place = name.removesuffix("/simple")
                volumes[place] = Path(place)
        if _CERTIFICATES in volumes:
            settings["global"]["cert"] = _CERTIFICATES
        with volumes[_PIP].open("w") as file:
            settings.write(file)
        return [f"--volume={path}:{to}:ro" for to, path in volumes.items() if path.exists()]


@dataclass(frozen=True)
class Recipe:
    """A Singularity definition file.

    Attributes
    ----------
    base : str
        Image that it starts from.
    sections : dict of str to str
        Text below each %name.
    """

    base: str
    sections: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Split a file into header and sections."""
        header, *parts = re.split(r"^%(\w+)\n", path.read_text(), flags=re.MULTILINE)
        base = re.search(r"^From: (\S+)$", header, flags=re.MULTILINE)
        assert base, header
        return cls(base[1], dict(zip(parts[::2], parts[1::2], strict=True)))

    def files(self) -> list[tuple[str, str]]:
        """(source, target) of %files."""
        lines = self.sections["files"].split("\n")
        return [(source, target) for source, target in map(str.split, filter(str.strip, lines))]


@dataclass(frozen=True)
class Sealed:
    """A root file system run read-only, without network, as uid 1000, as engines do.

    Attributes
    ----------
    root, bids, out : Path
        `bids` is mounted read-only at /bids, `out` at /out.
    environment : dict of str to str
        All of it but for `THREADS`.
    temporary : bool
        Whether /tmp can be written to.
    """

    root: Path
    bids: Path
    out: Path
    environment: dict[str, str]
    temporary: bool = True

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        binds = ["--ro-bind", self.root, "/", "--ro-bind", self.bids, "/bids"]
        binds += ["--bind", self.out, "/out"]
        mounts = ["--proc", "/proc", "--dev", "/dev"]
        for folder in ("/dev/shm", *(["/tmp"] if self.temporary else [])):  # noqa: S108
            mounts += ["--perms", "1777", "--tmpfs", folder]
        apart = ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--chdir", "/"]
        # a real user, not a mapped one: what root owns in the image must be readable
        apart += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--clearenv"]
        environment = THREADS | self.environment
        variables = [word for name in environment for word in ("--setenv", name, environment[name])]
        user = ["/usr/bin/setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        words = ["bwrap", *binds, *mounts, *apart, *variables, "--", *user, *command]
        return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)


def _pip_settings() -> list[tuple[str, str]]:
    listed = _output([sys.executable, "-m", "pip", "config", "list"])
    pairs = [line.split("=", 1) for line in listed.splitlines() if "=" in line]
    return [(key.split(".", 1)[1].lstrip("."), value.strip("'")) for key, value in pairs]


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
