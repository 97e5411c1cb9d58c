"""Names and contents of what a scan leaves behind, file by file."""

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from hetseg_bids import __version__
from hetseg_bids.config import Settings
from hetseg_bids.dataset.discovery import scan_of_dataset
from hetseg_bids.errors import OutputError
from hetseg_bids.images import Grid
from hetseg_bids.network.fitted import Border, Pooling
from hetseg_bids.outputs.derivatives import (
    OutputPaths,
    Provenance,
    check_inside,
    output_paths,
    remove,
    sources_of,
    write_crash,
    write_images,
    write_sidecars,
    write_tables,
)
from hetseg_bids.outputs.description import write_dataset_description
from hetseg_bids.quality.image_quality import ImageQuality
from hetseg_bids.segmentation.labels import Segmentation
from hetseg_bids.segmentation.morphometry import COLUMNS, measure
from hetseg_bids.segmentation.plausibility import Finding, Plausibility
from hetseg_bids.structures.aseg import ASEG, N_STRUCTURES, STRUCTURES
from support.results import level_maps, uncertainty_of
from support.tiny_model import plan_of

SCAN = scan_of_dataset(Path("in.nii.gz"), "sub-01_ses-b_run-2")
STEM = "sub-01_ses-b_run-2_seg-hetseg"
AFFINE = np.array([[0, -1.5, 0, 3], [1.2, 0, 0, -7], [0, 0, 2, 5], [0, 0, 0, 1.0]])
SHAPE = (6, 5, 4)


def some_paths(out: Path, **settings: object) -> OutputPaths:
    return output_paths(out, SCAN, Settings(**settings))


def some_result() -> Segmentation:
    rng = np.random.default_rng(1)
    box = (slice(1, 5), slice(0, 5), slice(1, 3))
    shape = (4, 5, 2)
    dseg = rng.choice([s.label for s in STRUCTURES], shape).astype(np.uint8)
    q = rng.uniform(0, 0.5, (N_STRUCTURES, *shape)).astype(np.float32)
    p = rng.uniform(0, 1, (N_STRUCTURES, *shape)).astype(np.float32)
    maps = level_maps(q, 0.5), level_maps(p, 1.0)
    return Segmentation(Grid(SHAPE, AFFINE), box, dseg, *maps, ASEG, uncertainty_of(dseg, q))


def some_provenance(**settings: object) -> Provenance:
    return Provenance(
        ["bids:raw:sub-01/anat/x_T1w.nii.gz"], "aa", "bb",
        plan_of("label-flip", "cc", pooling=Pooling(0.8, 0.2), smoothing=2,
                borders={"corpus_callosum": Border(0.5, 1.0)}),
        Settings(**settings), "deepbet", 1234.56, ImageQuality(0.1, 0.3, 0.02, 2.0, 5.0, 0.5),
        Plausibility("abc", 1.5, (Finding("left_thalamus", 1.5, surplus_ml=0.5),)),
        17.26, ("dark",),
    )  # fmt: skip


def test_names_follow_bids(tmp_path):
    paths = some_paths(tmp_path)
    anat = tmp_path / "sub-01" / "ses-b" / "anat"
    assert paths.dseg == anat / f"{STEM}_dseg.nii.gz"
    assert paths.flip_probability == anat / f"{STEM}_desc-labelflip_probseg.nii.gz"
    assert paths.probseg == anat / f"{STEM}_probseg.nii.gz"
    assert paths.mask == anat / "sub-01_ses-b_run-2_desc-brain_mask.nii.gz"
    assert paths.morph == anat / f"{STEM}_morph.tsv"
    assert paths.record == anat / f"{STEM}_dseg.json"
    assert paths.labels == anat / f"{STEM}_dseg.tsv"
    assert paths.report == tmp_path / "sub-01_ses-b_run-2.html"
    assert paths.run_log == tmp_path / "logs" / "sub-01_ses-b_run-2_run.json"
    assert len(set(paths.files)) == 5 * 2 + 3 + 2


def test_names_say_the_resolution(tmp_path):
    paths = some_paths(tmp_path, output_resolution="1mm")
    assert paths.dseg.name == f"{STEM}_res-1mm_dseg.nii.gz"
    assert paths.mask.name == "sub-01_ses-b_run-2_res-1mm_desc-brain_mask.nii.gz"
    assert paths.report.name == "sub-01_ses-b_run-2_res-1mm.html"


