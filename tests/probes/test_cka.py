"""CKA of features whose similarity is known, and against the formula written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.probes.known import find, noise, subject, value
from vitbench.errors import UserError
from vitbench.probes import cka
from vitbench.probes.subject import Row, Subject

WIDTH = 192  # numbers of an image of 8 x 8 px


class Layers(nn.Module):
    """A network whose layers each multiply the pixels by a matrix, and a head."""

    def __init__(self, *matrices: Tensor) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*matrix.T.shape, bias=False) for matrix in matrices)
        for layer, matrix in zip(self.layers, matrices, strict=True):
            layer.weight = nn.Parameter(matrix)
        self.head = nn.Linear(len(matrices[-1]), 5)
        self.sizes: list[int] = []

    @property
    def taps(self) -> dict[str, nn.Module]:
        return {**{f"block{i}": layer for i, layer in enumerate(self.layers, 1)}, "head": self.head}

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return self.head([layer(images.flatten(1) - 127.5) for layer in self.layers][-1])


def subject_of(*matrices: Tensor, images: int = 32, **more: object) -> Subject:
    torch.manual_seed(0)
    return subject(Layers(*matrices), noise(images, 8), torch.zeros(images).long(), 5)._replace(**more)  # type: ignore[arg-type]


def pick(first: int, width: int) -> Tensor:
    """The matrix that picks numbers first .. first + width of an image, which in noise are unrelated to all others."""
    return torch.eye(WIDTH)[first : first + width]


def rotation(width: int) -> Tensor:
    torch.manual_seed(1)
    return torch.linalg.qr(torch.randn(width, width))[0]


def between(*matrices: Tensor, images: int = 32) -> float:
    rows = cka.probe(subject_of(*matrices, images=images), seed=0)
    return value(rows, "similarity", 1 / 3, layer="block1")  # at block2


def hsic(K: Tensor, L: Tensor) -> Tensor:
    """HSIC_1 as in Nguyen et al. 2021, eq. 3."""
    n = len(K)
    K, L = (G - torch.diag(G.diag()) for G in (K, L))
    one = torch.ones(n, dtype=K.dtype)
    sums = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
    return ((K @ L).trace() + sums - 2 / (n - 2) * (one @ K @ L @ one)) / (n * (n - 3))


@pytest.mark.known_answer
def test_the_same_features_turned_and_scaled_are_the_same() -> None:
    base = pick(0, 64)
    assert between(base, base) == pytest.approx(1, abs=1e-9)
    assert between(base, -3 * rotation(64) @ base) == pytest.approx(1, abs=1e-5)  # float32 features


def test_unrelated_features_are_near_zero_where_the_biased_form_is_not() -> None:
    found = between(pick(0, 96), pick(96, 96))
    torch.manual_seed(0)
    X, Y = torch.randn(2, 32, 512, dtype=torch.float64)
    K, L = (cka.u_centred(cka.gram(Z)).flatten() for Z in (X, Y))
    unbiased = (K @ L / (K.norm() * L.norm())).item()
    H = torch.eye(32, dtype=torch.float64) - 1 / 32
    A, B = ((H @ Z @ Z.T @ H).flatten() for Z in (X, Y))
    assert abs(found) < 0.1 and abs(unbiased) < 0.1
    assert (A @ B / (A.norm() * B.norm())).item() == pytest.approx(0.94, abs=0.01)


def test_it_is_the_formula_summed_over_batches_before_the_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cka, "BATCH", 20)
    network = subject_of(pick(0, 64), pick(32, 64), images=57)
    rows = cka.probe(network, seed=0)
    features = (network.images.double().flatten(1) - 127.5).split([29, 28])  # no last batch of 17
    grams = [[part[:, i : i + 64] @ part[:, i : i + 64].T for i in (0, 32)] for part in features]
    xy, xx, yy = (sum(hsic(pair[i], pair[j]) for pair in grams) for i, j in ((0, 1), (0, 0), (1, 1)))
    assert value(rows, "similarity", 1 / 3, layer="block1") == pytest.approx((xy / (xx * yy).sqrt()).item(), rel=1e-5)  # type: ignore[union-attr, operator]
    assert max(network.model.sizes) <= 29  # type: ignore[operator, arg-type]


def test_memory_is_bounded_by_more_forwards_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cka.probe(subject_of(pick(0, 64), pick(32, 64)), seed=0)
    monkeypatch.setattr(cka, "NUMBERS_AT_ONCE", 32 * 70)
    monkeypatch.setattr(cka, "FEATURES_AT_ONCE", 10)
    network = subject_of(pick(0, 64), pick(32, 64))
    assert [row["value"] for row in cka.probe(network, seed=0)] == pytest.approx([row["value"] for row in whole])
    assert network.model.sizes.count(32) == 3  # type: ignore[operator, union-attr]


def compared(own: Subject, other: Subject, **options: object) -> list[Row]:
    mine = own._replace(network=lambda name: other._replace(name=name))
    return cka.probe(mine, seed=0, other={"twin": "that-run", "own": None}, **options)  # type: ignore[arg-type]


def test_another_run_has_rows_of_its_own_and_a_run_that_is_meant_itself_a_reason() -> None:
    rows = compared(subject_of(pick(0, 64), pick(100, 64)), subject_of(pick(100, 64), rotation(64) @ pick(0, 64)))
    twin = [row for row in rows if row["protocol"] == "cka.twin@v1"]
    assert value(twin, "best", layer="block1") == pytest.approx(1, abs=1e-5)
    assert value(twin, "best_at", layer="block1") in (1 / 3, 2 / 3)  # the last block, which is what the head is given
    assert value(twin, "best_at", layer="block2") == 0
    assert value(twin, "diagonal") < 0.6 and value(twin, "last") < 0.2 < value(twin, "mean_best")
    assert find(twin, "similarity", 0.0, layer="head")["at_unit"] == "relative depth in that-run"
    own = [row for row in rows if row["protocol"] == "cka.own@v1"]
    assert len(own) == 3 and all(math.isnan(row["value"]) and "is this run itself" in row["reason"] for row in own)


@pytest.mark.known_answer
def test_raw_pixels_are_what_a_layer_of_pixels_holds_and_a_layer_of_few_does_not() -> None:
    network = subject_of(pick(0, 8), rotation(WIDTH) @ pick(0, WIDTH))
    rows = cka.probe(network, seed=0, other={"pixels": "pixels"})
    assert {row["protocol"] for row in rows} == {"cka.pixels@v1"}
    assert value(rows, "last") == pytest.approx(1, abs=1e-5)  # the second block turns the pixels, and the head sees it
    assert value(rows, "best", layer="block1") < 0.5
    assert len([row for row in rows if row["metric"] == "similarity" and row["layer"] == "block1"]) == 1
    assert b"<svg" in cka.draw(network, seed=0, other={"pixels": "pixels"})


def test_other_layers_have_no_diagonal_and_equal_features_no_similarity() -> None:
    rows = [
        row
        for row in compared(subject_of(pick(0, 64)), subject_of(pick(0, 64), torch.zeros(4, WIDTH)))
        if "twin" in row["protocol"]
    ]
    assert "different layers" in find(rows, "diagonal")["reason"]
    dead = [row for row in rows if row["metric"] == "similarity" and row["layer"] == "block1" and row["at"] == 1 / 3]
    assert "the same features for all images" in dead[0]["reason"]


def test_what_cannot_be_gets_one_line() -> None:
    network = subject_of(pick(0, 64), images=3)
    with pytest.raises(UserError, match="images=3: unbiased CKA needs 4 or more"):
        cka.probe(network, seed=0)


def test_it_is_a_picture() -> None:
    network = subject_of(pick(0, 64), pick(32, 64))
    assert b"<svg" in cka.draw(network, seed=0)
    assert cka.draw(network, seed=0, ending=".png").startswith(b"\x89PNG")
