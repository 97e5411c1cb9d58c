"""What `benchmarks/sbtiv.py` reads of SAMSEG, and how it scores."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
LAID = np.array(
    [[-1.0, 0, 0, 10], [0, 0, 1, 0], [0, -1, 0, 30], [0, 0, 0, 1]]
)  # LIA, as FreeSurfer


@pytest.fixture
def sbtiv(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import sbtiv

    return sbtiv


def written(folder, labels):
    nib.save(nib.MGHImage(labels.astype(np.int32), LAID), folder / "seg.mgz")
    text = "# Measure Intra-Cranial, 1433798.928521, mm^3\n# Measure CSF, 435511.6, mm^3\n"
    (folder / "samseg.stats").write_text(text)
    return folder


def test_the_inside_ends_3_mm_below_samsegs_cerebellum(sbtiv, tmp_path):
    labels = np.zeros((8, 24, 8))
    labels[2:6, 4:10, 2:6] = 8  # from 26 mm down to 21 mm
    labels[3, 10:20, 3] = 16
    peer = sbtiv.Peer.read(written(tmp_path, labels))
    assert peer.ml == pytest.approx(1433.799, abs=1e-3)
    below = (labels > 0) & ~sbtiv._above_end(peer)
    assert list(np.unique(np.argwhere(below)[:, 1])) == [13, 14, 15, 16, 17, 18, 19]


def test_corpus_callosum_counts_as_white_matter_where_a_tool_has_none(sbtiv, tmp_path):
    labels = np.zeros((8, 24, 8))
    labels[:, 4:8] = 2
    truth = np.where((labels == 2) & (np.arange(8) < 2), 255, labels).astype(np.uint8)
    grid = sbtiv.Peer.read(written(tmp_path, labels)).grid
    scores = dict(sbtiv._agreements(labels.astype(np.uint8), truth, grid))
    assert scores["corpus_callosum"]["dice"] == 0
    assert scores["left_cerebral_white_matter"]["dice"] < 1
    assert scores["cerebral_white_matter_with_cc"]["dice"] == 1