def test_images_come_back_as_they_were(tmp_path):
    paths, result = some_paths(tmp_path), some_result()
    mask = np.ones(SHAPE, np.uint8)
    write_images(paths, result, mask)
    for path in (paths.dseg, paths.mask, paths.flip_probability, paths.probseg):
        image = nib.load(path)
        np.testing.assert_allclose(image.affine, AFFINE)
        assert image.get_data_dtype() == np.uint8
        assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 1
        np.testing.assert_allclose(image.get_qform(), AFFINE, atol=1e-5)
        assert image.header.get_xyzt_units()[0] == "mm"
    dseg = nib.load(paths.dseg)
    assert dseg.header.get_intent()[0] == "label"
    assert nib.load(paths.mask).header.get_intent()[0] == "label"
    np.testing.assert_array_equal(np.asarray(dseg.dataobj), result.full(result.dseg))
    np.testing.assert_array_equal(np.asarray(nib.load(paths.mask).dataobj), mask)
    for path, maps, highest in (
        (paths.flip_probability, result.flip_probability, 0.5),
        (paths.probseg, result.probability, 1.0),
    ):
        image = nib.load(path)
        assert image.shape == (*SHAPE, N_STRUCTURES)
        assert image.dataobj.slope == pytest.approx(highest / 255)
        assert image.dataobj.inter == 0
        stored = np.moveaxis(image.get_fdata(), -1, 0)
        np.testing.assert_allclose(stored, result.full(maps.levels) * (highest / 255), rtol=1e-6)


@pytest.mark.parametrize(("name", "highest"), [("flip_probability", 0.5), ("probability", 1.0)])
def test_the_largest_probability_is_not_read_as_more(tmp_path, name, highest):
    certain = np.full((N_STRUCTURES, 4, 5, 2), highest, np.float32)
    result = replace(some_result(), **{name: level_maps(certain, highest)})
    paths = some_paths(tmp_path)
    write_images(paths, result, np.ones(SHAPE, np.uint8))
    image = nib.load(
        {"flip_probability": paths.flip_probability, "probability": paths.probseg}[name]
    )
    largest = image.get_fdata().max()  # torchmetrics takes a map with 1.00000006 for logits
    assert highest * (1 - 1e-6) < largest <= highest
    assert image.get_fdata(dtype=np.float32).max() <= highest


def test_what_a_model_does_not_give_is_not_written(tmp_path):
    paths = some_paths(tmp_path)
    result = replace(some_result(), flip_probability=None, probability=None)
    write_images(paths, result, np.ones(SHAPE, np.uint8))
    assert {p.name for p in paths.folder.iterdir()} == {paths.dseg.name, paths.mask.name}


def test_equal_results_are_equal_bytes_without_a_time(tmp_path):
    a, b = some_paths(tmp_path / "a"), some_paths(tmp_path / "b")
    for paths in (a, b):
        write_images(paths, some_result(), np.ones(SHAPE, np.uint8))
    assert a.flip_probability.read_bytes() == b.flip_probability.read_bytes()
    head = a.flip_probability.read_bytes()[:10]
    assert head[3] == 0  # no name
    assert head[4:8] == b"\0\0\0\0"  # no time
    with gzip.open(a.flip_probability) as stream:
        assert len(stream.read()) == 352 + 6 * 5 * 4 * N_STRUCTURES


def test_tables_load_without_options_but_the_tab(tmp_path):
    paths, result = some_paths(tmp_path), some_result()
    table = measure(result)
    write_tables(paths, table, ASEG)
    again = pd.read_csv(paths.morph, sep="\t", keep_default_na=False, na_values="n/a")
    assert list(again.columns) == list(COLUMNS)
    np.testing.assert_allclose(again["volume_mm3"], table["volume_mm3"], atol=1e-5)
    assert paths.morph.read_text().splitlines()[-1].split("\t")[2] == "n/a"  # a midline structure
    longest = max(len(f.partition(".")[2]) for f in paths.morph.read_text().split())
    assert longest == 5
    dictionary = json.loads(paths.morph.with_suffix(".json").read_text())
    assert dictionary == {name: {"Description": text} for name, text in COLUMNS.items()}
    labels = pd.read_csv(paths.labels, sep="\t")
    assert list(labels.columns) == ["index", "name", "color"]
    assert list(labels["index"]) == [s.label for s in STRUCTURES]
    assert list(labels["name"]) == [s.name for s in STRUCTURES]
    assert labels["color"][0] == "#dcdcdc"


