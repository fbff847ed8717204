"""A number that no run means is refused in one line, at once, and without its memory being asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Output
from tests.settings.test_near_misses import refusal
from vitbench.data.shapes import BOUNDS
from vitbench.menu import tunables
from vitbench.settings.check import RANGES
from vitbench.settings.choices import MENU_GROUPS, menu_of, typed_key
from vitbench.settings.schema import FolderConfig, ShapesConfig

Cli = Callable[..., Output]
SECONDS = 2.0  # of this process, however busy the machine is
FROM_ISSUE = 100_000_000
WITH = {
    "data.permute_tile": ["data.permute=tiles"],
    "data.permute_share": ["data.permute=tiles"],
    "data.permute_seed": ["data.permute=tiles"],
    "optim.epochs": ["optim.steps=null"],
    "optim.min_steps": ["optim.epochs=1", "optim.steps=null"],
    "optim.warmup_steps": ["optim.warmup=null"],
    "optim.decay": ["optim.schedule=wsd"],
    "checkpoint": ["optim.schedule=wsd", "init=x"],
}


def options() -> Iterator[tuple[list[str], str]]:
    """Yields every number among the options of choices, with the choice."""
    for group in ("model", "pe", "objective"):
        for name, choice in menu_of(group).items():
            for key, option in tunables(choice.target).items():
                if {"int", "float"} & {*option.annotation.replace("|", " ").split()}:
                    yield [f"{group}={name}"], f"{MENU_GROUPS[group].options_prefix}{key}"
    for source, schema in {"shapes": ShapesConfig, "imagefolder": FolderConfig}.items():
        for key, kind in schema.__annotations__.items():
            if {"int", "float"} & {*kind.replace("|", " ").split()} and key not in BOUNDS:  # shapes.py refuses those
                yield [f"data={source}"], f"data.{key}"


NUMBERS = [*((WITH.get(key, []), key) for key in RANGES), *options()]


@pytest.mark.parametrize(("beside", "key"), NUMBERS, ids=[f"{' '.join(b)} {k}" for b, k in NUMBERS])
def test_a_huge_number_of_any_setting_is_one_line_in_seconds(beside: list[str], key: str) -> None:
    refusal(beside)  # what is composed for the first time takes its time
    for huge in ("9" * 35, "1e300", "9" * 400):
        begin = time.process_time()
        line = refusal([*beside, f"{typed_key(key)}={huge}"])
        assert typed_key(key) in line and "\n" not in line
        assert time.process_time() - begin < SECONDS


@pytest.mark.parametrize(
    "word",
    ["optim.batch_size", "model.depth", "model.width", "model.heads", "data.image_size", "data.count", "optim.epochs",
     "optim.steps", "machine.threads", "machine.microbatch", "data.train_images", "eval_every"],
)  # fmt: skip
def test_a_hundred_million_is_refused(word: str) -> None:
    assert "and at most" in refusal([*WITH.get(word, []), f"{word}={FROM_ISSUE}"])


@pytest.mark.parametrize("word", ["windows", "seconds"])
def test_a_benchmark_ends(word: str, vitbench: Cli) -> None:
    output = vitbench("bench", f"{word}={FROM_ISSUE}")
    assert output.code == 2 and f"{word}={FROM_ISSUE}" in output.err and output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("seed=1e400", "seed=1e400: must be a whole number"),
        ("seed=0x10", "seed=0x10: must be a whole number"),
        ("seed=1.5", "seed=1.5: must be a whole number"),
        (f"seed={'9' * 5000}", "seed=99999999...: must be a number of fewer than 300 digits"),
        ("optim.lr=0x10", "optim.lr=0x10: must be a number"),
        ("optim.lr=1e400", "optim.lr=inf: must be above 0"),
        ("optim.lr=1e-400", "optim.lr=0.0: must be above 0"),
        ("optim.lr=-0", "must be above 0"),
        ("model.width=1e400", "must be a whole number"),
        ("seed=1_000", ""),
        ("seed=-0", ""),
    ],
)
def test_a_number_is_read_as_python_writes_it(word: str, line: str) -> None:
    answer = refusal([word])
    assert line in answer and bool(line) == bool(answer) and "\n" not in answer


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("word", ["seed=range(1000000000)", "seed=range(0,inf)", "optim.lr=range(0,1,1e-300)"])
def test_a_multirun_without_end_is_refused_before_it_is_listed(word: str, vitbench: Cli) -> None:
    begin = time.process_time()
    output = vitbench("train", "-m", word)
    assert output.code == 2 and word in output.err and output.err.count("\n") == 1
    assert time.process_time() - begin < SECONDS
