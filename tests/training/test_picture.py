"""`vitbench ls images` draws what training would give to the network, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY_32, Output
from vitbench.runs.origin import find_parents
from vitbench.runs.plan import Planner
from vitbench.runs.run import Run
from vitbench.training import picture
from vitbench.training.prepare import prepare

Cli = Callable[..., Output]
SMALL = ["model=vit", "model.width=16", "model.depth=1", "model.heads=2", *TINY_32]


@pytest.mark.parametrize(
    "words",
    [
        ["augment=none"],
        ["augment=none", "data.permute=tiles", "data.permute_share=0.5", "seed=3"],
        ["augment=strong", "data.permute=pixels"],
        ["augment=deit", "model=resnet", "model.base_width=2", "data.count=50"],
        ["augment=light", "objective=mae", "data.permute=tiles"],
    ],
)
def test_the_picture_shows_the_first_batch_that_training_takes(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = TINY_32 if "model=resnet" in words else SMALL
    settings = Planner().settings([*small, *words])
    shown = picture.shown(settings)
    training = prepare(Run.of(settings), find_parents(settings))
    views = training.views(*training.next_batch())[0]
    std, mean = (torch.tensor(each).view(-1, 1, 1) for each in (training.normalise.std, training.normalise.mean))
    torch.testing.assert_close(shown.images, (views * std + mean).clamp(0, 1), atol=0, rtol=0)
    assert shown.images.shape == (16, 3, 32, 32) and len(shown.captions) == 16


def test_captions_are_classes_or_their_shares_where_images_are_mixed() -> None:
    plain, mixed = (
        picture.shown(Planner().settings([*SMALL, "augment=none", *words])) for words in ([], ["augment.mixup=0.8"])
    )
    names = {"disc", "ring", "square", "triangle", "cross", "star", "crescent", "heart", "bar", "corner"}
    assert {*plain.captions} <= names
    of_two = [caption.split() for caption in mixed.captions if "\n" in caption]
    assert len(of_two) > 8
    for larger, _, smaller, _ in of_two:
        assert float(larger) >= float(smaller) and float(larger) + float(smaller) == pytest.approx(1, abs=0.011)


def test_two_views_of_an_image_stand_side_by_side_and_small_batches_follow_each_other() -> None:
    two = picture.shown(Planner().settings([*SMALL, "augment=none", "objective=simsiam"]))
    assert two.captions[::2] == two.captions[1::2] and "2 views of each image" in two.title
    words = [word for word in SMALL if not word.startswith("optim.batch_size")]
    few, many = (
        picture.shown(Planner().settings([*words, "augment=none", f"optim.batch_size={size}"])) for size in (5, 20)
    )
    assert torch.equal(few.images, many.images), "without augmentation only the cut into batches differs"


def test_the_command_writes_the_same_bytes_again_and_nothing_else(vitbench: Cli) -> None:
    for name in ("a.png", "b.png"):
        done = vitbench("ls", "images", f"file=new/{name}", *SMALL, "augment=strong", "augment.erase=0.5")
        assert (done.code, done.out) == (0, f"new/{name}\n"), done.err
    first, second = (Path("new", name).read_bytes() for name in ("a.png", "b.png"))
    assert first[:8] == second[:8] == b"\x89PNG\r\n\x1a\n" and len(first) > 10_000
    assert os.listdir(".") == ["new"]
    assert vitbench("ls", "images", "file=c.svg", *SMALL).code == 0
    svg = Path("c.svg").read_text()
    assert "svg" in svg[:500]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "ls images: type one file=, for example file=images.png"),
        ("file=a.gif", "file=a.gif: the ending says the format; choices: .svg, .png, .pdf"),
        ("file=a.png -m", "ls images -m: no such option; ls images takes file=, replace=true and settings of a run"),
        ("file=a.png modle=vit", "modle=vit: no such setting of `vitbench train`; did you mean model?"),
        ("file=a.png optim.lr=-1", "optim.lr=-1.0: must be above 0"),
        ("file=a.png data.permute=tiles data.permute_tile=7", "data.permute_tile=7: must divide the image size, 32 px"),
    ],
)
def test_a_wrong_word_gets_one_line_and_no_picture(vitbench: Cli, words: str, line: str) -> None:
    done = vitbench("ls", "images", *words.split())
    assert (done.code, done.out) == (2, "") and done.err.startswith(f"vitbench: {line}") and done.err.count("\n") == 1
    assert not os.listdir(".")
