"""`vitbench check` finds what is not as it was written, moves it aside, and leaves all else alone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import fake_runs
from tests.conftest import Output
from vitbench.data.cache import Contents, Rows, cached
from vitbench.machine.seal import sealed
from vitbench.runs import run
from vitbench.runs.plan import Planned, remember
from vitbench.runs.probe_rows import path_of, save_rows
from vitbench.runs.records import read_runs
from vitbench.runs.run import Run
from vitbench.runs.study import Study

Cli = Callable[..., Output]
WORDS = ("check", "data.cache=cache")


def npy(values: list[int]) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    np.save(buffer, np.array(values, np.int16))
    return buffer.getvalue()


def build(rows: Rows) -> Contents:
    rows.allocate(6, 3, 8)
    rows.write(0, np.arange(6 * 3 * 8 * 8).astype(np.uint8).reshape(6, 3, 8, 8))
    labels = np.array([0, 1])
    return Contents(np.tile(labels, 2), labels, ("a", "b"))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Runs, what probes measured of one, notes of a sweep, a decoded set, remembered costs, and a folder of results."""
    for name in ("one", "two"):
        folder = fake_runs.write(tmp_path / "runs", name, 0.5, seed=int(name == "two"))
        files = {"predictions_npy": npy([1] * 1000), "labels_npy": npy([1] * 1000), "metrics_csv": b"step\n1\n"}
        fake_runs.with_files(folder, checkpoint_safetensors=b"weights", config_yaml=b"seed: 0\n", **files)
    path = path_of(tmp_path / "runs" / "one", "shift", "trained")
    path.parent.mkdir()
    save_rows(path, [{"protocol": "s@v1", "metric": "a", "value": 1.0}], images=9, seed=0, options={}, hardware="x")
    remember(Study("mine", "", "", ("seed=0",)), [Planned([], {}, "one")], tmp_path / "runs")
    cached(tmp_path / "cache", "set", {"x": 1}, build)
    (tmp_path / "cache" / "costs").mkdir()
    (tmp_path / "cache" / "costs" / "vit.json").write_text(json.dumps(sealed({"parameters": 5, "multiply_adds": 7})))
    (tmp_path / "cache" / "costs" / "old.json").write_text("[5, 7]")
    return tmp_path


def report_of(kept: Path, vitbench: Cli) -> None:
    (kept / "mine.yaml").write_text("runs:\n  - model=vit seed=0,1\ntables:\n  accuracy: {rows: [model]}\n")
    remember(
        Study("mine", "", "", ("model=vit seed=0,1",)), [Planned([], {}, id_) for id_ in ("one", "two")], kept / "runs"
    )
    made = vitbench("report", "study=mine.yaml")
    assert made.code == 0, made.err


def test_what_is_whole_is_whole(kept: Path, vitbench: Cli) -> None:
    report_of(kept, vitbench)
    checked = vitbench(*WORDS)
    assert (checked.code, checked.err) == (0, "")
    assert checked.out == (
        "checked 2 runs, 10 files, 1 file of probes, 1 set of decoded images, 1 folder of results: all are whole\n"
    )


def flip(path: Path, place: int) -> None:
    blob = bytearray(path.read_bytes())
    blob[place] ^= 4
    path.write_bytes(blob)


RUN_FILES = ("record.json", "config.yaml", "metrics.csv", "predictions.npy", "labels.npy", "checkpoint.safetensors")


@pytest.mark.parametrize("file", RUN_FILES)
def test_a_bit_in_any_file_of_a_run_is_found_and_the_run_is_moved_aside_as_a_whole(
    kept: Path, vitbench: Cli, file: str
) -> None:
    runs = kept / "runs"
    flip(runs / "one" / file, 3)
    found = vitbench(*WORDS)
    assert found.code == 3 and f"run   runs/one/{file}" in found.out and ": 1 damaged\n" in found.out
    assert "repair=true" in found.out and (runs / "one").exists()
    moved = vitbench(*WORDS, "repair=true")
    assert moved.code == 0 and "runs/.damaged/one" in moved.out
    assert {path.name for path in (runs / ".damaged" / "one").iterdir()} == {*RUN_FILES, "probes"}
    assert [row["id"] for row in read_runs(runs).rows] == ["two"] and read_runs(runs).problems == []
    assert Run(runs / "one", {}).record() is None  # so that its sweep makes it anew
    assert vitbench(*WORDS).code == 0


def test_a_damaged_run_that_was_kept_apart_when_its_images_changed_is_found(kept: Path, vitbench: Cli) -> None:
    apart = kept / "runs" / "images-0123456789abcdef"
    apart.mkdir()
    (kept / "runs" / "one").rename(apart / "one")
    flip(apart / "one" / "predictions.npy", 3)
    assert "runs/images-0123456789abcdef/one/predictions.npy" in vitbench(*WORDS).out
    assert vitbench(*WORDS, "repair=true").code == 0 and (kept / "runs" / ".damaged" / "one").is_dir()


def test_a_missing_file_is_found_but_not_weights_that_somebody_removed(kept: Path, vitbench: Cli) -> None:
    (kept / "runs" / "one" / "checkpoint.safetensors").unlink()
    removed = vitbench(*WORDS)
    assert removed.code == 0 and "1 file of weights missing, because somebody removed" in removed.out
    (kept / "runs" / "one" / "labels.npy").unlink()
    missing = vitbench(*WORDS)
    assert missing.code == 3 and "runs/one/labels.npy" in missing.out and "is missing" in missing.out


