"""What an error line suggests is accepted where it is typed, and a mistyped key is told its full name."""

from __future__ import annotations

import itertools
import random
import re
from typing import Any

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from vitbench.errors import UserError
from vitbench.numbers.words import typed_value
from vitbench.runs.plan import Planner
from vitbench.settings.check import WORDS
from vitbench.settings.choices import GROUPS, MENU_GROUPS, menu_of, typed_key
from vitbench.settings.compose import compose, flatten
from vitbench.settings.overrides import explain, prepare
from vitbench.settings.typed_text import number_of_values

COMMANDS = ("train", "sweep", "table", "plot", "fit", "report", "bench", "inspect", "predict", "export", "features")
BESIDE = {"pe.theta": ["pe=rope"]}  # what a key needs beside it


PLANNER = Planner()  # which composes each choice once


def refusal(words: list[str], command: str = "train") -> str:
    """The line that answers words; nothing where they are accepted."""
    try:
        arguments = prepare(words, several=command == "sweep")
    except UserError as error:
        return str(error)
    try:
        if command != "train":
            compose(arguments, command)
        elif any(number_of_values(word) > 1 for word in arguments):
            compose(arguments)  # a plan would make several runs of them
        else:
            PLANNER.settings(arguments)
    except (HydraException, OmegaConfBaseException) as error:
        return str(explain(error, command, arguments))
    except UserError as error:
        return str(error)
    return ""


def suggested(line: str) -> list[str]:
    """The words that a line asks the user about: `did you mean optim.steps or optim.name?`"""
    found = re.search(r"did you mean (.+?)\?", line)
    return found[1].split(" or ") if found else []


def values() -> dict[str, Any]:
    """The settings of `train` with their values, as they are typed."""
    flat = flatten(compose([], "train"))
    return {typed_key(str(key)): value for key, value in flat.items() if not str(key).startswith("hydra")}


def mistyped(word: str, draw: random.Random) -> str:
    """A word with a letter too many, one too few, or two in each other's place."""
    i = draw.randrange(1, len(word))
    before, letter, after = word[:i], word[i], word[i + 1 :]
    return draw.choice([before + after, before + letter + letter + after, before[:-1] + letter + before[-1] + after])


def word_of(key: str, value: Any) -> str:
    return f"{key}={typed_value(value)}"


def test_every_key_that_is_suggested_for_a_mistyped_one_can_be_typed() -> None:
    draw, known, asked = random.Random(0), values(), 0
    choices = {name: group.implied or "none" for name, group in GROUPS.items()}
    choices |= {"model": "vit", "pe": "rope", "data": "shapes", "augment": "light", "optim": "vit"}
    keys = [key for key in known if key not in {its.name_key for its in GROUPS.values()}]
    for key in [*draw.sample(keys, 20), *choices, "logger", "machine", "distill", "hydra_x", "model.pe_"]:
        wrong = mistyped(key, draw)
        if wrong in known or wrong in choices:
            continue
        for right in suggested(refusal([f"{wrong}=1"])):
            asked += 1
            value = choices.get(right, known.get(right))
            assert refusal([*BESIDE.get(right, []), word_of(right, value)]) == "", f"{wrong} -> {right}"
    assert asked > 20


@pytest.mark.parametrize("group", MENU_GROUPS)
def test_every_choice_that_is_suggested_for_a_mistyped_one_can_be_typed(group: str) -> None:
    draw, asked = random.Random(0), 0
    for name in menu_of(group):
        for _, right in itertools.product(range(2), suggested(refusal([f"{group}={mistyped(name, draw)}"]))):
            beside = ["model.arch=resnet18"] if right == "torchvision" else []
            line = refusal([f"{group}={right}", *beside])
            asked += 1
            assert "pip install" in line or line == "", right
    assert asked


@pytest.mark.parametrize("key", WORDS)
def test_every_word_that_is_suggested_for_a_mistyped_one_can_be_typed(key: str) -> None:
    draw = random.Random(0)
    for word in WORDS[key]:
        wrong = mistyped(word, draw)
        for right in suggested(refusal([f"{key}={wrong}"])):
            assert not suggested(refusal([f"{key}={right}"])), "the word is known, if it goes with others alone"


@pytest.mark.parametrize("key", ["steps", "batch_size", "lr", "root", "threads", "fraction", "cutmix", "width"])
def test_a_key_without_its_group_is_told_its_full_name(key: str) -> None:
    (full, *others) = suggested(refusal([f"{key}=1"]))
    assert full.endswith(f".{key}") and not others and full in values()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_suggests_what_it_has_not(command: str) -> None:
    known = {typed_key(str(key)) for key in flatten(compose([], command))} | {*GROUPS}
    for wrong in ("seeed", "run", "fil", "data.rooot"):
        line = refusal([f"{wrong}=1"], command)
        assert {*suggested(line)} <= known, line


@pytest.mark.parametrize(
    ("words", "never"),
    [
        (["logger=wandb"], "did you mean"),
        (["model=mixer", "model.stem=conv"], "model.pe"),
        (["~seed"], "seed=null"),
        (["~data.fraction"], "null"),
        (["model.p=1"], "model.pe "),
        (["pe.nam=rope"], "pe.name"),
        (["modl.name=vit"], "model.name"),
        (["optim.optimizer=adamw,sgd"], "=["),
        (["seed=0,1"], "=["),
        (["optim=famly"], "family"),
    ],
)
def test_what_would_be_refused_is_not_suggested(words: list[str], never: str) -> None:
    line = refusal(words)
    assert line and never not in line
