"""What is damaged is never read as something else, whatever the damage; foreign values and files are one line each."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from tests import fake_runs
from tests.conftest import Output
from vitbench.comparing.evidence import read_counts, read_evidence, read_swept
from vitbench.data.labels import read_table as read_labels
from vitbench.errors import UserError
from vitbench.fitting.fit_file import read_table
from vitbench.machine.disk import read_file, read_json, sha256_of
from vitbench.machine.seal import is_whole, sealed
from vitbench.numbers.text import csv_text
from vitbench.runs.plan import Planned, planned_ids, remember, typed_words
from vitbench.runs.predictions import Missing, read_classes
from vitbench.runs.probe_rows import path_of, read_rows, save_rows
from vitbench.runs.record import Record
from vitbench.runs.records import read_record, read_runs
from vitbench.runs.run import Run, metadata_of, read_metrics
from vitbench.runs.study import Study, load_study
from vitbench.settings.compose import read_yaml
from vitbench.timing.bench import read_bench

Cli = Callable[..., Output]
PREDICTED = np.arange(1000, dtype=np.int16) % 10


def array(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that has ended, with checksums."""
    folder = fake_runs.write(tmp_path / "runs", "one", 0.5, result_val_loss=1.25)
    return fake_runs.with_files(folder, predictions_npy=array(PREDICTED), metrics_csv=b"step,train_loss\n3,1.5\n")


def damages(blob: bytes, number: int) -> Iterator[bytes]:
    """The bytes with flipped bits, other bytes, digits for digits, without or with twice a part, or cut; seeded."""
    draw = random.Random(19)
    digits = [place for place, byte in enumerate(blob) if chr(byte).isdigit()]
    for i in range(number):
        place, more = draw.randrange(len(blob)), draw.randrange(1, 40)
        changed = bytearray(blob)
        kind = i % 6
        if kind == 0:
            changed[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[place] = draw.randrange(256)
        elif kind == 2:
            changed[draw.choice(digits)] = ord(draw.choice("0123456789"))
        elif kind == 3:
            del changed[place : place + more]
        elif kind == 4:
            changed[place:place] = changed[place : place + more]
        else:
            del changed[place:]
        yield bytes(changed)


# -------------------------------------------------------------------------------------------------------- checksums


def test_no_damage_of_a_record_is_read_as_other_values(run: Path) -> None:
    path = run / "record.json"
    blob, whole = path.read_bytes(), read_record(path)
    refused = 0
    for damaged in damages(blob, 900):
        path.write_bytes(damaged)
        try:
            assert read_record(path) == whole, damaged
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 800  # of the others only the layout is another one, or nothing


def test_a_record_without_its_checksum_or_with_a_field_of_another_name_is_damaged(run: Path) -> None:
    path = run / "record.json"
    text = path.read_text()
    for damaged in (text.replace('"sha256"', '"sha25v"'), text.replace('"val_loss"', '"val_lost"')):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"is damaged .*somebody edited it.*repair=true"):
            read_record(path)


def test_a_record_of_old_without_a_checksum_is_read_as_before(tmp_path: Path) -> None:
    record = read_record(fake_runs.write(tmp_path, "old", 0.5) / "record.json")
    assert "files" not in record and record["test_accuracy"] == 0.5


def test_a_record_in_another_layout_is_the_same_record(run: Path) -> None:
    whole = read_record(run / "record.json")
    (run / "record.json").write_text(json.dumps(whole, sort_keys=True))
    assert read_record(run / "record.json") == whole


def test_the_checksums_of_a_run_become_no_columns_of_tables(run: Path) -> None:
    (row,) = read_runs(run.parent).rows
    assert not [column for column in row if "sha256" in column or column.startswith("files")]


def test_damaged_predictions_are_named_and_not_counted(run: Path) -> None:
    path, row = run / "predictions.npy", {"id": "one", "test_images": 1000}
    assert (read_classes(run.parent, row, "predictions.npy") == PREDICTED).all()
    blob = path.read_bytes()
    for damaged in damages(blob, 120):
        if damaged != blob:
            path.write_bytes(damaged)
            with pytest.raises(Missing, match=r"predictions\.npy"):
                read_classes(run.parent, row, "predictions.npy")


