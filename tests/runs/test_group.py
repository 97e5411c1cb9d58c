"""Group level: tables, outliers, who is missing, and the page of a small cohort."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from hetseg_bids.outputs.finished import read_results
from hetseg_bids.runs.group import run_group
from hetseg_bids.segmentation.wholes import SUMS
from hetseg_bids.structures.aseg import N_STRUCTURES, STRUCTURES
from support.browsing import HOSTILE, HOSTILE_NAME, Opened, Tags
from support.commands import run_cli, run_here
from support.datasets import t1w_path, write_dataset
from support.phantoms import small_brain
from support.results import write_results

N = 10
SUBJECTS = [f"sub-{n:02d}" for n in range(N)]
SUBJECTS[4] = f"sub-{HOSTILE_NAME}"


def one_brain(number: int) -> np.ndarray:
    """A phantom whose right putamen differs a little from person to person."""
    labels = small_brain()
    places = np.argwhere(labels == 51)
    for place in places[: 3 * number]:
        labels[tuple(place)] = 41
    return labels


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> tuple[Path, Path]:
    """Ten scans, the last one with most of its left putamen lost; and one that never finished."""
    root = tmp_path_factory.mktemp("cohort")
    bids, out = write_dataset(root / "bids"), root / "out"
    for number in range(N):
        labels = one_brain(number)
        if number == N - 1:
            places = np.argwhere(labels == 12)
            labels[tuple(places[len(places) // 6 :].T)] = 2
        write_results(out, SUBJECTS[number], labels)
        (bids / SUBJECTS[number]).mkdir()
    (bids / "sub-lost").mkdir()
    people = [f"{SUBJECTS[n]}\t{20 + n}\t{'FM'[n % 2]}\t{n % 3}{HOSTILE}" for n in range(N)]
    header = f"participant_id\tage\tsex\tnote{HOSTILE}"
    (bids / "participants.tsv").write_text("\n".join([header, *people[:-1]]) + "\n")
    broken, _ = write_results(out, "sub-broken", small_brain())
    broken.morph.write_text("nonsense")
    (out / "logs").mkdir()
    (out / "logs" / f"crash-sub-{HOSTILE.replace('/', '')}.txt").write_text("it failed")
    done = run_cli("hetseg", bids, out, "group")
    assert done.code == 0, done.err
    assert done.out.strip() == str(out / "group.html")
    assert "sub-broken" in done.err
    return bids, out


def test_tables_hold_every_finished_scan_with_a_data_dictionary(cohort):
    _, out = cohort
    for name, rows in (("group_morph", N * N_STRUCTURES), ("group_qc", N)):
        table = pd.read_csv(out / f"{name}.tsv", sep="\t")
        assert len(table) == rows
        dictionary = json.loads((out / f"{name}.json").read_text())
        assert list(dictionary) == list(table.columns)


def read_tsv(path: Path) -> pd.DataFrame:
    """As strings, as they stand there."""
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def test_wide_tables_have_a_row_for_each_scan_and_a_column_for_each_structure(cohort):
    _, out = cohort
    long = read_tsv(out / "group_morph.tsv")
    for name, column in (("volumes", "volume_mm3"), ("soft_volumes", "expected_volume_mm3")):
        wide = read_tsv(out / f"group_{name}.tsv")
        assert list(wide.columns[:5]) == [
            *("participant_id", "session_id", "scan", "model", "processing")
        ]
        assert list(wide.columns[-N_STRUCTURES - len(SUMS) :]) == [
            *(s.name for s in STRUCTURES),
            *SUMS,
        ]
        again = wide.melt("scan", [s.name for s in STRUCTURES], "name", column)
        both = again.merge(long[["scan", "name", column]], on=["scan", "name"])
        assert len(both) == N * N_STRUCTURES
        assert (both[f"{column}_x"].astype(float) == both[f"{column}_y"].astype(float)).all()
        dictionary = json.loads((out / f"group_{name}.json").read_text())
        assert list(dictionary) == list(wide.columns)
        assert {dictionary[s.name]["Units"] for s in STRUCTURES} == {"mm^3"}
    counted, soft = (read_tsv(out / f"group_{n}.tsv") for n in ("volumes", "soft_volumes"))
    assert (counted["brainstem"] != soft["brainstem"]).all()


def test_covariates_are_joined_between_the_names_and_the_structures(cohort, tmp_path):
    bids, out = tmp_path / "bids", tmp_path / "out"
    shutil.copytree(cohort[1], out)
    people = [f"{name}\t{20 + n}\t\tn/a" for n, name in enumerate(SUBJECTS[:-1])]
    write_dataset(bids)
    (bids / "participants.tsv").write_text(
        "\n".join(["participant_id\tage\tsex\tbrainstem", *people, f"{SUBJECTS[0]}\t99\tF\t1"])
    )
    (bids / "participants.json").write_text(json.dumps({"age": {"Units": "year"}}))
    done = run_cli("hetseg", bids, out, "group", "--covariates", "sex", "age")
    assert done.code == 0, done.err
    assert f"rows, of which the first counts: {SUBJECTS[0]}" in done.err
    assert f"without a row in participants.tsv: {SUBJECTS[-1]}" in done.err
    wide = read_tsv(out / "group_volumes.tsv")
    place = list(wide.columns).index("left_cerebral_white_matter")
    assert list(wide.columns[place - 2 : place]) == ["sex", "age"]
    by_person = wide.set_index("participant_id")
    assert dict(by_person["age"]) == {
        **{name: str(20 + n) for n, name in enumerate(SUBJECTS[:-1])},
        SUBJECTS[-1]: "n/a",
    }
    assert set(wide["sex"]) == {"n/a"}
    assert json.loads((out / "group_volumes.json").read_text())["age"] == {"Units": "year"}
    before = (out / "group_morph.tsv").stat().st_mtime_ns
    for wanted, said in (
        ("height", "no column height; it has age, sex, brainstem"),
        (
            "all",
            "the tables have a column brainstem of their own; rename it, or name the columns "
            "that you want",
        ),
    ):
        done = run_here("hetseg", bids, out, "group", "--covariates", wanted)
        assert done.code == 2
        last = done.err.splitlines()[-1]
        assert last == f"hetseg: --covariates {bids / 'participants.tsv'}: {said}"
    assert (out / "group_morph.tsv").stat().st_mtime_ns == before
    done = run_here("hetseg", bids, out, "participant", "--covariates", "age")
    assert (done.code, "only the group level" in done.err) == (2, True)


def test_the_odd_scan_comes_first_and_says_why(cohort):
    _, out = cohort
    table = pd.read_csv(out / "group_qc.tsv", sep="\t").set_index("scan")
    assert table["outlier_score"].idxmax() == f"sub-{N - 1:02d}"
    assert "utamen" in table.loc[f"sub-{N - 1:02d}", "outlier_of"]
    brain = small_brain()
    assert table.loc["sub-00", "brain_mask_ml"] == pytest.approx((brain > 0).sum() * 8 / 1000)


def test_the_page_names_who_is_missing_and_escapes_everything(cohort):
    _, out = cohort
    text = (out / "group.html").read_text()
    assert "sub-lost" in text
    assert 'id="change"' not in text  # nobody has several sessions
    assert not list(out.rglob("*_change.*"))
    tags = Tags(text).found
    assert not any(name.startswith("on") for _, a in tags for name in a)
    assert len([t for t, _ in tags if t == "script"]) == 2
    for tag, attributes in tags:
        for name in ("src", "href"):
            link = attributes.get(name) or ""
            assert link == "" or link.startswith(("data:", "#")), (tag, link[:80])


def test_the_group_level_can_run_again_and_needs_a_finished_scan(cohort, tmp_path):
    bids, out = cohort
    before = {p.name: p.read_bytes() for p in out.glob("group*")}
    assert run_cli("hetseg", bids, out, "group").code == 0
    assert {p.name: p.read_bytes() for p in out.glob("group*")} == before
    done = run_cli("hetseg", bids, tmp_path, "group")
    assert done.code == 2
    assert "no finished scans" in done.err


def test_a_table_of_an_older_version_is_used_without_the_columns_it_lacks(tmp_path):
    paths, _ = write_results(tmp_path / "out", "sub-01", small_brain())
    table = pd.read_csv(paths.morph, sep="\t", dtype=str, keep_default_na=False)
    newer = ["volume_repeat_sd_mm3", "expected_volume_mm3"]
    table.drop(columns=newer).to_csv(paths.morph, sep="\t", index=False)
    done = run_cli("hetseg", write_dataset(tmp_path / "bids"), tmp_path / "out", "group")
    assert done.code == 0, done.err
    morph = tmp_path / "out" / "group_morph.tsv"
    table = pd.read_csv(morph, sep="\t", dtype=str, keep_default_na=False)
    assert set(table["volume_repeat_sd_mm3"]) == {"n/a"}
    soft = pd.read_csv(morph.with_name("group_soft_volumes.tsv"), sep="\t", keep_default_na=False)
    assert set(soft[[s.name for s in STRUCTURES]].iloc[0]) == {"n/a"}
    assert (table["volume_mm3"].astype(float) >= 0).all()


@dataclass(frozen=True)
class Untidy:
    """A cohort with everything that must not be counted, and what the group level said."""

    bids: Path
    out: Path
    said: str

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.out / f"group_{name}.tsv", sep="\t", keep_default_na=False)

    @property
    def page(self) -> str:
        return (self.out / "group.html").read_text()


def write_crash_at(out: Path, stem: str, time: datetime.datetime, text: str) -> str:
    name = f"crash-{stem}-{time.strftime('%Y%m%dT%H%M%S%f')}.txt"
    (out / "logs").mkdir(exist_ok=True)
    (out / "logs" / name).write_text(text)
    return name


@pytest.fixture(scope="module")
def untidy(tmp_path_factory) -> Untidy:
    """TemplateFlow's home and the user's lie below a file: nobody can read or write them."""
    root = tmp_path_factory.mktemp("untidy")
    bids, out = write_dataset(root / "bids"), root / "out"
    for name in ("01", "04", "05", "08"):
        t1w_path(bids, name).touch()
        write_results(out, f"sub-{name}", small_brain())
    for session in ("1", "2", "3"):
        image = bids / "sub-02" / f"ses-{session}" / "anat" / f"sub-02_ses-{session}_T1w.nii.gz"
        image.parent.mkdir(parents=True)
        image.touch()
        if session != "3":
            write_results(out, f"sub-02_ses-{session}", small_brain())
    t1w_path(bids, "03").touch()
    t1w_path(bids, "03", "_part-phase").touch()
    (bids / "sub-06" / "func").mkdir(parents=True)
    people = [f"sub-0{n}\t{20 + n}" for n in range(1, 9)]
    (bids / "participants.tsv").write_text("\n".join(["participant_id\tage", *people]) + "\n")
    for path in [*(out / "sub-01" / "anat").glob("*_seg-hetseg*")]:  # the same T1w at 1 mm
        shutil.copy(path, path.with_name(path.name.replace("hetseg_", "hetseg_res-1mm_", 1)))
    record = next((out / "sub-08").rglob("*_dseg.json"))
    content = json.loads(record.read_text())
    content["HetsegModelSHA256"] = "2" * 64
    record.write_text(json.dumps(content))
    now = datetime.datetime.now(tz=datetime.UTC)
    hour = datetime.timedelta(hours=1)
    why = "Traceback\n\nhetseg_bids.errors.ImageError: /a/sub-03_T1w.nii.gz: truncated <b>\n"
    write_crash_at(out, "sub-03", now - 2 * hour, "an older one")
    write_crash_at(out, "sub-03", now - hour, why)
    write_crash_at(out, "sub-04", now - hour, "before it went well")
    write_crash_at(out, "sub-05", now - hour, "long before the run that is in the log")
    started = {"Started": (now - 2 * hour).isoformat(timespec="seconds")}
    (out / "logs" / "sub-05_run.json").write_text(json.dumps(started))
    (root / "file").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(root / "file" / "home"))
        patch.setenv("TEMPLATEFLOW_HOME", str(root / "file" / "templateflow"))
        done = run_cli("hetseg", bids, out, "group")
    assert done.code == 0, done.err
    assert done.out.strip() == str(out / "group.html")
    return Untidy(bids, out, done.err)


def test_a_home_that_cannot_be_used_costs_nothing(untidy):
    assert "Traceback" not in untidy.said
    assert 'id="map"' in untidy.page


def test_two_results_of_one_image_count_once_and_the_native_one_is_used(untidy):
    assert "the native one is used: sub-01\n" in untidy.said
    quality = untidy.table("qc")
    scans = ["sub-01", "sub-02_ses-1", "sub-02_ses-2", "sub-04", "sub-05", "sub-08"]
    assert list(quality["scan"]) == scans
    assert quality["processing"].str.endswith("grid native").all()
    assert list(untidy.table("morph")["scan"].unique()) == scans


def test_people_and_scans_are_counted_separately(untidy):
    assert "<h1>6 scans of 5 people</h1>" in untidy.page
    assert "of 5 people, one scan of each" in untidy.page


def test_one_scan_of_each_session_may_be_chosen(tmp_path):
    bids, out = write_dataset(tmp_path / "bids"), tmp_path / "out"
    lost = small_brain()
    lost[np.isin(lost, (8, 10))] = 0  # the verdict sees that the sides differ
    runs = {"run-1": lost, "run-2": small_brain(), "run-10": small_brain()}
    for run, labels in runs.items():
        t1w_path(bids, "01", f"_{run}").touch()
        write_results(out, f"sub-01_{run}", labels)
    write_results(out, "sub-01_mod-UNIT1", small_brain())
    t1w_path(bids, "01").with_name("sub-01_UNIT1.nii.gz").touch()
    (out / "sub-01" / "anat" / "sub-01_run-10_seg-hetseg_dseg.json").unlink()  # not finished

    def scans(choose: str) -> tuple[list[str], str]:
        done = run_cli("hetseg", bids, out, "group", "--choose", choose)
        assert done.code == 0, done.err
        table = read_tsv(out / "group_volumes.tsv")
        assert list(table["scan"]) == list(read_tsv(out / "group_soft_volumes.tsv")["scan"])
        best = list(table["scan"][table["best_of_session"] == "yes"])
        assert best == [s for s in table["scan"] if s in ("sub-01_mod-UNIT1", "sub-01_run-2")]
        return list(table["scan"]), done.err

    # images of another kind are never compared
    every = ["sub-01_mod-UNIT1", "sub-01_run-1", "sub-01_run-2"]
    found, said = scans("all")
    assert found == every
    assert "1 scans or participants of the dataset without a finished result: sub-01_run-10" in said
    assert "grid native, image UNIT1" in said
    assert scans("best")[0] == ["sub-01_mod-UNIT1", "sub-01_run-2"]
    found, said = scans("first")
    assert found == ["sub-01_mod-UNIT1", "sub-01_run-1"]
    assert "without a finished result" not in said
    assert "not of this dataset" not in said
    assert len(read_tsv(out / "group_qc.tsv")) == 3
    assert "<h1>3 scans of 1 person</h1>" in (out / "group.html").read_text()


def test_named_participants_are_in_the_tables_and_the_pages_of_others_stay(untidy, tmp_path):
    out = shutil.copytree(untidy.out, tmp_path / "out")
    pages = {path.name for path in out.glob("sub-02*change*")}
    assert pages
    done = run_cli(
        "hetseg", untidy.bids, out, "group", "--participant-label", "01", "sub-03", "07", "99"
    )
    assert done.code == 0, done.err
    assert set(read_tsv(out / "group_volumes.tsv")["participant_id"]) == {"sub-01"}
    assert set(read_tsv(out / "group_qc.tsv")["participant_id"]) == {"sub-01"}
    assert list(read_tsv(out / "group_missing.tsv")["participant_id"]) == ["sub-03", "sub-07"]
    page = (out / "group.html").read_text()
    assert page.count("crash-sub-03-") == 2
    assert "crash-sub-05-" not in page
    assert "no finished scan of sub-03, sub-07, sub-99" in done.err
    assert "1 of 6 finished scans" in done.err
    assert {path.name for path in out.glob("sub-02*change*")} == pages

    done = run_cli("hetseg", untidy.bids, out, "group", "--session-label", "2")
    assert done.code == 0, done.err
    assert list(read_tsv(out / "group_volumes.tsv")["session_id"]) == ["ses-2"]
    done = run_cli("hetseg", untidy.bids, out, "group", "--participant-label", "99")
    assert done.code == 2
    assert "the options name none of 6 finished scans" in done.err


def test_mixed_models_are_said_on_the_page_and_in_a_line(untidy):
    (line,) = [line for line in untidy.said.splitlines() if "ways of processing" in line]
    assert "5 with label-flip 111111111111, hetseg" in line
    assert "1 with label-flip 222222222222, hetseg" in line
    assert "1 scan: label-flip 222222222222" in untidy.page
    data = json.loads(untidy.page.split('id="data">')[1].split("</script>")[0])
    assert set(data["columns"]) == {"Model and processing", "age"}
    assert len(set(data["columns"]["Model and processing"])) == 2


def test_who_is_missing_is_printed_and_in_a_file_with_session_and_reason(untidy):
    (line,) = [line for line in untidy.said.splitlines() if "without a finished result" in line]
    assert line.startswith("4 scans or participants")
    assert ": sub-02_ses-3, sub-03, sub-06, sub-07 (" in line
    missing = untidy.table("missing").set_index("participant_id")
    assert list(missing.index) == ["sub-02", "sub-03", "sub-06", "sub-07"]
    assert missing.loc["sub-02", "session_id"] == "ses-3"
    assert list(missing["reason"]) == [
        "not run, or not to the end",
        "failed: /a/sub-03_T1w.nii.gz: truncated <b>",
        "no T1w image in the dataset",
        "only in participants.tsv",
    ]
    assert (untidy.out / "logs" / missing.loc["sub-03", "crash_file"]).is_file()
    dictionary = json.loads((untidy.out / "group_missing.json").read_text())
    assert list(dictionary) == list(untidy.table("missing").columns)
    assert "truncated &lt;b&gt;" in untidy.page


def test_crash_files_before_a_success_are_kept_but_not_listed(untidy):
    (text,) = [line for line in untidy.page.splitlines() if "Crash files in logs/" in line]
    assert "no later run finished: 3<" in text
    assert text.count("crash-sub-03-") == 2
    assert text.count("crash-sub-05-") == 1
    assert len(list((untidy.out / "logs").glob("crash-sub-04-*"))) == 1


def test_without_the_dataset_one_line_says_that_nobody_can_be_missed(untidy, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(untidy.out, out)
    done = run_cli("hetseg", tmp_path / "NOWHERE", out, "group")
    assert done.code == 0
    (line,) = [line for line in done.err.splitlines() if "NOWHERE" in line]
    assert "which scans are missing" in line
    assert not list(out.glob("group_missing*"))  # that of another time would be wrong now
    assert "can't say who is missing" in (out / "group.html").read_text()


def test_a_map_that_cannot_be_drawn_costs_a_line(untidy, tmp_path, monkeypatch, caplog):
    def broken():
        raise PermissionError(13, "not yours")

    monkeypatch.setattr("hetseg_bids.runs.group.load_template", broken)
    shutil.copytree(untidy.out, tmp_path / "out")
    page = run_group(untidy.bids, tmp_path / "out").read_text()
    assert "6 scans" in page
    assert 'id="map"' not in page
    assert "no mean flip map on the page (PermissionError" in caplog.text


def test_the_structures_that_most_scans_have_decide(untidy, tmp_path, caplog):
    out = tmp_path / "out"
    shutil.copytree(untidy.out, out)
    for path in (out / "sub-01").rglob("*.tsv"):
        path.write_text(path.read_text().replace("brainstem", "stalk"))
    results = read_results(out)
    assert [scan.person for scan in results.scans] == [f"sub-0{n}" for n in (2, 2, 4, 5, 8)]
    assert results.unusable == {"sub-01": "its structures aren't those of the other 5 scans"}
    assert "sub-01_seg-hetseg_dseg.nii.gz, sub-01_seg-hetseg_res-1mm_dseg.nii.gz: left out" in (
        caplog.text
    )


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_small_cohort_links_its_pages_and_runs_nothing(chromium, cohort, scheme):
    _, out = cohort
    opened = Opened(chromium, out / "group.html", color_scheme=scheme)
    tab = opened.page
    tab.wait_for_function("document.body.dataset.ready")
    assert tab.evaluate("window.hacked") is None
    links = tab.locator("#ranking a").evaluate_all(
        "links => links.map(l => l.getAttribute('href'))"
    )
    assert sorted(unquote(link) for link in links) == sorted(f"./{s}.html" for s in SUBJECTS)
    column = tab.locator("#column-filters select").last
    assert HOSTILE in column.get_attribute("data-column")
    column.select_option(f"=1{HOSTILE}")
    assert tab.inner_text("#shown") == f"3 of {N} scans"
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("#map figure:not(.scale) img").count() == 6
    assert tab.locator("#map .scale img").get_attribute("alt").startswith("Colour bar")
    opened.keep_picture(f"group-{scheme}")
    assert opened.complaints == []
    assert len(STRUCTURES) == tab.locator("#plots canvas").count()


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path]:
    """Two finished people."""
    bids, out = write_dataset(tmp_path / "bids"), tmp_path / "out"
    for number in range(2):
        write_results(out, f"sub-{number}", one_brain(number), icv_mm3=1_500_000)
        (bids / f"sub-{number}").mkdir()
    return bids, out


def test_copies_in_folders_of_other_names_count_neither_here_nor_in_exports(two, tmp_path):
    bids, out = two
    shutil.copytree(out / "sub-0", out / "sub-0_old")
    shutil.copytree(out / "sub-1", out / "sub-1" / "ses-old")
    done = run_here("hetseg", bids, out, "group")
    assert done.code == 0, done.err
    assert "in folders of other names than their own" in done.err
    assert pd.read_csv(out / "group_qc.tsv", sep="\t")["scan"].tolist() == ["sub-0", "sub-1"]
    done = run_here("hetseg-export", out, tmp_path / "subjects")
    assert done.code == 0, done.err
    assert [Path(line).name for line in done.out.split()] == ["sub-0", "sub-1"]


def test_a_table_that_is_cut_off_is_named_not_read(two):
    bids, out = two
    morph = out / "sub-0" / "anat" / "sub-0_seg-hetseg_morph.tsv"
    lines = morph.read_text().splitlines(keepends=True)
    morph.write_text("".join(lines[: 1 + N_STRUCTURES]))
    done = run_here("hetseg", bids, out, "group")
    assert done.code == 0, done.err
    assert "sub-0_seg-hetseg_morph.tsv is cut off" in done.err
    assert pd.read_csv(out / "group_qc.tsv", sep="\t")["scan"].tolist() == ["sub-1"]


def test_a_finished_person_whose_image_is_gone_is_not_missing(two):
    bids, out = two
    (bids / "sub-0").rmdir()
    (bids / "participants.tsv").write_text("participant_id\nsub-0\nsub-1\nsub-2\n")
    done = run_here("hetseg", bids, out, "group")
    assert done.code == 0, done.err
    missing = pd.read_csv(out / "group_missing.tsv", sep="\t")
    assert missing["participant_id"].tolist() == ["sub-2"]


def test_volumes_are_divided_by_those_of_the_chosen_scans_or_not_at_all(tmp_path):
    bids, out = write_dataset(tmp_path / "bids"), tmp_path / "out"
    write_results(out, "sub-0_run-1", one_brain(0), no_icv="cut")
    write_results(out, "sub-0_run-2", one_brain(0), icv_mm3=1_500_000)
    command = ("hetseg", bids, out, "group", "--normalise", "icv")
    done = run_here(*command, "--choose", "first")
    assert done.code == 2
    assert "isn't known for 1 of 1 scans" in done.err
    assert not list(out.glob("group_*"))
    done = run_here(*command)
    assert done.code == 0, done.err


def test_head_models_that_differ_are_said_where_volumes_are_divided(two):
    bids, out = two
    record = out / "sub-0" / "anat" / "sub-0_seg-hetseg_dseg.json"
    record.write_text(record.read_text().replace("3" * 64, "4" * 64))
    done = run_here("hetseg", bids, out, "group", "--normalise", "icv")
    assert done.code == 0, done.err
    assert "intracranial volumes of 2 head models" in done.err


def test_a_filter_of_the_participant_level_is_refused(two, tmp_path):
    bids, out = two
    (tmp_path / "filter.json").write_text("{}")
    done = run_here("hetseg", bids, out, "group", "--bids-filter-file", tmp_path / "filter.json")
    assert done.code == 2
    assert "--bids-filter-file: only the participant level reads it" in done.err
