"""What holds for every probe of the menu."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitbench.menu import tunables
from vitbench.probes.menu import MENU, VERSIONS
from vitbench.settings.compose import CONF_DIR, compose


@pytest.mark.parametrize("name", MENU)
def test_the_yaml_of_a_probe_lists_every_option_with_its_default(name: str) -> None:
    options = compose([f"probe={name}"], "probe").probe[name] or {}
    taken = {key: parameter.default for key, parameter in tunables(MENU[name].target).items()}
    assert dict(options) == json.loads(json.dumps(taken))


def test_all_is_every_probe_and_each_has_a_file() -> None:
    assert set(compose(["probe=all"], "probe").probe) == set(MENU)
    assert {path.stem for path in (CONF_DIR / "probe").glob("*.yaml")} == {*MENU, "all"}
    assert {*VERSIONS} <= {*MENU}
    assert all(
        (Path(CONF_DIR) / "probe" / f"{name}.yaml").read_text().startswith(f"# @package probe.{name}\n")
        for name in MENU
    )