def test_sidecars_say_how_the_result_came_to_be(tmp_path):
    paths = some_paths(tmp_path)
    write_sidecars(paths, some_provenance(write_probseg=True), ASEG, flip_probability=True)
    names = [s.name for s in STRUCTURES]
    record = json.loads(paths.record.read_text())
    assert record == {
        "Description": f"{N_STRUCTURES} brain structures, FreeSurfer aseg ids",
        "Sources": ["bids:raw:sub-01/anat/x_T1w.nii.gz"],
        "SpatialReference": "bids:raw:sub-01/anat/x_T1w.nii.gz",
        "HetsegVersion": __version__,
        "HetsegModel": "label-flip",
        "HetsegModelSHA256": "cc",
        "HetsegPooling": {"views": 0.8, "ensemble": 0.2, "answer": 0.0, "structures": {}},
        "HetsegImageSmoothing": 2,
        "HetsegBorders": {"corpus_callosum": {"smoothing": 0.5, "offset": 1.0}},
        "HetsegSourceSHA256": "aa",
        "HetsegMaskSHA256": "bb",
        "HetsegLesionSHA256": None,
        "HetsegSettings": {
            "model": "label-flip",
            "structures": "paper",
            "views": ["axial", "coronal", "sagittal"],
            "mirror": True,
            "brain_extraction": "auto",
            "output_resolution": "native",
            "write_probseg": True,
            "lesion_mask": "none",
            "lesion_label": "background",
        },
        "HetsegBrainExtraction": "deepbet",
        "HetsegBrainMaskVolume": 1234.6,
        "HetsegImageQuality": {
            "noise": 0.1,
            "edge": 0.3,
            "ripple": 0.02,
            "cut_cm2": 2.0,
            "turn_deg": 5.0,
            "contrast": 0.5,
        },
        "HetsegPlausibility": {
            "atlas": "abc",
            "misfit_mm": 1.5,
            "findings": [
                {
                    "structure": "left_thalamus",
                    "misplaced_ml": 1.5,
                    "missing_ml": 0.0,
                    "times_largest": 0.0,
                    "surplus_ml": 0.5,
                }
            ],
        },
        "HetsegTurnedDegrees": 17.3,
        "HetsegLesion": None,
        "HetsegWarnings": ["dark"],
    }
    folder = paths.folder
    flip = json.loads((folder / f"{STEM}_desc-labelflip_probseg.json").read_text())
    assert flip["LabelMap"] == names
    assert flip["Description"].startswith("Probability, 0-0.5, that the label of a structure")
    probability = json.loads((folder / f"{STEM}_probseg.json").read_text())
    assert probability["LabelMap"] == names
    assert probability["Description"] == "Probability that the reference holds a structure there"
    mask = json.loads((folder / "sub-01_ses-b_run-2_desc-brain_mask.json").read_text())
    assert mask["Type"] == "Brain"
    assert mask["Description"] == "Brain mask"


def test_only_what_was_written_has_a_sidecar(tmp_path):
    paths = some_paths(tmp_path)
    write_sidecars(paths, some_provenance(), ASEG, flip_probability=False)
    written = {p.name.rsplit("_", 1)[1] for p in paths.folder.iterdir()}
    assert written == {"mask.json", "dseg.json"}


def test_a_level_is_the_nearest_one_and_what_is_beyond_the_scale_is_cut_off():
    values = np.linspace(-0.1, 0.7, 801, dtype=np.float32)[None]
    stored = level_maps(values, 0.5).levels * (0.5 / 255)
    assert np.abs(stored - values.clip(0, 0.5)).max() <= 0.5 / 255 / 2 * 1.001
    assert (stored.min(), stored.max()) == (0, 0.5)


def test_sidecars_of_a_resampled_result_say_so(tmp_path):
    settings = {"output_resolution": "1mm", "write_probseg": True}
    paths = some_paths(tmp_path, **settings)
    write_sidecars(paths, some_provenance(**settings), ASEG, flip_probability=True)
    written = sorted(paths.folder.iterdir())
    assert len(written) == 4
    for path in written:
        content = json.loads(path.read_text())
        assert content["Resolution"] == {"1mm": "1 mm isotropic, RAS"}
        assert content["SpatialReference"] == "bids:raw:sub-01/anat/x_T1w.nii.gz"


