"""What no run could mean is refused by the settings' own ranges and by each choice for itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from vitbench.errors import UserError
from vitbench.menu import Choice, imported
from vitbench.settings import check as module
from vitbench.settings.check import RANGES, WORDS, check
from vitbench.settings.choices import GROUPS, MENU_GROUPS, menu_of
from vitbench.settings.compose import as_settings, compose, flatten
from vitbench.settings.schema import AugmentConfig, DataConfig, MachineConfig, OptimConfig, TrainConfig

NEW = """
from vitbench.errors import UserError

class New:
    def __init__(self, image_size, channels, num_classes, *, width: int = 4):
        pass

def refuse(flat):
    if flat["optim.lr"] > 1:
        raise UserError(f"optim.lr={flat['optim.lr']:g}: is too much for me")
"""


@pytest.fixture(scope="module")
def usual() -> dict[str, Any]:
    return check(as_settings(compose([])))


def choose(settings: dict[str, Any], group: str, name: str) -> dict[str, Any]:
    """The settings with a choice that has no options in them, where the group is open, in place of theirs."""
    changed = deepcopy(settings)
    *place, key = GROUPS[group].name_key.split(".")
    inner = changed
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = ({} if GROUPS[group].is_open else inner[place[-1]]) | {key: name}
    return changed


@pytest.mark.parametrize("group", MENU_GROUPS)
def test_a_new_choice_of_the_menu_needs_no_edit_of_check(
    group: str, usual: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"new_{group}.py").write_text(NEW)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(menu_of(group), "new", Choice(f"new_{group}:New", "", f"new_{group}:refuse"))  # type: ignore[arg-type]
    settings = choose(usual, group, "new")
    checked = flatten(check(settings))
    assert checked[GROUPS[group].name_key] == "new"
    if GROUPS[group].is_open:
        prefix = GROUPS[group].options_prefix
        wide = deepcopy(settings)
        inner: Any = wide
        for part in prefix.removesuffix(".").split("."):
            inner = inner[part]
        inner["width"] = "3"
        assert flatten(check(wide))[f"{prefix}width"] == 3, "converted to the type of the signature"
    settings["optim"]["lr"] = 2.0
    with pytest.raises(UserError, match=r"^optim.lr=2: is too much for me$"):
        check(settings)


def test_check_names_no_choice() -> None:
    names = {name for group in MENU_GROUPS for name in menu_of(group)} - {"none"}  # `freeze` has this word too
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not names & words


def test_what_a_menu_names_to_refuse_settings_is_there_and_imports_no_torch() -> None:
    refusals = sorted(
        choice.refuses for group in MENU_GROUPS for choice in menu_of(group).values() if choice.refuses is not None
    )
    assert refusals and all(callable(imported(target)) for target in refusals)
    modules = sorted({target.partition(":")[0] for target in refusals} | {"vitbench.settings.check"})
    code = (
        f"import sys, {', '.join(modules)}; sys.exit(', '.join({{'torch', 'numpy', 'hydra'}} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_number_of_the_schema_has_a_range_and_every_range_a_setting() -> None:
    parts: dict[str, type] = {"": TrainConfig, "data.": DataConfig, "optim.": OptimConfig, "augment.": AugmentConfig}
    parts |= {"machine.": MachineConfig}
    numbers = {
        f"{prefix}{field.name}"
        for prefix, schema in parts.items()
        for field in fields(schema)
        if str(field.type).removesuffix(" | None") in ("int", "float")
    }
    assert {*RANGES} == numbers


@pytest.mark.parametrize("key", [*RANGES, *WORDS])
def test_a_value_out_of_its_range_is_named_as_it_was_typed(key: str, usual: dict[str, Any]) -> None:
    settings = deepcopy(usual)
    *place, name = key.split(".")
    inner: Any = settings
    for part in place:
        inner = inner[part]
    inner[name] = float("nan") if key in RANGES else "neither"
    with pytest.raises(UserError, match=rf"^{key}=(nan: must be|neither: )"):
        check(settings)
