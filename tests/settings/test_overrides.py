"""What people type becomes what Hydra takes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.conftest import Output
from vitbench.errors import UserError
from vitbench.settings.check import check
from vitbench.settings.compose import as_settings, compose
from vitbench.settings.filters import filters
from vitbench.settings.overrides import prepare, setting
from vitbench.settings.typed_text import ABOUT_RUNS, FREE_TEXT, PATHS, list_settings, parsed, text_settings

Cli = Callable[..., Output]

LETTERS = [*" éß日=(),'\"&#${}[]:;!*?\\~%|<^`@+-.\udcff", "${oc.env:HOME}"]
TEXTS = [f"a{letter}b" for letter in LETTERS] + [f"{letter}ab" for letter in LETTERS if letter not in "~"]
TEXTS += [f"ab{letter}" for letter in LETTERS]
TEXTS += ["-x", "--x", "2024_10", "007", "1.10", "1e5", "true", "no", "nan", "${x}", "\\${x}", "pets (2024)", "a{b}[c]"]
TEXTS += ['it\'s "so"', "C:\\pets\\", "[pets]", "{a: b}", "choice(a,b)", "range(3)", "a=b&c", " x "]


def read(word: str, key: str) -> Any:
    """What a command gets from a word, by Hydra's parser and OmegaConf."""
    config = OmegaConf.create({})
    OmegaConf.update(config, key, parsed(word).value(), force_add=True)
    return OmegaConf.select(OmegaConf.create(OmegaConf.to_container(config, resolve=False)), key)


@pytest.mark.parametrize("key", sorted(FREE_TEXT))
def test_text_is_taken_with_all_its_letters(key: str) -> None:
    for text in TEXTS if key == "data.root" else TEXTS[-10:]:
        if key in ABOUT_RUNS and "'" in text and '"' not in text:
            continue  # quotes are grammar of a description, init="data.name='a b'"
        assert read(setting(f"{key}={text}"), key) == text


def test_random_text_is_taken_as_it_was_typed_and_typing_it_again_changes_nothing() -> None:
    draw = random.Random(0)
    for _ in range(100):
        text = "a" + "".join(draw.choice([*LETTERS, "b", "1"]) for _ in range(draw.randint(1, 6))) + "b"
        word = setting(f"data.root={text}")
        assert read(word, "data.root") == text
        assert setting(word) == word


def test_every_setting_of_text_is_known_by_the_schema() -> None:
    assert text_settings() >= FREE_TEXT >= PATHS
    assert not text_settings() & list_settings()
    assert {"optim.optimizer", "data.fit", "machine.device"} <= text_settings()
    assert not {"seed", "value", "models", "run", "keep"} & text_settings()


def test_text_reaches_settings_and_no_reference_in_it_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "hidden")
    for text in ("${oc.env:KEY}", "${seed}", "a (${b}), 'c'=\\"):
        words = prepare([f"data.root={text}", f"data.name={text}", f"runs={text}", "data=imagefolder"])
        settings = check(as_settings(compose(words)))
        assert settings["data"]["root"] == settings["data"]["name"] == settings["runs"] == text


@pytest.mark.parametrize("text", ["pets (2)", "a=b", "é", "it's", "${x}", "a{b}", "x:y;z!", "a\\(b"])
def test_a_filter_takes_text_with_all_its_letters(text: str) -> None:
    word = setting(f"where.data={text}")
    assert filters({"data": {"name": read(word.removeprefix("+"), "where.data.name")}}) == {"data": text}


def test_a_filter_still_takes_numbers_and_lists() -> None:
    assert parsed(setting("where.data.fraction=[0.1,1]")).value() == [0.1, 1]
    assert parsed(setting("where.seed=1")).value() == 1
    assert parsed(setting("where.data=[a b,c (2)]")).value() == ["a b", "c (2)"]
    assert parsed(setting("models=[timm:x@my (2)/w.safetensors,y]")).value() == ["timm:x@my (2)/w.safetensors", "y"]


