from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import Output
from tests.fake_runs import record
from vitbench.data.cache import Contents, Rows, cached
from vitbench.runs.run import Run, write_record
from vitbench.upkeep import clean
from vitbench.upkeep.needed import Needs, reduced_fingerprint

Cli = Callable[..., Output]
DEAD = 2**22 + 1  # more than the largest number of a process


def begun(runs: Path, name: str = "vit-learned-shapes-f1-s0-3fa9c1d2", **failure: str) -> Path:
    """The folder of a run that has settings and no record; with `error`, one that failed."""
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(record(0.5)["config"]))
    (folder / "metrics.csv").write_text("step,epoch\n")
    (folder / ".lock").touch()
    if failure:
        (folder / "failure.json").write_text(json.dumps(failure))
    return folder


def finished(runs: Path, name: str = "vit-learned-shapes-f1-s1-3fa9c1d3", **changed: Any) -> Path:
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 1\n")
    write_record(folder, record(0.5, **changed) | {"id": name})  # type: ignore[arg-type]
    return folder


def images(cache: Path, name: str = "shapes-shape", number: int = 0) -> tuple[Path, str]:
    """Decodes four images into the cache; returns their header and their fingerprint."""

    def build(rows: Rows) -> Contents:
        rows.allocate(4, 1, 2)
        rows.write(0, np.full((4, 1, 2, 2), number, np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None, None])
        return Contents(np.array([0, 1]), np.array([0, 1]), ("a", "b"))

    before = {*cache.glob("*.json")}
    dataset = cached(cache, name, number, build)
    (header,) = {*cache.glob("*.json")} - before
    return header, dataset.fingerprint


