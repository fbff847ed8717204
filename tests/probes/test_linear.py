"""Linear probes of features that are known to hold the class, or not to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.probes.known import curve, find, noise, subject, value
from vitbench.errors import UserError
from vitbench.numbers.ridge import ridge
from vitbench.probes import linear
from vitbench.probes.subject import Row, Subject

CLASSES = 4


class Depth(nn.Module):
    """Has three layers: noise, a trace of the class, the class itself, which is the brightest of four pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.noise, self.some, self.all, self.head = (nn.Identity() for _ in range(4))

    @property
    def taps(self) -> dict[str, nn.Module]:
        return {"noise": self.noise, "some": self.some, "all": self.all, "head": self.head}

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1)
        self.noise(pixels[:, 100:130, None, None].expand(-1, -1, 2, 3))  # maps (B,D,h,w)
        self.some(torch.cat([pixels[:, :2], pixels[:, 100:102]], 1)[:, None])  # tokens that hold the first two classes
        return self.head(self.all(pixels[:, :CLASSES]))


def drawn(images: int, seed: int) -> tuple[Tensor, Tensor]:
    pixels, labels = noise(images, 8, seed=seed), torch.arange(images) % CLASSES
    pixels[:, 0, 0, :CLASSES] = 100 + 100 * nn.functional.one_hot(labels, CLASSES).to(torch.uint8)
    return pixels, labels


def subject_of(held: int = 400) -> Subject:
    made = subject(Depth(), *drawn(200, 0), CLASSES)
    return made._replace(held_out=lambda most: tuple(part[:most] for part in drawn(held, 1)))  # type: ignore[arg-type, return-value]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return linear.probe(subject_of(), seed=0)


def full(rows: list[Row], layer: str | None) -> float:
    return value([row for row in rows if row["protocol"] == "linear@v1"], "accuracy", layer=layer)


@pytest.mark.known_answer
def test_what_can_be_separated_is_and_noise_is_chance(rows: list[Row]) -> None:
    assert full(rows, "all") == full(rows, "pooled") == full(rows, None) == 1
    assert full(rows, "noise") == pytest.approx(0.25, abs=0.1)
    assert 0.6 < full(rows, "some") < 0.9  # two classes for certain, the other two are guessed
    assert value(rows, "images") == 320


@pytest.mark.known_answer
def test_half_the_depth_is_where_half_is_reached() -> None:
    assert linear.half_depth([0.2, 0.4, 0.8, 1.0], 0.2) == (1.5 / 3, "")  # 0.6 lies between the second and the third
    assert linear.half_depth([0.9, 1.0], 0.2) == (0, "") and "chance" in linear.half_depth([0.3, 0.2], 0.2)[1]


def test_a_few_images_do_where_the_class_is_plain(rows: list[Row]) -> None:
    shots = [row for row in rows if row["protocol"] == "linear.shots@v1"]
    assert curve(shots, "accuracy", layer="all") == {1: 1, 5: 1, 10: 1, 25: 1}
    assert value(shots, "accuracy_1") == 1
    assert max(curve(shots, "accuracy", layer="noise").values()) < 0.4


def test_few_shot_sets_have_as_many_of_each_class_and_differ() -> None:
    labels = torch.tensor([0] * 30 + [1] * 10)
    sets = linear.few_shot_sets(labels, 2, 5, 3, seed=0)
    assert all(labels[places].bincount().tolist() == [5, 5] for places in sets)
    assert (
        len({tuple(places.tolist()) for places in sets}) == 3 and linear.few_shot_sets(labels, 2, 11, 3, seed=0) == []
    )


@pytest.mark.parametrize("n, D", [(50, 7), (7, 50)])
def test_ridge_is_the_solution_of_its_equations(n: int, D: int) -> None:
    torch.manual_seed(0)
    X, other, labels = torch.randn(n, D).double(), torch.randn(9, D).double(), torch.arange(n) % 3
    (found,) = ridge(X, labels, [other], 3)
    Z, T = (X - X.mean(0)) / (X.std(0, correction=0) + 1e-5), 2.0 * nn.functional.one_hot(labels, 3).double() - 1
    W = torch.linalg.solve(Z.T @ Z + 4 * torch.eye(D).double(), Z.T @ (T - T.mean(0)))  # 2^2 is the 13th penalty
    expected = (other - X.mean(0)) / (X.std(0, correction=0) + 1e-5) @ W + T.mean(0)
    torch.testing.assert_close(found[12], expected)


def test_what_is_lacking_is_said() -> None:
    (row,) = linear.probe(subject_of(held=3), seed=0)
    assert math.isnan(row["value"]) and "3 validation images are too few to fit 4 classes on" in row["reason"]
    rows = linear.probe(subject_of(held=60), seed=0, draws=1)
    assert "fewer than 25 of the 48" in find(rows, "accuracy_25")["reason"] and value(rows, "accuracy_5") == 1
    with pytest.raises(UserError, match=r"probe.linear.draws=0: must be 1 or more"):
        linear.probe(subject_of(), seed=0, draws=0)