def test_a_comma_is_a_letter_of_one_run_and_separates_the_values_of_several(tmp_path: Path) -> None:
    assert parsed(setting("data.root=a,b")).value() == "a,b"
    override = parsed(setting("data.root=~/a,b (2)", several=True))
    assert override.is_choice_sweep() and [*override.sweep_string_iterator()] == ["'~/a'", "'b (2)'"]
    assert parsed(setting("data.root='a,b'", several=True)).value() == "a,b"
    (tmp_path / "a,b").mkdir()  # nobody means two folders by the name of one that is there
    assert parsed(setting(f"data.root={tmp_path}/a,b", several=True)).value() == f"{tmp_path}/a,b"
    assert parsed(setting("optim.optimizer=adamw,sgd")).is_choice_sweep()  # no such word has a comma
    assert prepare(["-m", "runs=a,b"])[1] == "runs=a,b" and prepare(["runs=a,b"]) == ["runs='a,b'"]


def test_a_description_of_a_run_is_one_text() -> None:
    for several in (False, True):
        assert parsed(setting("init=data.fraction=1,2", several)).value() == "data.fraction=1,2"
    assert parsed(setting("init='data.fraction=1',null", several=True)).is_choice_sweep()


@pytest.mark.parametrize("typed", ["'~/a b'", '"~/pets"', "null", "''"])
def test_quotes_around_a_text_are_taken_off(typed: str) -> None:
    assert parsed(setting(f"data.root={typed}")).value() == (None if typed == "null" else typed[1:-1])


@pytest.mark.parametrize("letter", ["\n", "\r", "\t", "\x00", "\x1b", "\x7f"])
def test_control_characters_are_refused_in_one_line(letter: str) -> None:
    with pytest.raises(UserError, match="no line breaks") as error:
        setting(f"data.root=a{letter}b")
    assert str(error.value).isprintable()


def test_a_folder_without_its_key_is_told_the_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"key=value, for example data.root={tmp_path}"):
        setting(str(tmp_path))


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process without HOME, whose user is in no list of users, as in many containers."""
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("VITBENCH_CACHE")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    yield


@pytest.mark.parametrize("key", ["data.root", "data.cache", "runs", "file", "init", "study", "images"])
def test_without_a_home_folder_a_tilde_is_refused_in_one_line(key: str, homeless: None) -> None:
    with pytest.raises(
        UserError, match=rf"^{key}=~/pets: no home folder is known for ~, because HOME is not set; .* ./~/pets"
    ):
        setting(f"{key}=~/pets")
    assert read(setting(f"{key}=./~/pets"), key) == "./~/pets"


def test_without_a_home_folder_nothing_is_written_into_one_called_tilde(
    homeless: None, vitbench: Cli, tmp_path: Path
) -> None:
    output = vitbench("train", "data.train_images=200", "data.test_images=50", "optim.steps=1")
    assert output.code == 2 and "data.cache=~/.cache/vitbench: no home folder is known" in output.err
    assert not (tmp_path / "~").exists()


def test_a_user_that_is_not_there_has_no_home() -> None:
    with pytest.raises(UserError, match="there is no user nobodyofthisname"):
        setting("data.root=~nobodyofthisname/pets")


@pytest.mark.parametrize("word", ["model=../../evil", "pe=/tmp/x", "data=~/pets", "optim=a.b", "augment=${x}"])
def test_a_choice_is_no_file(word: str) -> None:
    with pytest.raises(UserError, match="a choice is a name, not a file"):
        setting(word)
    with pytest.raises(UserError, match="a choice is a name, not a file"):
        compose([word])


@pytest.mark.parametrize("word", ["=5", "sé=1", "a b=1", "'x'=1", "a-b=1"])
def test_what_is_no_key_is_said_in_our_words(word: str) -> None:
    with pytest.raises(UserError, match="settings are typed key=value"):
        setting(word)


@pytest.mark.parametrize("word", ["where.=1", "where.a b=1", "where..x=1", "where.sé=1"])
def test_what_is_no_filter_is_said_in_our_words(word: str) -> None:
    with pytest.raises(UserError, match=r"a filter is typed where\.KEY=VALUE"):
        setting(word)
