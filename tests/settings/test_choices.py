"""The choices of a run are one table, and what `conf/`, ids, words and tables say of them agrees with it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from vitbench.comparing.grouping import FIRST_KEYS
from vitbench.errors import UserError
from vitbench.models.menu import MENU as MODELS
from vitbench.models.menu import is_vit
from vitbench.runs.records import row_of
from vitbench.settings.check import check
from vitbench.settings.choices import CONF_GROUPS, GROUPS, MENU_GROUPS, column_of, menu_of, settings_key, typed_key
from vitbench.settings.command_schemas import SCHEMAS
from vitbench.settings.compose import CONF_DIR, as_settings, compose, flatten
from vitbench.settings.identity import identity
from vitbench.settings.overrides import prepare
from vitbench.settings.schema import SCHEMA_OF_SOURCE, DataConfig


@pytest.fixture(scope="module")
def usual() -> dict[str, Any]:
    return check(as_settings(compose([])))


def defaults_of(group: str) -> dict[str, list[str]]:
    """The defaults list of each yaml of a group, by the name of the yaml."""
    files = sorted((CONF_DIR / group).glob("*.yaml"))
    lists = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")).get("defaults", []) for path in files}
    return {name: [str(line) for line in lines] for name, lines in lists.items()}


def test_every_folder_of_conf_that_is_a_choice_has_a_line_in_the_table() -> None:
    assert {path.name for path in CONF_DIR.iterdir() if path.is_dir()} == {*CONF_GROUPS}


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_brings_the_groups_that_its_yaml_files_choose(group: str) -> None:
    lines = [line for lines in defaults_of(group).values() for line in lines]
    overridden = {match[1] for line in lines if (match := re.search(r"override /(\w+)@", line))}
    assert overridden == {*GROUPS[group].brings}


@pytest.mark.parametrize("group", GROUPS)
def test_the_settings_hold_a_choice_where_the_table_says(group: str, usual: dict[str, Any]) -> None:
    flat = flatten(usual)
    assert flat[GROUPS[group].name_key] in {path.stem for path in (CONF_DIR / group).glob("*.yaml")}
    assert GROUPS[group].implied in (None, flat[GROUPS[group].name_key]), "what is implied is the default of conf/"


@pytest.mark.parametrize("group", MENU_GROUPS)
def test_the_name_of_a_choice_is_typed_as_a_choice_alone(group: str) -> None:
    assert {path.stem for path in (CONF_DIR / group).glob("*.yaml")} == {*menu_of(group)}
    name_key = GROUPS[group].name_key
    with pytest.raises(UserError, match=f"^{name_key}=x: type {group}=x$"):
        prepare([f"{name_key}=x"])


def test_an_id_says_what_was_chosen_and_no_name_of_a_preset(usual: dict[str, Any]) -> None:
    said = identity(usual)
    for group in GROUPS.values():
        assert (group.name_key in said) == group.is_decisive


def test_tables_show_a_column_for_each_choice_and_show_it_before_other_settings(usual: dict[str, Any]) -> None:
    record = {"config": usual, "status": "finished", "steps": 1}
    row, settings = row_of("a", record)
    assert settings[: len(GROUPS)] == [*GROUPS]
    for name, group in GROUPS.items():
        assert row[name] == flatten(usual)[group.shown_key] and column_of(group.shown_key) == name
    assert {*GROUPS} <= {*FIRST_KEYS}


@pytest.mark.parametrize("model", MODELS)
def test_a_run_has_an_encoding_where_its_model_is_a_vit_and_nowhere_else(model: str) -> None:
    settings = check(as_settings(compose([f"model={model}"])))
    row, _ = row_of("a", {"config": settings, "status": "finished", "steps": 1})
    assert (row["pe"] is not None) == ("pe" in settings["model"]) == is_vit(model)


@pytest.mark.parametrize(
    ("typed", "inside"), [("pe.theta", "model.pe.theta"), ("model.width", "model.width"), ("data.name", "data.name")]
)
def test_a_key_is_typed_in_one_way_and_held_in_another(typed: str, inside: str) -> None:
    assert settings_key(typed) == inside and typed_key(inside) == typed
    assert settings_key(inside) == inside and typed_key(typed) == typed
    assert typed_key(f"{inside}=1: {inside}") == f"{typed}=1: {typed}"


def test_the_yaml_of_a_data_set_has_the_schema_that_ids_take_its_defaults_from() -> None:
    for source, lines in defaults_of("data").items():
        schema = next(match[1] for line in lines if (match := re.search(r"/schema_(\w+)@", line)))
        assert SCHEMAS[schema] is SCHEMA_OF_SOURCE.get(source, DataConfig)
