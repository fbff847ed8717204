from __future__ import annotations

import pytest

from vitbench.errors import UserError
from vitbench.runs.ancestor import generations
from vitbench.settings.check import check
from vitbench.settings.compose import as_settings, compose
from vitbench.settings.described import settings_described
from vitbench.settings.identity import id_of, run_id
from vitbench.settings.overrides import prepare


def settings(*words: str) -> dict[str, object]:
    return check(as_settings(compose(prepare(words))))


@pytest.mark.parametrize(
    ("own", "words", "same"),
    [
        ("", "model=resnet", "model=resnet"),
        # a CNN takes over no encoding
        (
            "pe=rope pe.theta=10 optim.steps=7 seed=3 data.fraction=0.1",
            "model=resnet",
            "model=resnet optim.steps=7 seed=3 data.fraction=0.1",
        ),
        # nor a ViT's learning rate
        ("optim.lr=0.5 optim.batch_size=8", "model=resnet", "model=resnet optim.batch_size=8"),
        ("model.depth=2 size=micro", "model=resnet", "model=resnet size=micro"),
        ("model=resnet", "model=vit pe=none", "model=vit pe=none"),
        (
            "pe=rope pe.theta=10",
            "data.fraction=0.5 optim.steps=9",
            "pe=rope pe.theta=10 data.fraction=0.5 optim.steps=9",
        ),
        ("augment=strong model=vit optim=resnet", "model=resnet size=tiny", "augment=strong model=resnet size=tiny"),
        ("data=cifar10 data.count=50", "data=shapes", "data=shapes data.count=50"),
        (
            "data=imagefolder data.root=/a/pets",
            "objective=simsiam",
            "data=imagefolder data.root=/a/pets objective=simsiam",
        ),
        ("data.count=50", "data.fraction=1", ""),
        ("data.fraction=0.1", "data.count=50", "data.count=50"),
        ("optim.epochs=5", "optim.steps=9", "optim.steps=9"),
        ("optim.steps=7", "optim.epochs=2", "optim.epochs=2"),
        ("teacher=model=resnet distill.kind=soft model.distill_token=true", "pe=rope", "pe=rope"),
    ],
)
def test_words_describe_the_run_that_a_command_line_would_start(own: str, words: str, same: str) -> None:
    assert run_id(settings_described(settings(*own.split()), words)) == run_id(settings(*same.split()))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("model=resnett", "teacher='model=resnett': model=resnett: did you mean resnet?"),
        ("optim.lrr=1", "teacher='optim.lrr=1': optim.lrr=1: no such setting"),
        ("seed=0,1", "teacher='seed=0,1': seed=0,1: has several values"),
        ("data.fraction=2", "data.fraction=2.0: must be above 0"),
        ("'model=resnet", "a quote is not closed"),
    ],
)
def test_words_that_describe_no_run_get_one_line(words: str, line: str) -> None:
    with pytest.raises(UserError) as error:
        id_of({**settings(), "teacher": words}, "teacher")
    assert line in str(error.value) and "\n" not in str(error.value)


def test_a_run_comes_after_what_it_starts_from() -> None:
    assert generations({"c": {"b"}, "a": set(), "b": {"a", "elsewhere"}, "d": {"a"}}) == [["a"], ["b", "d"], ["c"]]
