"""Every setting says what it is, wherever it is shown."""

from __future__ import annotations

import re

import pytest

from tools.settings_reference import FOLDER, pages
from vitbench.cli import COMMANDS as MENU
from vitbench.explaining.comments import sentences_of_schema
from vitbench.explaining.explained import (
    VALUES,
    Setting,
    kind_words,
    menu_of_group,
    options_of,
    sentence_of_member,
    settings_of_command,
)
from vitbench.menu import FROM_1
from vitbench.settings.choices import CONF_GROUPS, GROUPS
from vitbench.settings.command_schemas import SCHEMAS
from vitbench.settings.compose import CONF_DIR
from vitbench.settings.schema import SCHEMA_OF_SOURCE

PARTS = ("data", "folder", "shapes", "optim", "augment")  # of the schemas, which are no commands
COMMANDS = [name for name in SCHEMAS if name not in PARTS]
OPEN = ("model", "pe", "objective", "probe")  # whose options their menus have
MEMBERS = [(group, path.stem) for group in CONF_GROUPS for path in sorted((CONF_DIR / group).glob("*.yaml"))]


def without_a_sentence(settings: dict[str, Setting]) -> list[str]:
    """The settings whose sentence lacks, is a word or two, or ends as a line of a comment does that goes on."""
    is_sentence = re.compile(r"\S.{10,}([^.,;:\s]|\.\.\.)")
    return [key for key, its in settings.items() if not is_sentence.fullmatch(its.sentence)]


@pytest.mark.parametrize("source", [None, *SCHEMA_OF_SOURCE])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_of_a_command_has_a_sentence(command: str, source: str | None) -> None:
    settings = settings_of_command(command, {"data": source})
    assert settings and without_a_sentence(settings) == []


@pytest.mark.parametrize(("group", "member"), MEMBERS)
def test_every_choice_and_each_of_its_options_has_a_sentence(group: str, member: str) -> None:
    if group in OPEN:
        assert without_a_sentence(options_of(group, member)) == []
    assert sentence_of_member(group, member) or (group, member) == ("probe", "all")


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_has_a_sentence(group: str) -> None:
    assert len(GROUPS[group].help) > 10


@pytest.mark.parametrize("command", COMMANDS)
def test_every_part_of_a_command_that_no_choice_fills_has_a_sentence(command: str) -> None:
    sections = {key.partition(".")[0] for key in settings_of_command(command, {}) if "." in key} - {*GROUPS, "probe"}
    assert sections <= {name for name, sentence in sentences_of_schema(SCHEMAS[command]).items() if sentence}


def test_choices_of_commands_are_those_of_settings_that_they_have() -> None:
    for name in VALUES:
        command, key = name.split()
        assert key in settings_of_command(command, {}) or key in GROUPS


def test_options_are_those_that_the_choice_has() -> None:
    def keys(**chosen: str) -> set[str]:
        return {key for key in settings_of_command("train", chosen) if key.startswith(("model.", "pe."))}

    assert {"model.window", "pe.theta"} <= keys(model="vit", pe="rope")
    assert "pe.theta" not in keys(model="vit", pe="learned")
    assert "model.sharing" in keys(model="resnet") and "model.window" not in keys(model="resnet")


def test_a_range_is_told_without_bounds_that_only_catch_slips() -> None:
    settings = settings_of_command("train", {"model": "vit"})
    assert settings["optim.steps"].range == FROM_1.up_to(50_000_000).words
    assert settings["optim.steps"].values_words() == "1 or more"
    assert settings["data.fraction"].values_words() == "above 0 and at most 1"
    assert settings["model.mlp_ratio"].values_words() == "above 0 and at most 64"


def test_words_that_the_sentence_says_are_not_repeated() -> None:
    settings = settings_of_command("train", {"model": "vit"})
    assert settings["optim.optimizer"].values_words() == ""
    assert settings["model.size"].values_words() == "nano, micro, tiny, small, base"


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (bool, "true or false"),
        (int | None, "a whole number or null"),
        (list[int] | None, "a list of whole numbers or null"),
        (tuple[float, float] | None, "[from,to] or null"),
        (tuple[float, ...], "a list of numbers"),
        (str, "text"),
    ],
)
def test_a_type_says_what_can_be_typed(hint: object, words: str) -> None:
    assert kind_words(hint) == words


@pytest.mark.parametrize("name", pages())
def test_a_page_is_what_the_sentences_say(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == pages()[name], "run `make reference`"


def test_the_pages_have_every_setting() -> None:
    text = "".join(pages().values())
    for command in COMMANDS:
        for key in settings_of_command(command, {"data": "shapes"}):
            assert f"`{key}" in text
    for group in OPEN:
        for member in menu_of_group(group):
            assert all(f"`{key}=" in text for key in options_of(group, member))


def test_the_page_of_commands_has_a_section_and_an_example_of_every_command() -> None:
    sections = re.split(r"^## ", pages()["commands.md"], flags=re.MULTILINE)[1:]
    assert [section.split()[0] for section in sections] == [*MENU]
    assert [name for name, section in zip(MENU, sections, strict=True) if f"vitbench {name}" not in section] == []