def test_what_a_probe_measured_goes_alone(kept: Path, vitbench: Cli) -> None:
    path = path_of(kept / "runs" / "one", "shift", "trained")
    path.write_text(path.read_text().replace(",1.0,", ",1.5,"))
    assert vitbench(*WORDS).code == 3
    assert vitbench(*WORDS, "repair=true").code == 0 and not path.exists()
    assert (kept / "runs" / ".damaged" / "one-shift.csv").exists() and (kept / "runs" / "one" / "record.json").exists()


def test_damaged_notes_and_costs_are_moved(kept: Path, vitbench: Cli) -> None:
    (notes,) = (kept / "runs" / ".plans").glob("*.json")
    flip(notes, 12)
    flip(kept / "cache" / "costs" / "vit.json", 15)
    found = json.loads(vitbench(*WORDS, "format=json").out)
    assert [one["what"] for one in found["wrong"]] == ["sweep", "costs"] and found["looked_at"]["costs"] == 2
    assert vitbench(*WORDS, "repair=true").code == 0
    assert (kept / "runs" / ".damaged" / notes.name).exists() and (kept / "cache" / ".damaged" / "vit.json").exists()


@pytest.mark.parametrize("ending", [".npy", ".json"])
def test_a_bit_in_decoded_images_is_found_and_they_are_decoded_anew(kept: Path, vitbench: Cli, ending: str) -> None:
    (path,) = (kept / "cache").glob(f"set-*{ending}")
    flip(path, path.stat().st_size // 2)
    found = vitbench(*WORDS)
    assert found.code == 3 and "images" in found.out and found.out.count("cache/set-") == 1
    assert vitbench(*WORDS, "repair=true").code == 0
    assert {file.suffix for file in (kept / "cache" / ".damaged").iterdir()} == {".npy", ".json"}
    cached(kept / "cache", "set", {"x": 1}, build)
    whole = vitbench(*WORDS)
    assert whole.code == 0 and "1 set of decoded images" in whole.out


@pytest.mark.parametrize("file", ["runs.csv", "study.yaml", "accuracy.md"])
def test_a_digit_in_results_is_found_and_nothing_there_is_moved(kept: Path, vitbench: Cli, file: str) -> None:
    report_of(kept, vitbench)
    path = kept / "results" / "mine" / file
    flip(path, path.stat().st_size // 2)
    found = vitbench(*WORDS, "repair=true")
    assert found.code == 3 and f"results/mine/{file}" in found.out and "it stays" in found.out and path.exists()
    again = vitbench("report")
    if file == "runs.csv":  # a report does not make damage its own
        assert again.code == 3 and "is not as `vitbench report` wrote it" in again.err
        assert vitbench("fit", f"runs={path}").code == 3
    elif file == "accuracy.md":
        assert again.code == 0 and vitbench(*WORDS).code == 0


def test_results_of_old_have_no_checksums_and_are_said_to_have_none(kept: Path, vitbench: Cli) -> None:
    report_of(kept, vitbench)
    (kept / "results" / "mine" / "sha256sums.txt").unlink()
    checked = vitbench(*WORDS)
    assert checked.code == 0 and "1 folder of results without checksums" in checked.out


def test_the_sums_of_results_are_read_by_sha256sum(kept: Path, vitbench: Cli) -> None:
    import subprocess

    report_of(kept, vitbench)
    command = ["sha256sum", "-c", "--quiet", "sha256sums.txt"]
    assert subprocess.run(command, cwd=kept / "results" / "mine", capture_output=True).returncode == 0


def test_a_run_that_another_process_holds_stays(kept: Path, vitbench: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LOOKING_SECONDS", 0.1)
    flip(kept / "runs" / "one" / "labels.npy", 3)
    with Run(kept / "runs" / "one", {}).claim():
        held = vitbench(*WORDS, "repair=true")
    assert held.code == 3 and f"held by process {os.getpid()}" in held.err and (kept / "runs" / "one").exists()


def test_weights_of_old_runs_are_checked_by_their_own_checksum(kept: Path, vitbench: Cli) -> None:
    import torch

    from vitbench.training.checkpoint import to_bytes

    folder = fake_runs.write(kept / "runs", "old", 0.5)
    (folder / "checkpoint.safetensors").write_bytes(to_bytes({"a": torch.ones(3)}, {"run": "old"}))
    whole = vitbench(*WORDS)
    assert whole.code == 0 and "1 run of an older vitbench" in whole.out
    flip(folder / "checkpoint.safetensors", -1)
    found = vitbench(*WORDS)
    assert found.code == 3 and "runs/old/checkpoint.safetensors" in found.out


def test_what_was_never_written_is_whole_and_a_later_record_stays(vitbench: Cli, tmp_path: Path) -> None:
    assert vitbench(*WORDS).code == 0 and not (tmp_path / "runs").exists()
    fake_runs.write(tmp_path / "runs", "new", 0.5, result_schema=99)
    assert vitbench(*WORDS, "repair=true").code == 3 and (tmp_path / "runs" / "new").exists()


def test_a_second_damage_does_not_replace_the_first(kept: Path, vitbench: Cli) -> None:
    shutil.copytree(kept / "runs" / "one", kept / "copy")
    for _ in range(2):
        flip(kept / "runs" / "one" / "labels.npy", 3)
        assert vitbench(*WORDS, "repair=true").code == 0
        shutil.copytree(kept / "copy", kept / "runs" / "one")
    assert {path.name for path in (kept / "runs" / ".damaged").iterdir()} == {"one", "one-2"}


def test_a_wrong_format_is_one_line(vitbench: Cli) -> None:
    wrong = vitbench(*WORDS, "format=xml")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1) and "format=xml" in wrong.err
