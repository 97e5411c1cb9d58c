"""Head size at the group level: volumes divided by the intracranial volume, and never a guess."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hetseg_bids.segmentation.wholes import SUMS
from hetseg_bids.structures.aseg import STRUCTURES
from support.commands import Finished, run_cli, run_here
from support.datasets import write_dataset
from support.phantoms import small_brain
from support.results import write_results

N = 9
VALUES = [*(s.name for s in STRUCTURES), *SUMS]
ICV = {f"sub-0{n}": 1.4e6 + 2e4 * n for n in range(N)}
SMALL = "sub-04"  # its head is as small as no other's
ICV[SMALL] = 0.6e6
STRIPPED = "the image is stripped: <b>nobody knows</b>"


def read_tsv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)


def page_data(out: Path) -> dict:
    text = (out / "group.html").read_text()
    return json.loads(text.split('id="data">')[1].split("</script>")[0])


def group(bids: Path, out: Path, *options: str) -> Finished:
    done = run_cli("hetseg", bids, out, "group", *options)
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> tuple[Path, Path]:
    """Nine people whose brains are the same and whose heads differ."""
    root = tmp_path_factory.mktemp("heads")
    bids, out = write_dataset(root / "bids"), root / "out"
    rng = np.random.default_rng(0)
    for name, icv in ICV.items():
        labels = small_brain()
        for structure in STRUCTURES:  # people differ a little
            places = np.argwhere(labels == structure.label)
            few = rng.integers(0, max(2, len(places) // 20))
            labels[tuple(places[:few].T)] = 0
        write_results(out, name, labels, icv_mm3=icv)
    (bids / "participants.tsv").write_text(
        "\n".join(["participant_id\tage", *(f"{name}\t3{n}" for n, name in enumerate(ICV))])
    )
    group(bids, out, "--normalise", "icv", "--covariates", "age")
    return bids, out


def test_the_wide_tables_are_also_written_as_shares_of_the_intracranial_volume(heads):
    _, out = heads
    for kind in ("volumes", "soft_volumes"):
        raw, shares = (read_tsv(out / f"group_{kind}{end}.tsv") for end in ("", "_icv"))
        assert list(raw.columns) == list(shares.columns)
        assert dict(zip(raw["scan"], raw["intracranial_mm3"], strict=True)) == ICV
        left = [name for name in raw if name not in VALUES]
        assert "age" in left
        assert raw[left].equals(shares[left])
        assert raw["total_grey"].isna().all()  # the 28 structures don't tell
        expected = raw[VALUES].div(raw["intracranial_mm3"], axis=0)
        np.testing.assert_allclose(shares[VALUES], expected, rtol=1e-4)
        white = [f"{side}_cerebral_white_matter" for side in ("left", "right")]
        summed = raw[[*white, "corpus_callosum"]].sum(axis=1)
        np.testing.assert_allclose(raw["cerebral_white"], summed)
        dictionary = json.loads((out / f"group_{kind}_icv.json").read_text())
        assert list(dictionary) == list(shares.columns)
        assert {dictionary[name]["Units"] for name in VALUES} == {"1"}
        described = dictionary["total_brain"]["Description"]
        assert described.startswith(f"group_{kind}.tsv / intracranial_mm3. Sum: All labels")
        assert dictionary["intracranial_mm3"]["Units"] == "mm^3"


def test_outliers_go_by_the_intracranial_volume_where_all_have_one(heads):
    _, out = heads
    quality = read_tsv(out / "group_qc.tsv").set_index("scan")
    assert set(quality["volumes_relative_to"]) == {"intracranial_ml"}
    assert quality["outlier_score"].idxmax() == SMALL
    assert re.search(r"volume \(z = \+", quality.loc[SMALL, "outlier_of"])
    assert "volumes_relative_to" in json.loads((out / "group_qc.json").read_text())


def test_the_group_page_shows_intracranial_volumes_and_shares(heads):
    _, out = heads
    text, data = (out / "group.html").read_text(), page_data(out)
    assert "volume relative to the intracranial volume, asymmetry" in text
    assert "Scans whose intracranial volume" not in text
    assert 'id="intracranial">Intracranial volume, ml' in text
    shown = dict(zip(data["scan"], data["intracranial"], strict=True))
    volume, low, high = (int(n.replace(",", "")) for n in re.findall(r"[\d,]+", shown["sub-00"]))
    assert low < volume == 1400 < high
    share = data["measures"]["Volume, % of the intracranial volume"]
    raw = read_tsv(out / "group_volumes.tsv").set_index("scan")
    place = data["structures"].index("Brainstem")
    expected = (100 * raw["brainstem"] / raw["intracranial_mm3"])[data["scan"]]
    np.testing.assert_allclose(share[place], expected, atol=1e-4)
    assert data["structures"][-4:] == [
        *("Intracranial", "Total brain", "Subcortical grey", "Cerebral white")
    ]
    assert set(data["measures"]["Asymmetry (L - R) / mean"][-1]) == {None}


def test_a_scan_without_one_has_none_and_says_why(heads, tmp_path):
    bids, out = heads[0], tmp_path / "out"
    shutil.copytree(heads[1], out)
    shutil.rmtree(out / "sub-02")
    write_results(out, "sub-02", small_brain(), no_icv=STRIPPED)
    said = group(bids, out, "--normalise", "icv").err
    (line,) = [line for line in said.splitlines() if "--normalise" in line]
    assert line == f"--normalise icv: n/a for 1 of {N} scans ({STRIPPED}: sub-02)"
    for kind in ("volumes", "soft_volumes"):
        shares = read_tsv(out / f"group_{kind}_icv.tsv").set_index("scan")
        unknown = shares[["intracranial_mm3", *VALUES]].isna().all(axis=1)
        assert list(shares.index[unknown]) == ["sub-02"]
        raw = read_tsv(out / f"group_{kind}.tsv").set_index("scan")
        assert raw.loc["sub-02", "brainstem"] > 0
    # one measure for all that are compared: nobody stands out for the lack of it
    quality = read_tsv(out / "group_qc.tsv").set_index("scan")
    assert set(quality["volumes_relative_to"]) == {"brain_mask_ml"}
    assert "volume" not in str(quality.loc[SMALL, "outlier_of"])
    text = (out / "group.html").read_text()
    assert "volume relative to the brain mask&#39;s, asymmetry" in text
    assert f"1 of {N} scans (the image is stripped: &lt;b&gt;nobody" in text
    shown = page_data(out)
    assert shown["intracranial"][shown["scan"].index("sub-02")] == "n/a"


def test_two_head_models_are_not_mixed_and_tables_of_an_earlier_call_are_removed(heads, tmp_path):
    bids, out = heads[0], tmp_path / "out"
    shutil.copytree(heads[1], out)
    assert len(list(out.glob("group_*_icv.*"))) == 4
    record = next((out / "sub-03").rglob("*_dseg.json"))
    record.write_text(record.read_text().replace("3" * 64, "4" * 64))
    group(bids, out)
    quality = read_tsv(out / "group_qc.tsv")
    assert set(quality["volumes_relative_to"]) == {"brain_mask_ml"}
    assert quality["intracranial_ml"].notna().all()
    assert not list(out.glob("group_*_icv.*"))
    assert read_tsv(out / "group_volumes.tsv")["intracranial_mm3"].notna().all()


@pytest.mark.parametrize("no_icv", ["", STRIPPED])
def test_where_no_scan_has_one_a_line_refuses_and_nothing_is_written(tmp_path, no_icv):
    bids, out = write_dataset(tmp_path / "bids"), tmp_path / "out"
    write_results(out, "sub-01", small_brain(), no_icv=no_icv)
    done = run_here("hetseg", bids, out, "group", "--normalize", "icv")
    why = no_icv or "results of an earlier version"
    assert done.code == 2
    assert done.err.splitlines()[-1] == (
        "hetseg: --normalise icv: the intracranial volume isn't known for 1 of 1 scans "
        f"({why}: sub-01); leave the option out"
    )
    assert not list(out.glob("group*"))
    if no_icv:
        return
    group(bids, out)
    wide = read_tsv(out / "group_volumes.tsv")
    assert wide["intracranial_mm3"].isna().all()
    assert wide["total_brain"].isna().all()  # older ones have no such row


def test_the_participant_level_divides_nothing(tmp_path):
    bids = write_dataset(tmp_path / "bids")
    done = run_here("hetseg", bids, tmp_path / "out", "participant", "--normalise", "icv")
    assert done.code == 2
    assert "--normalise: only the group level divides volumes" in done.err
