"""Results in FreeSurfer's form, read back the way its tools read them."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from hetseg_bids.outputs.freesurfer import COLOR_TABLE, freesurfer_name
from hetseg_bids.structures.aseg import STRUCTURES
from support.commands import run_cli, run_here
from support.phantoms import small_brain
from support.results import write_results


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    paths, _ = write_results(root / "out", "sub-01_ses-a_T1w".removesuffix("_T1w"), small_brain())
    done = run_cli("hetseg-export", root / "out", root / "subjects")
    assert done.code == 0, done.err
    assert done.out.split() == [str(root / "subjects" / "sub-01_ses-a")]
    return paths, root / "subjects"


def test_asegstats2table_finds_its_columns(exported):
    paths, subjects = exported
    text = (subjects / "sub-01_ses-a" / "stats" / "aseg.stats").read_text()
    rows = [line.split() for line in text.splitlines() if "#" not in line]
    assert all(len(row) == 5 for row in rows)
    volumes = {row[4]: float(row[3]) for row in rows}
    morph = pd.read_csv(paths.morph, sep="\t", na_values="n/a").set_index("name")
    assert volumes["Left-Thalamus"] == pytest.approx(morph.loc["left_thalamus", "volume_mm3"])
    for row in rows:
        assert float(row[3]) == pytest.approx(8 * int(row[2]))
    measures = [line.split(", ") for line in text.splitlines() if line.startswith("# Measure")]
    found = {fields[1]: float(fields[3]) for fields in measures}
    assert list(found) == ["BrainSegVol", "BrainSegVolNotVent", "SubCortGrayVol", "MaskVol"]
    # as in FreeSurfer, whose brain has no brainstem
    brain = morph["volume_mm3"].sum() - morph.loc["brainstem", "volume_mm3"]
    assert found["BrainSegVol"] == pytest.approx(brain)
    fluid = morph["volume_mm3"][morph.index.str.contains("ventricle")].sum()
    assert found["BrainSegVolNotVent"] == pytest.approx(brain - fluid)
    assert "# no TotalGray: the labels don't tell grey from white matter in the cereb" in text
    # these results are of an earlier version
    assert "# no EstimatedTotalIntraCranialVol: results of an earlier version" in text


def test_the_intracranial_volume_has_freesurfers_name(tmp_path):
    paths, _ = write_results(tmp_path / "out", "sub-01", small_brain())
    record = json.loads(paths.record.read_text())
    known = {"HetsegIntracranialVolume": 1.5e6, "HetsegIntracranialReason": None}
    paths.record.write_text(json.dumps(record | known))
    assert run_here("hetseg-export", tmp_path / "out", tmp_path / "subjects").code == 0
    text = (tmp_path / "subjects" / "sub-01" / "stats" / "aseg.stats").read_text()
    line = "# Measure EstimatedTotalIntraCranialVol, eTIV, Estimated Total Intracranial Volume, "
    assert line + "1500000.000000, mm^3" in text


def test_the_mgz_is_the_dseg(exported):
    paths, subjects = exported
    mgz, dseg = nib.load(subjects / "sub-01_ses-a" / "mri" / "aseg.mgz"), nib.load(paths.dseg)
    assert np.array_equal(np.asarray(mgz.dataobj), np.asarray(dseg.dataobj))
    assert np.allclose(mgz.affine, dseg.affine, atol=1e-4)
    assert np.issubdtype(mgz.get_data_dtype(), np.integer)


def test_the_colour_table_has_the_names_and_colours_of_the_label_table(exported):
    paths, subjects = exported
    lines = (subjects / COLOR_TABLE).read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    found = {
        int(row[0]): (row[1], "#{:02x}{:02x}{:02x}".format(*map(int, row[2:5]))) for row in rows
    }
    assert found.pop(0)[0] == "Unknown"
    labels = pd.read_csv(paths.labels, sep="\t").set_index("index")
    assert {label: color for label, (_, color) in found.items()} == labels["color"].to_dict()
    assert [name for name, _ in found.values()] == [
        freesurfer_name(s) for s in sorted(STRUCTURES, key=lambda s: s.label)
    ]


def test_names_are_freesurfers():
    names = {freesurfer_name(s) for s in STRUCTURES}
    assert {"Left-Accumbens-area", "Right-VentralDC", "3rd-Ventricle", "Brain-Stem"} <= names
    assert len(names) == len(STRUCTURES)


def test_freesurfers_own_subjects_are_not_touched(tmp_path):
    write_results(tmp_path / "out", "sub-01", small_brain())
    (tmp_path / "subjects" / "sub-01" / "surf").mkdir(parents=True)
    done = run_here("hetseg-export", tmp_path / "out", tmp_path / "subjects")
    assert done.code == 2
    assert "choose another folder" in done.err
    assert not (tmp_path / "subjects" / "sub-01" / "stats").exists()


def test_an_empty_folder_is_said_to_be_empty(tmp_path):
    done = run_here("hetseg-export", tmp_path, tmp_path / "subjects")
    assert done.code == 2
    assert "no finished scans" in done.err
