"""The type `Record` and the records that runs write: the same fields, and one meaning of each that is absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NotRequired, get_origin, get_type_hints

import pytest
import safetensors
import torch

from tests import fake_runs
from tests.conftest import TINY, Output
from vitbench.machine.provenance import Hardware, Versions
from vitbench.menu import look_up
from vitbench.objectives.menu import MENU as OBJECTIVES
from vitbench.runs.costs import Cost, own_cost, total_cost
from vitbench.runs.record import Beginning, Metrics, Record, flat_settings, stated, total_seconds
from vitbench.runs.records import load_runs, read_record, settings_columns
from vitbench.settings.compose import flatten

Cli = Callable[..., Output]


def fields(kind: Any) -> set[str]:
    return {*get_type_hints(kind)}


def optional_fields(kind: Any) -> set[str]:
    hints = get_type_hints(kind, include_extras=True)
    return {field for field, hint in hints.items() if get_origin(hint) is NotRequired}


def test_a_run_writes_every_field_that_the_record_names_and_no_other(vitbench: Cli, tmp_path: Path) -> None:
    assert vitbench("train", "model=resnet", *TINY).code == 0
    (first,) = (tmp_path / "runs").glob("*/record.json")
    record = read_record(first)
    assert {*record} == fields(Record) - {"init", "spread", "compile_seconds", "features", "scan"}
    assert {*record["hardware"]} == fields(Hardware) - optional_fields(Hardware)
    assert {*record["versions"]} == fields(Versions)
    assert (
        record["packages"].items()
        >= {"torch": torch.__version__.partition("+")[0], "safetensors": safetensors.__version__}.items()
    )

    words = ["model=resnet", "objective=simsiam", f"init={first.parent.name}", *TINY]
    assert vitbench("train", *words).code == 0
    (second,) = {*(tmp_path / "runs").glob("*/record.json")} - {first}
    assert {*read_record(second)} == fields(Record) - {"compile_seconds", "features", "scan"}
    assert {*read_record(second)["init"]} == fields(Beginning)


def test_a_run_that_compiles_says_how_long_its_first_step_took(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: model)
    assert vitbench("train", *TINY, "machine.compile=true").code == 0
    (path,) = (tmp_path / "runs").glob("*/record.json")
    record = read_record(path)
    assert record["hardware"]["compiled"] and 0 < record["compile_seconds"] < record["train_seconds"]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_an_objective_measures_is_a_field_of_the_record(objective: str) -> None:
    assert {*look_up("objective", objective, OBJECTIVES).measures} <= optional_fields(Metrics)


def test_a_record_of_an_older_version_means_what_it_says(tmp_path: Path) -> None:
    fake_runs.write(tmp_path, "old", 0.5, result_train_seconds=10.0)
    record = read_record(tmp_path / "old" / "record.json")
    assert not {"results_version", "teacher_run", "total_train_seconds"} & {*record}
    assert not {"objective", "teacher", "init", "distill"} & {*record["config"]}

    assert stated(record, "results_version") == 1
    assert [stated(flatten(record), f"hardware.{key}") for key in ("processes", "stacked", "threads")] == [1, 1, 1]
    settings = flat_settings(record["config"])
    assert (settings["objective.name"], settings["model.distill_token"], settings["teacher"]) == (
        "classify",
        False,
        None,
    )
    assert (settings["augment.rotate"], settings["optim.steps"]) == (0.0, 120)  # the default, and what it says

    frame = load_runs(tmp_path)
    assert frame.attrs["problems"] == []
    assert (frame["objective"][0], frame["total_train_seconds"][0]) == ("classify", 10.0)


@pytest.mark.parametrize(
    ("results", "settings", "seconds"),
    [
        ({"train_seconds": 2.0, "total_train_seconds": 5.0}, {"init": "other"}, 5.0),
        ({"train_seconds": 2.0, "total_train_seconds": None}, {"init": "timm:resnet18"}, None),
        ({"train_seconds": 2.0}, {}, 2.0),
        ({"train_seconds": 2.0}, {"init": None, "teacher": "other"}, None),
    ],
)
def test_a_run_without_a_total_cost_its_own_seconds_where_it_needed_no_other(
    results: Mapping[str, Any], settings: Mapping[str, Any], seconds: float | None
) -> None:
    assert total_seconds(results, settings) == seconds


RESULTS = {"status": "finished", "steps": 10, "train_seconds": 2.0, "multiply_adds": 100}
NESTED = {"optim": {"batch_size": 8}, "objective": {"name": "classify"}, "freeze": "none"}


@pytest.mark.parametrize(
    ("changed", "multiply_adds"),
    [
        ({}, 80 * 3 * 100),
        ({"objective": {"name": "simsiam"}}, 80 * 3 * 2 * 100),  # two views of each image
        ({"objective": {"name": "mae"}}, None),
        ({"freeze": "backbone"}, 80 * 100),
    ],
    ids=["classify", "simsiam", "mae", "frozen"],
)
def test_a_step_costs_three_forwards_an_image(changed: Mapping[str, Any], multiply_adds: int | None) -> None:
    assert own_cost(RESULTS, {**NESTED, **changed}) == Cost(2.0, 80, multiply_adds)
    column = {"optim.batch_size": 8, "objective": "classify"} | {
        key: value["name"] if isinstance(value, dict) else value for key, value in changed.items()
    }
    assert own_cost(RESULTS, column) == Cost(2.0, 80, multiply_adds)  # a row of a table says the same


def test_a_teacher_costs_its_forward_of_each_image() -> None:
    assert own_cost(RESULTS, NESTED, 7).multiply_adds == 80 * (3 * 100 + 7)
    assert own_cost(RESULTS, NESTED, None) == Cost(2.0, 80, None)


def test_old_records_and_rows_say_their_totals_where_they_needed_no_other_run() -> None:
    totals = {"total_train_seconds": 5.0, "total_samples_seen": 200, "total_multiply_adds": 9}
    assert total_cost(RESULTS, NESTED) == Cost(2.0, 80, 24_000)
    assert total_cost(RESULTS, {**NESTED, "init": "other"}) == Cost()
    assert total_cost(RESULTS | totals, {**NESTED, "init": "other"}) == Cost(5.0, 200, 9)
    assert total_cost(RESULTS | dict.fromkeys(totals), {**NESTED, "init": "timm:resnet18"}) == Cost()
    assert total_cost(RESULTS | {"status": "diverged"}, NESTED) == Cost(2.0)  # nobody knows how far it came


def test_an_option_that_came_after_a_record_has_its_default_there() -> None:
    recorded = {"model": {"name": "resnet", "size": "nano"}, "data": {"source": "shapes"}, "optim": {"lr": 0.1}}
    columns = settings_columns(recorded)
    assert (columns["model.sharing"], columns["model.reach"], columns["data.online"]) == (True, "near", False)
    assert "model.window" not in columns  # a ViT's
    assert settings_columns({"model": {"name": "resnet18", "library": "timm"}}).get("model.sharing") is None
