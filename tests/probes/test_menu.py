"""What holds for every probe of the menu."""

from __future__ import annotations

import ast
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.test_contracts import CNN_RUNGS, RUNGS
from tests.probes.known import noise, subject
from vitbench.errors import DoesNotApply
from vitbench.menu import look_up, tunables
from vitbench.models.build import build_model
from vitbench.numbers.result_names import columns_of_probes, name_of
from vitbench.probes.menu import FIGURES, FOR_VITS, MENU, VERSIONS
from vitbench.probes.subject import Row
from vitbench.settings.compose import CONF_DIR, compose

TESTS = Path(__file__).parent
METRICS = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


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


def test_a_figure_is_that_of_a_probe_and_is_drawn_by_a_function_of_that_name() -> None:
    assert set(FIGURES) <= set(MENU)
    assert {choice.target.partition(":")[2] for choice in FIGURES.values()} == {"draw"}


# ------------------------------------------------------------------------------------------------- a known answer each


def known_answers(probe: str, folder: Path) -> list[str]:
    """The tests in a probe's file that are marked `known_answer` and compare something, if it imports the probe."""
    path = folder / f"test_{probe}.py"
    tree = ast.parse(path.read_text(encoding="utf-8") if path.exists() else "")
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported = {
        name for node in imports for name in (node.module, *(f"{node.module}.{one.name}" for one in node.names))
    }
    if f"vitbench.probes.{probe}" not in imported:
        return []
    return [
        test.name
        for test in tree.body
        if isinstance(test, ast.FunctionDef)
        and "pytest.mark.known_answer" in map(ast.unparse, test.decorator_list)
        and any(_compares(claim.test) for claim in ast.walk(test) if isinstance(claim, ast.Assert))
    ]


def _compares(claim: ast.expr) -> bool:
    return any(isinstance(part, ast.Compare | ast.Call) for part in ast.walk(claim))


@pytest.mark.parametrize("name", MENU)
def test_a_probe_has_a_test_whose_answer_is_known(name: str) -> None:
    assert known_answers(name, TESTS), f"tests/probes/test_{name}.py has no test marked known_answer that compares"


@pytest.mark.parametrize(
    "lines",
    [
        None,  # no file
        "",
        "@pytest.mark.known_answer\ndef test_it():\n    assert probe() == 1",
        "from vitbench.probes.shift import probe\ndef test_it():\n    assert probe() == 1",
        "from vitbench.probes.shift import probe\n@pytest.mark.known_answer\ndef test_it():\n    probe()",
        "from vitbench.probes.shift import probe\n@pytest.mark.known_answer\ndef test_it():\n    assert True",
        "from vitbench.probes.cka import probe\n@pytest.mark.known_answer\ndef test_it():\n    assert probe() == 1",
    ],
)
def test_a_file_that_asks_nothing_of_the_probe_is_no_known_answer(lines: str | None, tmp_path: Path) -> None:
    if lines is not None:
        (tmp_path / "test_shift.py").write_text(lines)
    assert not known_answers("shift", tmp_path)


# ----------------------------------------------------------------------------------------------- its numbers explained

CALLS: dict[str, list[dict[str, Any]]] = {  # what makes a probe say all that it can, at little cost
    "attribution": [{"count": 1}],
    "cka": [{}, {"other": {"twin": "its ID"}}],
    "cost": [{"batch": 2, "sizes": (1.0,), "batches": (1,)}],
    "lie": [{"gruver": True}],
}


def numbers_of(probe: str) -> set[tuple[str, str]]:
    """The protocols, without their version, and metrics of a ViT that has all that a probe looks at."""
    return {(row["protocol"].partition("@")[0], row["metric"]) for row in rows_of(probe, gate=True)}


