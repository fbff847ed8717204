"""Two labs pack their runs and merge them: nothing is lost, nothing is overwritten, and what contradicts is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fake_runs
from tests.conftest import Output
from tests.runs.test_archive import STUDY, run
from vitbench.machine.seal import sealed
from vitbench.runs import merge
from vitbench.runs.plan import Noted, add_notes, notes_path, read_notes
from vitbench.runs.probe_rows import save_rows
from vitbench.runs.study import load_study

Cli = Callable[..., Output]
IDS = [f"{model}-{seed}" for model in ("vit", "resnet") for seed in range(2)]


def lab(folder: Path, seed: int, note: bool = True) -> Path:
    """The runs of one seed of the study, and what the sweep noted that asked for them."""
    for model in ("vit", "resnet"):
        settings = {"model.name": model, "seed": seed, "data.fraction": 0.5}
        run(folder, f"{model}-{seed}", 0.5 + seed / 10 + 0.05 * (model == "resnet"), **settings)
    (folder.parent / "tiny.yaml").write_text(STUDY)
    if note:
        path = notes_path(load_study(str(folder.parent / "tiny.yaml")), folder)
        add_notes(path, Noted([f"vit-{seed}", f"resnet-{seed}"], [f"seed={seed}"], ["elsewhere"], {}))
    return folder


@pytest.fixture
def archives(tmp_path: Path, vitbench: Cli) -> str:
    for seed, name in enumerate("ab"):
        lab(tmp_path / name, seed)
        assert vitbench("pack", "study=tiny.yaml", f"runs={name}", f"file={name}.tar.gz").code == 0
    return "from=[a.tar.gz,b.tar.gz]"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_labs_become_one_folder_that_tables_and_reports_read(tmp_path: Path, vitbench: Cli, archives: str) -> None:
    done = vitbench("merge", archives, "runs=merged")
    assert (
        done.code == 0
        and not done.err
        and "merged: added 4 runs; 0 were there already with the same results" in done.out
    )
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {".plans", *IDS, "tiny.yaml"}
    for seed, name in enumerate("ab"):
        ours, theirs = tree(tmp_path / name / f"vit-{seed}"), tree(tmp_path / "merged" / f"vit-{seed}")
        assert theirs == {key: blob for key, blob in ours.items() if not key.endswith(".safetensors")}
    noted = read_notes(notes_path(load_study("merged/tiny.yaml"), tmp_path / "merged"))
    assert noted == Noted(["vit-0", "resnet-0", "vit-1", "resnet-1"], ["seed=0", "seed=1"], [], {})
    table = vitbench("table", "study=merged/tiny.yaml", "runs=merged")
    assert table.code == 0 and "over 2 seeds" in table.out and "missing" not in table.out + table.err
    checked = vitbench("check", "runs=merged", "results=none", "data.cache=none")
    assert checked.code == 0 and "4 runs" in checked.out and "all are whole" in checked.out


def test_a_report_reads_archives_as_if_they_were_runs(tmp_path: Path, vitbench: Cli, archives: str) -> None:
    assert vitbench("merge", archives, "runs=merged").code == 0
    assert vitbench("report", "study=merged/tiny.yaml", "runs=merged", "results=one").code == 0
    done = vitbench("report", archives, "results=two")
    assert done.code == 0 and not done.err
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    assert {*one} == {*two} >= {"README.md", "tiny/runs.csv", "tiny/study.yaml"}
    assert one["tiny/runs.csv"] == two["tiny/runs.csv"]
    assert vitbench("report", "results=two", "check=true").code == 0
    assert vitbench("report", "from=a.tar.gz", "check=true").code == 2


def test_equal_runs_are_equal_bytes_and_the_same_again_changes_nothing(
    tmp_path: Path, vitbench: Cli, archives: str
) -> None:
    blob = (tmp_path / "a.tar.gz").read_bytes()
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*"):
        os.utime(path, (1, 1))
    done = vitbench("pack", "study=tiny.yaml", "runs=copy", "file=copy.tar.gz")
    assert done.code == 0 and (tmp_path / "copy.tar.gz").read_bytes() == blob
    assert vitbench("merge", archives, "runs=merged").code == 0
    before = tree(tmp_path / "merged")
    again = vitbench("merge", archives, "runs=merged")
    assert again.code == 0 and "added 0 runs; 4 were there already with the same results" in again.out
    assert {key: blob for key, blob in tree(tmp_path / "merged").items() if ".plans" not in key} == {
        key: blob for key, blob in before.items() if ".plans" not in key
    }


def test_the_same_results_of_another_machine_are_the_same(tmp_path: Path, vitbench: Cli, archives: str) -> None:
    (tmp_path / "merged").mkdir()
    shutil.copytree(tmp_path / "a" / "vit-0", tmp_path / "merged" / "vit-0")
    hardware = {"device": "cuda", "name": "H200", "threads": 8, "precision": "bfloat16", "compiled": True}
    fake_runs.change(
        tmp_path / "merged" / "vit-0", train_seconds=1.0, created="2027-01-01T00:00:00Z", hardware=hardware
    )
    before = tree(tmp_path / "merged")
    done = vitbench("merge", archives, "runs=merged")
    assert done.code == 0 and "added 3 runs; 1 were there already with the same results" in done.out
    assert before.items() <= tree(tmp_path / "merged").items()


@pytest.fixture
def contradicting(tmp_path: Path, vitbench: Cli, archives: str) -> str:
    """An archive of a third lab, whose first run has other results than that of the first lab, on another machine."""
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    versions = {"python": "3.12.1", "vitbench": "0.1.0", "torch": "2.11", "numpy": "2.5"}
    fake_runs.change(tmp_path / "c" / "vit-0", test_accuracy=0.125, versions=versions)
    assert vitbench("pack", "study=tiny.yaml", "runs=c", "file=c.tar.gz").code == 0
    return archives.replace("]", ",c.tar.gz]")


def test_contradicting_runs_are_named_and_nothing_is_put_in_place(
    tmp_path: Path, vitbench: Cli, contradicting: str
) -> None:
    for words in ([contradicting, "runs=merged"], ["from=c.tar.gz", "runs=a"]):
        before = tree(tmp_path)
        done = vitbench("merge", *words)
        assert done.code == 3 and not done.out and tree(tmp_path) == before
        named, last = done.err.splitlines()
        assert "vit-0: test_accuracy is 0.5 in " in named and "and 0.125 in c.tar.gz" in named
        assert "torch 2.15 and 2.11" in named and "nothing was put in place" in last and "apart=FOLDER" in last
    assert vitbench("report", contradicting, "results=r").code == 3 and not (tmp_path / "r").exists()


def test_contradicting_runs_go_apart_where_that_is_asked_for(tmp_path: Path, vitbench: Cli, contradicting: str) -> None:
    done = vitbench("merge", contradicting, "runs=merged", "apart=other")
    assert done.code == 0 and "other: added 1 run, because" in done.out and "vit-0: test_accuracy is 0.5" in done.out
    accuracy = [
        json.loads((tmp_path / folder / "vit-0" / "record.json").read_text())["test_accuracy"]
        for folder in ("merged", "other")
    ]
    assert accuracy == [0.5, 0.125] and [path.name for path in (tmp_path / "other").iterdir()] == ["vit-0"]
    again = vitbench("merge", contradicting, "runs=merged", "apart=other")
    assert again.code == 0 and "6 were there already with the same results" in again.out
    fake_runs.change(tmp_path / "other" / "vit-0", test_accuracy=0.25)
    assert vitbench("merge", contradicting, "runs=merged", "apart=other").code == 3, "both folders have another one"
    for wrong in ("apart=merged", "apart=merged/apart", "apart=a.tar.gz"):
        assert vitbench("merge", contradicting, "runs=merged", wrong).code in (2, 4)


def test_a_run_that_trains_or_is_damaged_is_left_alone(tmp_path: Path, vitbench: Cli, archives: str) -> None:
    folder = tmp_path / "merged" / "vit-0"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    done = vitbench("merge", archives, "runs=merged")
    assert (
        done.code == 3
        and "has not ended" in done.err
        and tree(tmp_path / "merged") == {"vit-0/config.yaml": b"seed: 0\n"}
    )
    (folder / "record.json").write_text("{")
    done = vitbench("merge", archives, "runs=merged")
    assert done.code == 3 and "is not a whole record" in done.err and len(tree(tmp_path / "merged")) == 2


def test_settings_tell_runs_apart_that_claim_one_id(tmp_path: Path, vitbench: Cli, archives: str) -> None:
    shutil.copytree(tmp_path / "a" / "vit-0", tmp_path / "merged" / "vit-0")
    path = tmp_path / "merged" / "vit-0" / "record.json"
    record = json.loads(path.read_text())
    record["config"]["optim"]["lr"] = 0.5
    record["config"]["runs"] = "/somewhere/else"  # which decides no number
    path.write_text(json.dumps(sealed(record)))
    done = vitbench("merge", archives, "runs=merged")
    assert done.code == 3 and "optim.lr is 0.5 in merged and 0.001 in a.tar.gz;" in done.err


def test_a_run_gets_the_files_that_it_lacks(tmp_path: Path, vitbench: Cli, archives: str) -> None:
    assert vitbench("merge", archives, "runs=merged").code == 0
    row = {"protocol": "shift.crop@v2", "metric": "consistency", "value": 0.5}
    (tmp_path / "a/vit-0/probes").mkdir()
    save_rows(tmp_path / "a/vit-0/probes/shift.csv", [row], images=9, seed=0, options={}, hardware="Xeon")
    assert vitbench("pack", "runs=a", "checkpoints=true", "file=more.tar.gz").code == 0
    done = vitbench("merge", "from=more.tar.gz", "runs=merged")
    assert done.code == 0 and "added 3 files to runs that lacked them" in done.out
    assert tree(tmp_path / "merged" / "vit-0") == tree(tmp_path / "a" / "vit-0")
    assert vitbench("check", "runs=merged", "results=none", "data.cache=none").code == 0


def test_another_study_of_the_same_name_is_told_and_stays(tmp_path: Path, vitbench: Cli, archives: str) -> None:
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "tiny.yaml").write_text("title: mine\n")
    done = vitbench("merge", archives, "runs=merged")
    assert done.code == 0 and done.err.count("merged/tiny.yaml stays as it is; the study in") == 2
    assert (tmp_path / "merged" / "tiny.yaml").read_text() == "title: mine\n"


def test_a_damaged_run_is_named_and_not_packed(tmp_path: Path, vitbench: Cli) -> None:
    for number in range(4):
        run(tmp_path / "runs", f"vit-{number}")
    (tmp_path / "runs/vit-0/predictions.npy").write_bytes(b"x")
    (tmp_path / "runs/vit-1/record.json").write_text("{")
    (tmp_path / "runs/vit-2/probes").mkdir()
    (tmp_path / "runs/vit-2/probes/shift.csv").write_text("a\n")
    done = vitbench("pack", "file=a.tar.gz")
    assert done.code == 3 and "2 runs, 12 files" in done.out and done.err.count("left out: ") == 3
    assert all(name in done.err for name in ("vit-0, whose predictions.npy", "vit-1/record.json", "probes/shift.csv"))
    assert vitbench("merge", "from=a.tar.gz", "runs=merged").code == 0
    for number in (2, 3):
        (tmp_path / f"runs/vit-{number}/labels.npy").write_bytes(b"x")
    done = vitbench("pack", "file=b.tar.gz")
    assert done.code == 3 and "no run can be packed" in done.err and not (tmp_path / "b.tar.gz").exists()


MISTAKES = {
    ("merge",): "from=ARCHIVE",
    ("merge", "from=[]"): "from=ARCHIVE",
    ("merge", "from=[3]"): "from=ARCHIVE",
    ("merge", "from=a.tar.gz,b.tar.gz"): "a list is typed from=[a.tar.gz,b.tar.gz]",
    ("merge", "form=a.tar.gz"): "did you mean from",
    ("merge", "from=none.tar.gz"): "from=none.tar.gz cannot be read: No such file",
    ("merge", "from=."): "cannot be read: Is a directory",
    ("pack",): "runs=runs: has no finished run",
    ("pack", "study=quickstart"): "none of its 27 runs has ended",
    ("pack", "file=a.zip"): "file=a.zip: must end in .tar.gz or .tgz",
    ("report", "from=one.tar.gz"): "holds no study; type study=NAME",
    ("table", "per=run"): "add format=csv",
    ("table", "per=run", "format=csv", "rows=model"): "leave rows= out",
}


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_slip_is_one_line(tmp_path: Path, vitbench: Cli, words: tuple[str, ...]) -> None:
    run(tmp_path / "one", "vit-0")
    assert vitbench("pack", "runs=one", "file=one.tar.gz").code == 0
    done = vitbench(*words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and MISTAKES[words] in done.err, done.err


def test_all_runs_are_one_csv(tmp_path: Path, vitbench: Cli, archives: str) -> None:
    assert vitbench("merge", archives, "runs=merged").code == 0
    assert vitbench("table", "per=run", "runs=merged", "file=all.csv").code == 0
    printed = vitbench("table", "per=run", "runs=merged", "format=csv")
    assert printed.out == (tmp_path / "all.csv").read_text() and not printed.err
    head, *lines = printed.out.splitlines()
    assert head.startswith("id,status,data,model,pe,") and {line.split(",")[0] for line in lines} == {*IDS}
    some = vitbench("table", "per=run", "runs=merged", "format=csv", "where.seed=1")
    assert {line.split(",")[0] for line in some.out.splitlines()[1:]} == {"vit-1", "resnet-1"}


def test_a_merge_that_cannot_go_on_leaves_whole_runs_and_no_others(
    tmp_path: Path, vitbench: Cli, archives: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, calls = os.rename, []

    def fails(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(merge.os, "rename", fails)
    done = vitbench("merge", archives, "runs=merged")
    assert done.code == 4 and done.err.count("\n") == 1 and "No space left" in done.err
    assert [len(tree(path)) for path in (tmp_path / "merged").iterdir()] == [6, 6]
    monkeypatch.undo()
    os.chdir(tmp_path)
    assert vitbench("merge", archives, "runs=merged").code == 0


def test_what_a_killed_merge_had_unpacked_can_go(tmp_path: Path, vitbench: Cli, archives: str) -> None:
    assert vitbench("merge", archives, "runs=merged").code == 0
    left = tmp_path / "merged" / ".merge.abcd1234.999999999.tmp"
    shutil.copytree(tmp_path / "a", left / "0" / "runs")
    before = {key for key in tree(tmp_path / "merged") if not key.startswith(".merge")}
    words = ["clean", "runs=merged", "results=none", "data.cache=none", "what=temporary", "days=0"]
    assert str(left.relative_to(tmp_path)) in vitbench(*words).out and left.exists()
    assert vitbench(*words, "remove=true").code == 0 and not left.exists()
    assert {*tree(tmp_path / "merged")} == before


@pytest.mark.usefixtures("archives")
@pytest.mark.parametrize("words", [("pack", "runs=a", "file=c.tar.gz"), ("merge", "from=a.tar.gz", "runs=c")])
def test_neither_imports_torch(tmp_path: Path, words: tuple[str, ...]) -> None:
    code = f"import sys; from vitbench import cli; code = cli.run({words!r}); sys.exit(code or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
