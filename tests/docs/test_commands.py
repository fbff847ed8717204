"""Every command that a document or a help page shows is one that vitbench takes.

Nothing is run. The words are composed as the command line composes them, the settings of a run are checked, and the
names of studies, tables, figures and formats are looked up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import pytest

from tests.docs.commands import ROOT, Shown, in_code, in_sentences, shown_commands
from vitbench import cli, completion, ls
from vitbench.completion import OF_MODELS
from vitbench.errors import UserError, check_choice
from vitbench.explaining.explained import VALUES
from vitbench.runs.study import Study, load_study
from vitbench.settings.check import check
from vitbench.settings.compose import as_settings, compose
from vitbench.settings.overrides import VALUE_FLAGS, explain
from vitbench.settings.typed_text import parsed

# what stands for a word of the reader's own, and what is tried in its place
PLACEHOLDERS = {
    "COMMAND": "train",
    "SHELL": "bash",
    "key=value": "seed=1",
    "study=": "study=quickstart",
    "study=NAME": "study=quickstart",
    "where.": "where.model=vit",
    "data=...": "data=cifar10",
    "model=NAME": "model=vit",
    "pe=NAME": "pe=learned",
}
# studies that pages ask the reader to write, or that commands write
OF_THE_READER = {"mine", "my_study", "my_study.yaml", "advice/NAME/study.yaml", "merged/quickstart.yaml"}
# parts that pages ask the reader to add; tests/docs/test_adding.py adds them and tries them
ADDED = {"data=stripes", "model=mlp", "objective=turns", "pe=rings", "probe=mirror"}
ALONE = {"-h", "--help", "--version"}


def refused(command: tuple[str, ...]) -> str:
    """What vitbench says against the words of a command; nothing where it takes them."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    name, *words = [PLACEHOLDERS.get(word, word) for word in command if word != "..."]
    if name in ALONE or not ADDED.isdisjoint(words):
        return ""
    try:
        check_choice("vitbench", name, cli.COMMANDS)
        if name == "ls":
            _check_list(words)
        elif name == "completion":
            check_choice("completion", (words or ["bash"])[0], [*completion.SHELLS, "reply", "describe"])
        else:
            _check_settings(name, words)
    except UserError as error:
        return "" if "comes with an extra: pip install" in str(error) else str(error)
    except (HydraException, OmegaConfBaseException) as error:
        return str(explain(error, name, words))
    return ""


def _check_list(words: list[str]) -> None:
    kind, *options = words or ["models"]
    for one in kind.split("|"):
        check_choice("ls", one, ls.KINDS)
    if kind == "images":
        _check_settings("train", [word for word in options if not word.startswith("file=")])
        return
    takes = {"runs": ["runs="], "models": ["family=", *OF_MODELS]}.get(kind, [])
    for option in options:
        check_choice(f"ls {kind}", option.partition("=")[0] + "=", takes)


def _check_settings(name: str, words: list[str]) -> None:
    arguments = iter(cli._words_for_hydra(name, words))
    settings = []
    several = name == "sweep"
    for word in arguments:
        if word in VALUE_FLAGS:
            next(arguments)
        elif word.startswith("-"):
            several |= word in ("-m", "--multirun")
        else:
            settings.append(word)
    typed = dict(word.split("=", 1) for word in words if "=" in word)
    for key, value in typed.items():
        if allowed := VALUES.get(f"{name} {key}"):
            for one in value.strip("[]").split(","):
                check_choice(key, one, allowed)
    study = _study(typed["study"]) if "study" in typed else None
    if study and "name" in typed:
        check_choice("name", typed["name"], {**study.tables, **study.figures})
    if name == "sweep" and len(words) > 1 and "study" not in typed:
        raise UserError("a sweep takes study=; several runs without one are `vitbench train -m`")
    for run in _runs(settings) if several else [settings]:
        composed = compose([word for word in run if not word.startswith("hydra.launcher.")], name)
        if name == "train":
            check(as_settings(composed))


@cache
def _study(name: str) -> Study | None:
    """A study by its name or by the path of its file from the root of the repository."""
    if name in OF_THE_READER:
        return None
    return load_study(str(ROOT / name) if name.endswith(".yaml") else name)


def _runs(words: Iterable[str]) -> Iterator[list[str]]:
    """Yields the words of the first of several runs, and of the last."""
    values = []
    for word in words:
        override = parsed(word)
        sweeps = override.is_sweep_override()
        of_word = (
            [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
            if sweeps
            else [word]
        )
        values.append(of_word)
    yield [of_word[0] for of_word in values]
    yield [of_word[-1] for of_word in values]


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of a library's images is known to torch alone, and no command is refused because of it."""
    monkeypatch.setattr("vitbench.settings.check._size_of_pretrained", lambda flat: {})


def test_every_command_that_a_document_shows_is_taken() -> None:
    shown: dict[tuple[str, ...], list[Shown]] = {}
    for command in shown_commands():
        shown.setdefault(command.words, []).append(command)
    assert len(shown) > 200
    wrong = [f"{commands[0]}: {said}" for words, commands in shown.items() if (said := refused(words))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("trian model=vit", "did you mean train"),
        ("train modell=vit", "did you mean model?"),
        ("train model=vit pe=ropes", "did you mean rope?"),
        ("train optim.steps=-1", "optim.steps=-1"),
        ("train model=resnet pe=rope", "resnet is not a ViT"),
        ("table study=quickstrat", "did you mean quickstart?"),
        ("table study=quickstart name=acuracy", "did you mean accuracy?"),
        ("table format=pdf", "format=pdf"),
        ("table show=ci99", "show=ci99"),
        ("sweep model=vit seed=0,1", "takes study="),
        ("sweep study=quickstart model=vit,alexnet", "alexnet"),
        ("ls encodings", "ls=encodings"),
        ("completion tcsh", "completion=tcsh"),
    ],
)
def test_a_command_of_no_use_is_told(typed: str, said: str) -> None:
    assert said in refused(tuple(typed.split()))


def test_commands_are_found_in_code_and_in_sentences_with_page_and_line() -> None:
    page = """\
Type `vitbench ls` or `vitbench train
model=vit`, but not `vitbench`:

    vitbench train model=vit    # a comment
    OMP_NUM_THREADS=1 torchrun -m vitbench train seed=1 | head   and words
    # vitbench is named in a comment, and so is vitbench train

```
$ vitbench sweep study=quickstart \\
    dry_run=true
vitbench: a line that is printed
```
"""
    found = [*in_code("a.md", page), *in_sentences("a.md", page)]
    assert [str(one) for one in found] == [
        "a.md:4: vitbench train model=vit",
        "a.md:5: vitbench train seed=1",
        "a.md:10: vitbench sweep study=quickstart dry_run=true",
        "a.md:1: vitbench ls",
        "a.md:1: vitbench train model=vit",
    ]