def test_links_lead_to_the_input(tmp_path):
    """What the description and the sidecars say together names the file that was read."""
    bids = tmp_path / "my bids"
    t1w = bids / "sub-a+b" / "anat" / "sub-a+b_T1w.nii.gz"
    mask = bids / "derivatives" / "my masks" / "sub-a+b" / "anat" / "sub-a+b_desc-brain_mask.nii.gz"
    for path in (t1w, mask):
        path.parent.mkdir(parents=True)
        path.touch()
    about = {"License": "CC0", "DatasetDOI": "10.1/x", "Name": "x", "Authors": []}
    (bids / "dataset_description.json").write_text(json.dumps(about))
    sources = sources_of(t1w, [mask], bids)
    assert sources[0] == "bids:raw:sub-a+b/anat/sub-a+b_T1w.nii.gz"
    for out in (bids / "derivatives" / "hetseg", tmp_path / "out"):
        out.mkdir()
        write_dataset_description(out, bids)
        content = json.loads((out / "dataset_description.json").read_text())
        assert content["License"] == "CC0"
        link = content["DatasetLinks"]["raw"]
        assert content["SourceDatasets"] == [{"URL": link, "DOI": "10.1/x"}]
        root = Path(unquote(link.removeprefix("file://")))
        found = [out / root / unquote(source.removeprefix("bids:raw:")) for source in sources]
        assert [path.resolve() for path in found] == [t1w, mask]
    nested = json.loads((bids / "derivatives/hetseg/dataset_description.json").read_text())
    assert nested["DatasetLinks"] == {"raw": "../.."}  # both move together


def test_the_dataset_says_who_made_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HETSEG_CONTAINER", "docker:hetseg:0.1")
    (tmp_path / ".tmp-0123456789ab-dataset_description.json").write_text("half")
    write_dataset_description(tmp_path, tmp_path / "in")
    content = json.loads((tmp_path / "dataset_description.json").read_text())
    assert content["Name"] == "hetseg: brain structure segmentation with label-flip uncertainty"
    assert content["DatasetType"] == "derivative"
    assert content["BIDSVersion"] == "1.11.1"
    assert "License" not in content  # the input doesn't name one
    assert content["SourceDatasets"] == [{"URL": (tmp_path / "in").as_uri()}]
    assert content["DatasetLinks"] == {"raw": (tmp_path / "in").as_uri()}
    assert content["GeneratedBy"] == [
        {
            "Name": "hetseg",
            "Version": __version__,
            "Container": {"Type": "docker", "Tag": "hetseg:0.1"},
        }
    ]
    assert {p.name for p in tmp_path.iterdir()} == {"dataset_description.json", ".bidsignore"}
    tables = ["*_morph.tsv", "*_morph.json", "*_change.tsv", "*_change.json"]
    ignored = (tmp_path / ".bidsignore").read_text().splitlines()
    assert ignored == ["*.html", "logs/", *tables, "group_*"]
    (tmp_path / ".bidsignore").write_text("mine\n")
    monkeypatch.delenv("HETSEG_CONTAINER")
    write_dataset_description(tmp_path, tmp_path / "in")
    assert (tmp_path / ".bidsignore").read_text() == "mine\n"
    content = json.loads((tmp_path / "dataset_description.json").read_text())
    assert content["GeneratedBy"] == [{"Name": "hetseg", "Version": __version__}]


def test_no_link_leads_out(tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    check_inside(out / "sub-01" / "anat", out)
    (out / "sub-01").symlink_to(elsewhere)
    with pytest.raises(OutputError, match=r"a link leads out of the output folder; remove it$"):
        check_inside(out / "sub-01" / "anat", out)


def test_an_image_goes_with_its_sidecar(tmp_path):
    image, other = tmp_path / "a_mask.nii.gz", tmp_path / "b_mask.nii.gz"
    for path in (image, tmp_path / "a_mask.json", other):
        path.write_text("")
    remove(image)
    remove(image)  # gone already
    assert list(tmp_path.iterdir()) == [other]


def test_crash_files_do_not_overwrite_each_other(tmp_path):
    paths = {write_crash(tmp_path, "sub-01", f"text {i}") for i in range(3)}
    assert len(paths) == 3
    for path in paths:
        assert path.parent == tmp_path / "logs"
        assert re.fullmatch(r"crash-sub-01-\d{8}T\d{12}\.txt", path.name)
        assert path.read_text().startswith("text")