def rows_of(probe: str, model: str = "vit", **options: Any) -> list[Row]:
    """What a probe says of a small network."""
    sizes: dict[str, Any] = {"image_size": 8, "channels": 3, "num_classes": 3}
    if model != "resnet":
        sizes |= {"width": 8, "depth": 2, "patch_size": 2}
    if model == "vit":
        sizes |= {"heads": 2, "pe": {"name": "learned"}}
    torch.manual_seed(0)
    network = build_model(model, **sizes | options)
    held_out = noise(30, 8, seed=1), torch.arange(30) % 3
    measured = subject(network, noise(8, 8), torch.arange(8) % 3, 3)
    measured = measured._replace(held_out=lambda count: held_out, network=lambda run: measured)
    defaults = {key: option.default for key, option in tunables(MENU[probe].target).items()}
    measure = look_up("probe", probe, MENU)
    return [row for call in CALLS.get(probe, [{}]) for row in measure(measured, seed=0, **defaults | call)]


def named_in(section: str) -> str:
    """A pattern of what a section names in code, in bold or in the first column of a table; <kind> is any word."""
    cells = re.findall(r"^\| ([^|`]+) \|", section, re.MULTILINE)
    names = {*re.findall(r"`([^`\n]+)`|\*\*(\w+)\*\*", section)}
    words = {word.partition("@")[0] for pair in names for word in pair if word} | {*", ".join(cells).split(", ")}
    return "|".join(re.sub(r"<\w+>", r"\\w+", re.escape(word)) for word in sorted(words))


@pytest.mark.parametrize("name", MENU)
def test_every_number_of_a_probe_is_explained(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitbench.probes.cost.WINDOW_SECONDS", 0.0)
    named = [named_in(section) for section in METRICS.read_text(encoding="utf-8").split("\n## ")]
    for protocol, metric in sorted(numbers_of(name)):
        where = [words for words in named if re.fullmatch(words, protocol)]
        assert where, f"docs/reference/metrics.md does not name {protocol}"
        found = any(re.fullmatch(words, metric) or re.fullmatch(words, f"{protocol}.{metric}") for words in where)
        assert found, f"docs/reference/metrics.md does not say what {metric} of {protocol} is"


def test_every_number_of_a_probe_has_a_name_for_people_and_every_name_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitbench.probes.cost.WINDOW_SECONDS", 0.0)
    measured = set[tuple[str, str]]().union(*map(numbers_of, MENU))
    monkeypatch.setattr("vitbench.probes.shift.LARGEST_FOR_ALL", 4)
    monkeypatch.setattr("vitbench.probes.shift.LENGTHS", 2)
    monkeypatch.setitem(CALLS, "shift", [{"max_shift": 2}])
    measured |= numbers_of("shift")
    columns = {f"{protocol}.{metric}".replace("cka.twin", "cka.other") for protocol, metric in measured}
    assert {column for column in columns if name_of(column) is None} == set()
    assert {*columns_of_probes()} - columns == set()


# -------------------------------------------------------------------------------------------------- rungs of the ladder


@pytest.mark.parametrize("rung", ["window", "hierarchy", "all"])
@pytest.mark.parametrize("name", MENU)
def test_a_probe_measures_the_rungs_of_a_vit(name: str, rung: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitbench.probes.cost.WINDOW_SECONDS", 0.0)
    if name == "gate" and "gate" not in RUNGS[rung]:
        with pytest.raises(DoesNotApply, match="it has no gates"):
            rows_of(name, **RUNGS[rung])
        return
    values = [row["value"] for row in rows_of(name, **RUNGS[rung], pe={"name": "relative_bias"}) if "reason" not in row]
    assert values and all(math.isfinite(value) for value in values)


WITHOUT_ATTENTION: dict[str, dict[str, Any]] = {"mixer": {}, "resnet": {"base_width": 4} | CNN_RUNGS["all"]}


@pytest.mark.parametrize("model", WITHOUT_ATTENTION)
@pytest.mark.parametrize("name", MENU)
def test_a_probe_measures_a_network_without_attention_or_says_why_not(
    name: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitbench.probes.cost.WINDOW_SECONDS", 0.0)
    if name in FOR_VITS or (name == "filters" and model == "resnet"):
        with pytest.raises(DoesNotApply, match=r"it has no|no convolution takes the image"):
            rows_of(name, model, **WITHOUT_ATTENTION[model])
        return
    values = [row["value"] for row in rows_of(name, model, **WITHOUT_ATTENTION[model]) if "reason" not in row]
    assert values and all(math.isfinite(value) for value in values)