def everything(folder: Path) -> dict[str, bytes | str]:
    """All that is below a folder, by its path."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def cleaned(vitbench: Cli, *words: str) -> Output:
    return vitbench("clean", "runs=r", "results=results", "data.cache=c", *words)


def test_it_shows_what_it_would_remove_and_removes_it_only_when_asked(vitbench: Cli, tmp_path: Path) -> None:
    folder = begun(tmp_path / "r", error="OSError: no")
    header, _ = images(tmp_path / "c", "cifar10")
    before = everything(tmp_path)
    shown = cleaned(vitbench, "days=0")
    assert shown.code == 0 and everything(tmp_path) == before
    assert "failed: OSError: no" in shown.out and str(Path("c") / header.name) in shown.out
    assert "remove=true" in shown.out
    assert cleaned(vitbench, "days=0", "remove=true").code == 0
    assert not folder.exists() and not header.exists() and not header.with_suffix(".npy").exists()
    assert "nothing to delete" in cleaned(vitbench, "days=0").out


def test_what_is_younger_than_days_stays(vitbench: Cli, tmp_path: Path) -> None:
    folder = begun(tmp_path / "r", error="x")
    shown = cleaned(vitbench, "remove=true")
    assert folder.exists() and "nothing to delete; 1 item left out, because younger than days=1" in shown.out
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    assert cleaned(vitbench, "remove=true").code == 0 and not folder.exists()
    assert "days=-1.0: must be 0 or more" in cleaned(vitbench, "days=-1").err


@pytest.mark.parametrize("words", [["what=nothing"], ["what=[caches,runs]"], ["format=csv"]])
def test_a_choice_that_there_is_not_is_one_line(vitbench: Cli, words: list[str]) -> None:
    refused = cleaned(vitbench, *words)
    assert refused.code == 2 and refused.err.count("\n") == 1 and "choices: " in refused.err


def test_what_names_kinds_and_json_has_paths_and_bytes(vitbench: Cli, tmp_path: Path) -> None:
    begun(tmp_path / "r", error="x")
    images(tmp_path / "c", "cifar10")
    told = json.loads(cleaned(vitbench, "days=0", "what=failed", "format=json").out)
    assert [thing["what"] for thing in told["things"]] == ["failed"] and told["things"][0]["bytes"] > 0
    both = json.loads(cleaned(vitbench, "days=0", "what=[caches,failed]", "format=json").out)
    assert [thing["what"] for thing in both["things"]] == ["caches", "failed"]


# ---------------------------------------------------------------------------------------------------- what never goes


def with_a_record(folder: Path) -> None:
    (folder / "record.json").write_text("{torn")


def with_a_file_of_the_user(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def with_a_folder(folder: Path) -> None:
    (folder / "probes").mkdir()


def with_a_link(folder: Path) -> None:
    (folder / "checkpoint.safetensors").symlink_to("/etc/passwd")


def with_other_settings(folder: Path) -> None:
    (folder / "config.yaml").write_text("name: mine\n")


def with_a_link_for_settings(folder: Path) -> None:
    os.replace(folder / "config.yaml", folder.parent / "elsewhere.yaml")
    (folder / "config.yaml").symlink_to(folder.parent / "elsewhere.yaml")


@pytest.mark.parametrize(
    "change",
    [with_a_record, with_a_file_of_the_user, with_a_folder, with_a_link, with_other_settings, with_a_link_for_settings],
)
def test_a_folder_that_holds_anything_else_stays_as_it_is(
    change: Callable[[Path], None], vitbench: Cli, tmp_path: Path
) -> None:
    change(begun(tmp_path / "r", error="x"))
    before = everything(tmp_path)
    assert cleaned(vitbench, "days=0", "remove=true").code == 0 and everything(tmp_path) == before


def test_a_finished_run_stays_with_all_that_is_in_it(vitbench: Cli, tmp_path: Path) -> None:
    folder = finished(tmp_path / "r")
    (folder / "state.safetensors").write_bytes(b"x")
    (folder / f".record.json.{DEAD}.tmp").write_bytes(b"x")
    before = everything(tmp_path)
    assert cleaned(vitbench, "days=0", "remove=true").code == 0 and everything(tmp_path) == before


def test_links_to_runs_and_caches_are_not_followed(vitbench: Cli, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "vit-x-00000001").symlink_to(begun(tmp_path / "elsewhere", error="x"))
    header, _ = images(tmp_path / "others")
    (tmp_path / "c").mkdir()
    for path in (header, header.with_suffix(".npy"), header.with_suffix(".lock")):
        (tmp_path / "c" / path.name).symlink_to(path)
    (tmp_path / "r" / ".damaged").symlink_to(tmp_path / "elsewhere")
    before = everything(tmp_path)
    done = cleaned(vitbench, "days=0", "remove=true")
    assert "nothing to delete" in done.out and everything(tmp_path) == before


def test_a_home_folder_typed_for_runs_loses_nothing(vitbench: Cli, tmp_path: Path) -> None:
    """Files of users with names that are close to those of vitbench, in all the places where it looks."""
    home = tmp_path / "home"
    for name in (
        "photos-0123456789abcdef/a.png",
        "project-deadbeef/main.py",
        "project-deadbeef/config.yaml",
        "data-0123456789abcdef.npy",
        "table-0123456789abcdef.json",
        ".bashrc",
        f".cache.{DEAD}.tmp",
        f"work/.notes.csv.{DEAD}.tmp",
        ".damaged/disk/photo.jpg",
        f".plans/plan.{DEAD}",
        "surveys/mine.npz",
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text('{"seed": 1}')
    before = everything(home)
    words = ["clean", "runs=home", "results=home", "data.cache=home", "days=0", "remove=true"]
    assert vitbench(*words).code == 0 and everything(home) == before


def test_a_run_that_a_process_holds_stays(vitbench: Cli, tmp_path: Path) -> None:
    folder = begun(tmp_path / "r", error="x")
    code = "import sys; from pathlib import Path; from vitbench.runs.run import Run\n"
    code += f"with Run(Path({str(folder)!r}), {{}}).claim(): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    (item,) = [*clean.failed(clean.Places(tmp_path / "r2", tmp_path, tmp_path))] or [
        clean.Item("failed", folder, [], 0, "")
    ]
    assert [*clean.failed(clean.Places(tmp_path / "r", tmp_path, tmp_path))] == []
    assert "is held by process" in str(clean.remove(item)) and (folder / "failure.json").exists()
    holder.communicate("")
    assert clean.remove(item) is None and not folder.exists()


def test_a_run_that_finishes_meanwhile_stays(tmp_path: Path) -> None:
    folder = begun(tmp_path / "r", error="x")
    (item,) = clean.failed(clean.Places(tmp_path / "r", tmp_path, tmp_path))
    (folder / "record.json").write_text("{}")
    assert "stays" in str(clean.remove(item)) and (folder / "config.yaml").exists()


# ------------------------------------------------------------------------------------------------------- what is needed


def test_images_that_a_run_was_trained_on_stay_and_others_go(vitbench: Cli, tmp_path: Path) -> None:
    needed, fingerprint = images(tmp_path / "c")
    other, _ = images(tmp_path / "c", number=9)
    finished(tmp_path / "r", result_data_fingerprint=fingerprint)
    assert cleaned(vitbench, "days=0", "remove=true").code == 0
    assert needed.exists() and needed.with_suffix(".npy").exists() and not other.exists()


def test_images_of_a_run_that_was_set_aside_when_they_changed_stay(tmp_path: Path) -> None:
    header, fingerprint = images(tmp_path / "c")
    finished(tmp_path / "r" / "images-0123456789abcdef", result_data_fingerprint=fingerprint)
    assert Needs.of(tmp_path / "r").has(header.stem, json.loads(header.read_text()))


def test_images_of_which_a_run_took_some_classes_stay(tmp_path: Path) -> None:
    header, fingerprint = images(tmp_path / "c")
    some = reduced_fingerprint(fingerprint, (1, 0))
    assert some == hashlib.sha256(json.dumps([fingerprint, [1, 0]]).encode()).hexdigest()[:16]
    finished(tmp_path / "r", result_data_fingerprint=some, **{"data.classes": [1, 0]})
    assert Needs.of(tmp_path / "r").has(header.stem, json.loads(header.read_text()))
    assert not Needs.of(tmp_path / "other").has(header.stem, json.loads(header.read_text()))


@pytest.mark.parametrize(("source", "stays"), [("shapes", True), ("imagefolder", True), ("cifar10", False)])
def test_images_that_an_unfinished_run_may_go_on_with_stay(source: str, stays: bool, tmp_path: Path) -> None:
    header, _ = images(tmp_path / "c")
    folder = begun(tmp_path / "r")
    config = record(0.5, **{"data.source": source})["config"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert Needs.of(tmp_path / "r").has(header.stem, json.loads(header.read_text())) == stays


@pytest.mark.parametrize(
    ("run", "stays"),
    [
        ("vit-x-shapes-f1-s0-00000001", True),
        ("vit-x-pets-f1-s0-00000001", True),
        ("vit-x-cifar10-f1-s0-00000001", False),
    ],
)
def test_images_of_runs_that_a_sweep_asked_for_and_that_are_not_there_stay(
    run: str, stays: bool, tmp_path: Path
) -> None:
    header, _ = images(tmp_path / "c")
    (tmp_path / "r" / ".plans").mkdir(parents=True)
    (tmp_path / "r" / ".plans" / "s-12345678.json").write_text(json.dumps({"ids": [run]}))
    assert Needs.of(tmp_path / "r").has(header.stem, json.loads(header.read_text())) == stays
    finished(tmp_path / "r", run)
    assert not Needs.of(tmp_path / "r").has(header.stem, json.loads(header.read_text()))


def test_a_record_that_nobody_can_read_keeps_all_images(tmp_path: Path) -> None:
    header, _ = images(tmp_path / "c")
    folder = finished(tmp_path / "r")
    (folder / "record.json").write_text("{torn")
    (folder / "config.yaml").unlink()
    assert Needs.of(tmp_path / "r").has(header.stem, json.loads(header.read_text()))


def test_images_that_are_just_being_decoded_stay(vitbench: Cli, tmp_path: Path) -> None:
    from filelock import FileLock

    header, _ = images(tmp_path / "c")
    (item,) = clean.caches(clean.Places(tmp_path / "r", tmp_path, tmp_path / "c"))
    with FileLock(header.with_suffix(".lock")):
        assert [*clean.caches(clean.Places(tmp_path / "r", tmp_path, tmp_path / "c"))] == []
        assert "stays" in str(clean.remove(item)) and header.exists()


@pytest.mark.parametrize(
    ("what", "ours"),
    [
        ("surveys", "0123456789abcdef.npz"),
        ("surveys", "0123456789abcdef.alike0.95.npz"),
        ("features", "vit_tiny-0123456789abcdef.safetensors"),
    ],
)
def test_what_was_computed_of_images_goes_and_files_of_the_user_beside_it_stay(
    what: str, ours: str, vitbench: Cli, tmp_path: Path
) -> None:
    folder = tmp_path / "c" / what
    folder.mkdir(parents=True)
    for name in (ours, "mine.npz", "mine.safetensors"):
        (folder / name).write_bytes(b"x")
    assert cleaned(vitbench, "days=0", "remove=true").code == 0
    assert {path.name for path in folder.iterdir()} == {"mine.npz", "mine.safetensors"}


# -------------------------------------------------------------------------------------------- half-written, moved aside


def test_a_failed_run_goes_with_what_was_damaged_in_it(vitbench: Cli, tmp_path: Path) -> None:
    folder = begun(tmp_path / "r", error="x")
    (folder / "checkpoint.4.safetensors.damaged").write_bytes(b"x")
    (folder / "record.damaged.json").write_bytes(b"x")
    assert cleaned(vitbench, "days=0", "what=failed", "remove=true").code == 0 and not folder.exists()


@pytest.mark.parametrize(
    "name",
    [
        "c/shapes-shape-0123456789abcdef.{}.npy.part",
        "c/pets-0123456789abcdef-files.{}.json.part",
        "c/costs/.vit-0123456789abcdef.json.{}.tmp",
        "c/surveys/.0123456789abcdef.npz.{}.tmp",
        "r/.plans/.quickstart-12345678.json.{}.tmp",
        "results/quickstart/.accuracy.md.{}.tmp",
    ],
)
def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(
    name: str, vitbench: Cli, tmp_path: Path
) -> None:
    (tmp_path / "results" / "quickstart").mkdir(parents=True)
    (tmp_path / "results" / "quickstart" / "runs.csv").write_text("id\n")
    dead, living = (tmp_path / name.format(process) for process in (DEAD, os.getppid()))
    for path in (dead, living):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    assert cleaned(vitbench, "days=0", "what=temporary", "remove=true").code == 0
    assert not dead.exists() and living.exists()


def test_images_without_their_header_go_with_the_half_written(vitbench: Cli, tmp_path: Path) -> None:
    header, _ = images(tmp_path / "c")
    header.unlink()
    assert cleaned(vitbench, "days=0", "what=temporary", "remove=true").code == 0
    assert not header.with_suffix(".npy").exists()


def test_what_check_moved_aside_goes(vitbench: Cli, tmp_path: Path) -> None:
    run = begun(tmp_path / "r" / ".damaged", "vit-x-shapes-f1-s0-3fa9c1d2-2")
    (run / "probes").mkdir()
    (run / "probes" / "shift.csv").write_text("a\n")
    (tmp_path / "c" / ".damaged").mkdir(parents=True)
    (tmp_path / "c" / ".damaged" / "shapes-shape-0123456789abcdef.npy").write_bytes(b"x")
    assert cleaned(vitbench, "days=0", "what=damaged", "remove=true").code == 0
    assert not run.exists() and not [*(tmp_path / "c" / ".damaged").iterdir()]


def test_what_cannot_be_removed_is_one_line_and_exit_code_4(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = begun(tmp_path / "r", error="x"), begun(tmp_path / "r", "vit-x-00000009", error="y")

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path == Path("r") / first.name / "failure.json":
            raise OSError(30, "Read-only file system")
        os.unlink(path) if path.exists() else None

    monkeypatch.setattr(Path, "unlink", unlink)
    done = cleaned(vitbench, "days=0", "remove=true")
    assert done.code == 4 and done.err.count("\n") == 1 and "failure.json cannot be deleted: Read-only" in done.err
    assert first.exists() and not second.exists()


def test_the_printed_lines_are_no_wider_than_they_should_be(vitbench: Cli, tmp_path: Path) -> None:
    begun(tmp_path / "r", error="a " * 300)
    shown = cleaned(vitbench, "days=0").out
    assert max(map(len, shown.splitlines())) <= 120 and re.search(r"^failed: ", shown, re.MULTILINE)
    assert Run(tmp_path / "r" / "vit-learned-shapes-f1-s0-3fa9c1d2", {}).failure()
