"""What a lab sees of each kind of bad input, and that nobody else's result suffers.

With HETSEG_WRITE_DOCS set, docs/bad-inputs.md is written anew instead of compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from hetseg_bids.config import Settings
from hetseg_bids.errors import ImageError
from hetseg_bids.runs.memory import need_of
from support.bad_inputs import ABSENT, KINDS, REFUSED, SEGMENTED, Kind
from support.commands import QUICK, run_cli
from support.corruptions import good
from support.datasets import t1w_path, write_dataset
from support.tiny_model import write_tiny_model

PAGE = Path(__file__).parents[2] / "docs" / "bad-inputs.md"
_MOST_MEMORY_KB = 4_500_000
_LINE = re.compile(r"^\[\d+/\d+\] sub-(\w+): FAILED: (.*?)(?: \(details: (.*)\))?$")
_HEAD = """\
# Bad inputs

How hetseg answers bad input, for those who look for the meaning of a message. One row per kind of
input: `tests/support/bad_inputs.py` makes them all in one dataset, and
`tests/faults/test_bad_inputs.py` segments it in one run and writes this table. A refused scan gets
one line, a crash file in `OUT/logs` and exit code 1. The results of the other scans are those of a
run without it, byte for byte.

| input | what happens | message or warning |
|---|---|---|"""

_BY_HAND = "\n## "  # the section behind the table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@dataclass(frozen=True)
class Run:
    """The one run over all kinds."""

    bids: Path
    out: Path
    code: int
    stdout: str
    stderr: str
    memory_kb: int

    def record(self, label: str) -> Path:
        """The sidecar that a segmented participant has."""
        return self.out / f"sub-{label}" / "anat" / f"sub-{label}_seg-hetseg_dseg.json"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("bad")
    bids, out = write_dataset(root / "bids"), root / "out"
    for kind in KINDS:
        kind.make(t1w_path(bids, kind.label))
    good(t1w_path(bids, "zzgood"))
    (bids / "participants.tsv").write_bytes(b"participant_id\tage\n\xff\xfe\x00sub-empty\t\t\t\n")
    model = ("--model", str(write_tiny_model(root / "model")))
    command = [sys.executable, "-m", "hetseg_bids.cli.run", str(bids), str(out), "participant"]
    with (root / "stdout").open("w") as stdout, (root / "stderr").open("w") as stderr:
        process = subprocess.Popen([*command, *QUICK, *model], stdout=stdout, stderr=stderr)
        _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    texts = [(root / name).read_text() for name in ("stdout", "stderr")]
    return Run(bids, out, code, *texts, usage.ru_maxrss)


def refusals(run: Run) -> dict[str, tuple[str, str]]:
    """Message and crash file by participant."""
    matches = map(_LINE.match, run.stderr.splitlines())
    return {m[1]: (m[2], m[3]) for m in matches if m}


def test_run_goes_on_to_the_end(run):
    assert run.code == 1, run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    assert len({kind.label for kind in KINDS}) >= 60
    refused = [kind.label for kind in KINDS if kind.fate == REFUSED]
    assert sorted(refusals(run)) == sorted(refused)
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{len(refused)} of "), last


def test_memory_stays_bounded(run):
    """Through a gzip bomb, too: 512 million voxels are 2 GB as float32."""
    assert run.memory_kb < _MOST_MEMORY_KB


@pytest.mark.parametrize("kind", KINDS, ids=[kind.label for kind in KINDS])
def test_the_need_of_memory_gives_no_other_message(run, kind):
    """Where scans overlap it is foreseen from the header; the scan itself is refused later."""
    path = t1w_path(run.bids, kind.label)
    if path.is_file():
        with contextlib.suppress(ImageError):
            need_of(path, Settings())


@pytest.mark.parametrize("kind", KINDS, ids=[kind.label for kind in KINDS])
def test_kind(run, kind):
    folder = run.out / f"sub-{kind.label}"
    if kind.fate == REFUSED:
        message, crash = refusals(run)[kind.label]
        assert f"sub-{kind.label}_T1w.nii.gz" in message, "the file isn't named"
        assert kind.words in message
        assert len(message) < 500
        assert Path(crash).is_file()
        assert not list(folder.rglob("*.*")), "a refused scan has no result"
    elif kind.fate == SEGMENTED:
        record = json.loads(run.record(kind.label).read_text())
        assert kind.words in " ".join(record["HetsegWarnings"])
        assert (run.out / f"sub-{kind.label}.html").stat().st_size > 1e5
    else:
        assert not folder.exists()
        assert f"sub-{kind.label}:" not in run.stdout + run.stderr


def test_good_scan_is_as_if_alone(run, tmp_path):
    bids = write_dataset(tmp_path / "bids")
    good(t1w_path(bids, "zzgood"))
    model = ("--model", run.bids.parent / "model")
    done = run_cli("hetseg", bids, tmp_path / "out", "participant", *QUICK, *model)
    assert done.code == 0, done.err
    names = [p.relative_to(tmp_path / "out") for p in (tmp_path / "out/sub-zzgood").rglob("*.*")]
    assert len(names) >= 7
    for name in names:
        assert (run.out / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name


def test_group_level_takes_what_is_there(run):
    """participants.tsv isn't even text."""
    done = run_cli("hetseg", run.bids, run.out, "group")
    assert done.code in (0, 1), done.err
    assert "Traceback" not in done.out + done.err
    assert (run.out / "group.html").is_file()


def test_page_tells_the_truth(run):
    text = page(run)
    if "HETSEG_WRITE_DOCS" in os.environ:
        PAGE.write_text(text)
    assert PAGE.read_text() == text, "HETSEG_WRITE_DOCS=1 pytest tests/faults/test_bad_inputs.py"


def page(run: Run) -> str:
    """docs/bad-inputs.md."""
    _, heading, by_hand = PAGE.read_text().partition(_BY_HAND)
    table = "\n".join([_HEAD, *(row(kind, run) for kind in KINDS)]) + "\n"
    return table + heading + by_hand


def row(kind: Kind, run: Run) -> str:
    """A kind's line of the page."""
    said = ""
    if kind.fate == REFUSED:
        message = refusals(run)[kind.label][0]
        said = message.replace(f"{run.bids}/sub-{kind.label}/anat/", "").replace("|", "\\|")
        said = said.replace(f"{run.bids}/", "").replace(f"sub-{kind.label}", "sub-01")
        said = "`" + re.sub(r"0x[0-9a-f]+|\b\d{8,}\b", "0x...", said) + "`"
    elif kind.fate == SEGMENTED:
        warnings = json.loads(run.record(kind.label).read_text())["HetsegWarnings"]
        said = "; ".join(warnings)
    elif kind.fate == ABSENT:
        said = kind.words or "not a BIDS name of a T1w; the BIDS validator reports it"
    return f"| {kind.what} | {kind.fate} | {said} |"
