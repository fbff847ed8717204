"""What CONTRIBUTING.md's table promises of every line of a menu: its code, its yaml, its word in a document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from vitbench.data.menu import MENU as DATA
from vitbench.menu import Choice, look_up
from vitbench.models.families import LIBRARIES
from vitbench.models.menu import MENU as MODELS
from vitbench.objectives.menu import MENU as OBJECTIVES
from vitbench.pe.menu import MENU as ENCODINGS
from vitbench.probes.menu import MENU as PROBES
from vitbench.settings.compose import CONF_DIR, read_yaml

ROOT = Path(__file__).parent.parent
MENUS: dict[str, Mapping[str, Choice]] = {
    "data": DATA,
    "model": MODELS,
    "objective": OBJECTIVES,
    "pe": ENCODINGS,
    "probe": PROBES,
}
ROOMS = {"data": "data", "model": "models", "objective": "objectives", "pe": "pe", "probe": "probes"}
SHARED = {"vitbench.data.torchvision_sets", "vitbench.pe.base"}  # files of several lines, and of no encoding at all
LINES = [(group, name) for group, menu in MENUS.items() for name in menu]


def yamls(group: str) -> set[str]:
    return {path.stem for path in (CONF_DIR / group).glob("*.yaml")}


@pytest.mark.parametrize("group", MENUS)
def test_a_line_of_a_menu_has_a_yaml_and_a_yaml_a_line(group: str) -> None:
    assert yamls(group) - {"all"} == set(MENUS[group])


@pytest.mark.parametrize(("group", "name"), LINES)
def test_the_code_of_a_line_lies_in_the_file_of_its_name(group: str, name: str) -> None:
    assert callable(look_up(group, name, MENUS[group]))
    module = MENUS[group][name].target.partition(":")[0]
    assert module == f"vitbench.{ROOMS[group]}.{name}" or module in SHARED


@pytest.mark.parametrize("name", DATA)
def test_a_yaml_of_data_opens_the_source_of_its_name(name: str) -> None:
    assert read_yaml(CONF_DIR / "data" / f"{name}.yaml").get("source", "shapes") == name


def test_every_model_brings_a_recipe() -> None:
    for name in MODELS:
        choices = read_yaml(CONF_DIR / "model" / f"{name}.yaml")["defaults"]
        (recipe,) = (
            each["override /optim@_global_.optim"] for each in choices if "override /optim@_global_.optim" in each
        )
        others = {"mixer": "vit", **dict.fromkeys(LIBRARIES, "family")}
        assert recipe in yamls("optim") and recipe == others.get(name, name)


@pytest.mark.parametrize("group", ["augment", "optim"])
def test_a_recipe_is_called_as_its_file_is(group: str) -> None:
    for name in yamls(group) - {"family"}:  # which becomes one of the others
        assert read_yaml(CONF_DIR / group / f"{name}.yaml")["name"] == name


@pytest.mark.parametrize(("group", "name"), LINES)
def test_a_document_names_every_line(group: str, name: str) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    words = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert re.search(rf"(`|\*\*|{group}=\[?(\w+,)*){name}\b", words), f"neither the README nor docs/ names {name}"