def test_bits_in_the_header_of_old_predictions_are_one_line_each(tmp_path: Path) -> None:
    folder = fake_runs.write(tmp_path, "old", 0.5)
    blob, row = array(PREDICTED), {"id": "old", "test_images": 1000}
    for bit in range(8 * 128):
        changed = bytearray(blob)
        changed[bit // 8] ^= 1 << bit % 8
        (folder / "predictions.npy").write_bytes(changed)
        try:
            assert read_classes(tmp_path, row, "predictions.npy").shape == (1000,)
        except Missing as error:
            assert "\n" not in str(error)


def test_no_damage_of_what_a_probe_measured_is_read_as_other_values(run: Path) -> None:
    path = path_of(run, "shift", "trained")
    path.parent.mkdir()
    measured = [{"protocol": "shift.crop@v1", "metric": name, "value": 0.1 + place} for place, name in enumerate("abc")]
    save_rows(path, measured, images=100, seed=0, options={"crop": 4}, hardware="Xeon, 1 thread")
    blob, whole = path.read_bytes(), read_rows(path)
    assert [row["value"] for row in whole] == [0.1, 1.1, 2.1] and "sha256" not in whole[0]
    for damaged in damages(blob, 400):
        path.write_bytes(damaged)
        try:
            assert read_rows(path) in (whole, []), damaged
        except UserError as error:
            assert str(path) in str(error)


def test_what_probes_of_old_wrote_is_read_without_a_checksum(run: Path) -> None:
    path = path_of(run, "shift", "trained")
    path.parent.mkdir()
    save_rows(path, [{"protocol": "s@v1", "metric": "a", "value": 1.0}], images=9, seed=0, options={}, hardware="x")
    lines = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    assert read_rows(path)[0]["value"] == 1.0


def test_damaged_notes_of_sweeps_are_not_read_as_other_runs(tmp_path: Path) -> None:
    study = Study("mine", "", "", ("seed=0",))
    remember(study, [Planned([], {}, "run-0"), Planned([], {}, "run-1")], tmp_path, ["seed=0"])
    (path,) = (tmp_path / ".plans").glob("*.json")
    assert planned_ids(study, tmp_path) == ["run-0", "run-1"] and is_whole(json.loads(path.read_text()))
    for damaged in damages(path.read_bytes(), 200):
        path.write_bytes(damaged)
        assert typed_words(study, tmp_path) in (["seed=0"], [])
    path.write_text('{"ids": "abc", "typed": [1]}')
    assert typed_words(study, tmp_path) == []
    path.write_text('{"ids": ["a"], "typed": ["seed=0"]}')  # of old
    assert typed_words(study, tmp_path) == ["seed=0"]


def test_a_seal_is_over_all_fields() -> None:
    whole = sealed({"b": [1, 2.5, None], "a": {"x": "y"}})
    assert is_whole(whole) and is_whole(json.loads(json.dumps(whole)))
    assert not is_whole(whole | {"a": {"x": "z"}}) and not is_whole(whole | {"c": 1}) and not is_whole({"a": 1})


# --------------------------------------------------------------------------------------------------- values of a field

ODD = {
    "seed in lists": {"config.seed": [[1]]},
    "seed of text": {"config.seed": "0"},
    "seed below 0": {"config.seed": -1},
    "no seed": {"config.seed": None},
    "no model": {"config.model": "vit"},
    "data is a list": {"config.data": [1]},
    "share above 1": {"config.data.fraction": 3},
    "share not a number": {"config.data.fraction": float("nan")},
    "share is text": {"config.data.fraction": "0.1"},
    "rate 1e308": {"config.optim.lr": 1e308},
    "a setting of no schema, 10^400": {"config.optim.unknown": 10**400},
    "deep": {"config.deep": json.loads("[" * 60 + "]" * 60)},
    "accuracy 1e308": {"test_accuracy": 1e308},
    "accuracy above 1": {"test_accuracy": 1.5},
    "accuracy infinite": {"test_accuracy": float("inf")},
    "accuracy true": {"test_accuracy": True},
    "loss 10^400": {"test_loss": 10**400},
    "images 10^400": {"train_images": 10**400},
    "images below 0": {"train_images": -5},
    "images of half": {"test_images": 0.5},
    "seconds text": {"train_seconds": "3"},
    "classes numbers": {"classes": [0, 1]},
    "status": {"status": "done"},
    "schema true": {"schema": True},
    "threads a list": {"hardware": {"device": "cpu", "name": "x", "threads": [1], "precision": "", "compiled": False}},
    "hardware text": {"hardware": "fast"},
    "warnings text": {"warnings": "none"},
    "files text": {"files": "all"},
    "unknown field 1e999": {"unknown": float("inf")},
}


def odd(record: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    for key, value in changed.items():
        *path, last = key.split(".")
        place = record
        for part in path:
            place = place[part]
        place[last] = value
    return record


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("has_checksum", [False, True])
def test_an_odd_value_is_a_problem_and_the_other_runs_are_read(tmp_path: Path, kind: str, has_checksum: bool) -> None:
    fake_runs.write(tmp_path, "good", 0.5)
    path = fake_runs.write(tmp_path, "odd", 0.5) / "record.json"
    record = odd(json.loads(path.read_text()), ODD[kind])
    path.write_text(json.dumps(sealed(record) if has_checksum else record))
    read = read_runs(tmp_path)
    assert [row["id"] for row in read.rows] == ["good"]
    (problem,) = read.problems
    assert str(path) in problem and "\n" not in problem and len(problem) < 400


@pytest.mark.parametrize("kind", ["seed in lists", "accuracy 1e308", "images 10^400", "rate 1e308"])
def test_commands_tell_of_an_odd_record_in_a_line(vitbench: Cli, tmp_path: Path, kind: str) -> None:
    for name in ("a", "b"):
        fake_runs.write(tmp_path / "runs", name, 0.5, seed=0 if name == "a" else 1)
    path = fake_runs.write(tmp_path / "runs", "odd", 0.5) / "record.json"
    path.write_text(json.dumps(odd(json.loads(path.read_text()), ODD[kind])))
    table, listed = vitbench("table"), vitbench("ls", "runs")
    assert (table.code, listed.code) == (0, 0)
    assert "not read: runs/odd/record.json" in table.out and "odd  unreadable: " in listed.out
    assert "Traceback" not in table.err + listed.err


def test_an_odd_cell_of_runs_csv_is_named_with_its_line(tmp_path: Path) -> None:
    from vitbench.comparing.evidence import evidence_text
    from vitbench.comparing.select import select_runs

    fake_runs.write(tmp_path / "runs", "a", 0.5)
    path = tmp_path / "runs.csv"
    text = evidence_text(select_runs(str(tmp_path / "runs"), {}, None), {})
    path.write_text(text)
    assert len(read_evidence(path).rows) == 1
    head, cells = csv.reader(io.StringIO(text))
    for column, value in {"seed": "x", "test_accuracy": "1e308", "data.fraction": "7", "test_loss": "NaN"}.items():
        changed = dict(zip(head, cells, strict=True)) | {column: value}
        path.write_text(csv_text([head, changed.values()]))
        with pytest.raises(UserError, match=f"line 2: {column}"):
            read_evidence(path)


# --------------------------------------------------------------------------------------------- files that are no files


READERS: dict[str, Callable[[Path], Any]] = {
    "record.json": read_record,
    "study.yaml": lambda path: load_study(str(path)),
    "config.yaml": read_yaml,
    "failure.json": lambda path: Run(path.parent, {}).failure(),
    ".holder.json": lambda path: Run(path.parent, {}).holder(),
    "metrics.csv": lambda path: read_metrics(path.parent),
    "state.safetensors": lambda path: Run(path.parent, {}).saved_step(),
    "weights.safetensors": metadata_of,
    "shift.csv": read_rows,
    "runs.csv": read_evidence,
    "probes.csv": read_swept,
    "mcnemar.csv": lambda path: read_counts(path, []),
    "mine.csv": read_table,
    "labels.csv": read_labels,
    "predictions.npy": lambda path: read_classes(
        path.parent.parent, {"id": path.parent.name, "test_images": 5}, path.name
    ),
    "cpu.json": read_bench,
    "any": read_file,
    "any.json": read_json,
    "hashed": sha256_of,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["fifo", "zero", "folder", "large", "loop"])
def test_a_reader_waits_for_no_pipe_and_reads_nothing_without_end(
    tmp_path: Path, impatient: None, name: str, kind: Literal["fifo", "zero", "folder", "large", "loop"]
) -> None:
    path = tmp_path / "run" / name
    path.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    else:
        path.touch()
        os.truncate(path, 1 << 36)
        if name == "hashed":
            return  # of any size
    try:
        found = READERS[name](path)
    except (UserError, Missing, OSError, ValueError) as error:
        assert "\n" not in str(error)
    else:
        assert found in (None, {}, "unreadable failure.json")


def test_a_file_that_grows_is_read_no_further(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes, more than 4"):
        read_file(path, 4)
    with pytest.raises(OSError, match="has more than 10 bytes"):
        read_file(Path("/proc/self/status"), 10)  # whose size is said to be 0


@pytest.mark.parametrize(
    "text", ["[1]", "3", '{"pid": "x", "host": 1}', '{"pid": 1e400, "host": "h"}', "{" * 5000, "null"]
)
def test_a_strange_holder_is_another_process(tmp_path: Path, text: str) -> None:
    (tmp_path / ".holder.json").write_text(text)
    assert Run(tmp_path, {}).holder() is None


@pytest.mark.parametrize(
    "config", ["o", "optim: x", "optim: {steps: x, epochs: null}", "optim: {steps: [1], epochs: {}}", "a: !!bool x"]
)
def test_a_letter_in_config_yaml_is_no_traceback(vitbench: Cli, tmp_path: Path, config: str) -> None:
    (tmp_path / "runs" / "begun").mkdir(parents=True)
    (tmp_path / "runs" / "begun" / "config.yaml").write_text(config)
    listed = vitbench("ls", "runs")
    assert (listed.code, listed.out) == (0, "begun  unfinished: no step saved\n")


def test_damaged_lines_of_metrics_csv_are_left_out(tmp_path: Path) -> None:
    lines = [
        "step,epoch,train_loss",
        "1,0.5,2.0",
        "²,1,1",
        "9" * 5000 + ",1,1",
        "2,x,1.0",
        "3,1.5,nan",
        "4,1",
        "5,1,1,1",
    ]
    (tmp_path / "metrics.csv").write_text("\n".join([*lines, "6,2.0,1.0\n"]))
    assert [row["step"] for row in read_metrics(tmp_path)] == ["1", "3", "6"]


def test_every_field_of_the_record_has_a_check() -> None:
    from vitbench.runs.fields import fault_of

    record = fake_runs.record(0.5)
    assert fault_of(Record, record) is None
    for name in {*record} - {"config"}:  # whose fields the schema has
        assert fault_of(Record, {**record, name: {"x": [float("inf")]}}), name
