"""Shift consistency on networks whose answer is known (controls 1 to 3 of the definitions)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitbench.data.loader import Normalise
from vitbench.errors import UserError
from vitbench.models.vit import ViT
from vitbench.probes.shift import draw_offsets, probe, translate
from vitbench.probes.subject import Subject
from vitbench.runs.probe_rows import column

IMAGES = torch.randint(256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(12) % 4


def subject(model: nn.Module) -> Subject:
    return Subject(model.eval(), IMAGES, LABELS, Normalise([0.5] * 3, [0.3] * 3, torch.device("cpu")), 4)


def lengths(model: nn.Module, metric: str = "total_variation") -> dict[int, float]:
    rows = probe(subject(model), seed=0, max_shift=4, draws=2)
    return {row["at"]: row["value"] for row in rows if row["protocol"] == "shift.length@v1" and row["metric"] == metric}


def scalars(model: nn.Module, **options: Any) -> dict[str, float]:
    rows = probe(subject(model), seed=0, **options)
    return {column(row, "trained"): row["value"] for row in rows if "at" not in row}


def cnn(padding: str, stride: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, stride, 1, padding_mode=padding),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 1, 1, padding_mode=padding),
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).double()


class Steep(nn.Module):
    """A network in float64 with its logits further apart, so that any change shows and rounding does not."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model.double(), factor

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * self.model(images.double())


def vit(pe: str) -> ViT:
    torch.manual_seed(0)
    return ViT(16, 3, 4, {"name": pe}, width=16, depth=2, heads=2)


def test_a_vit_without_positions_is_the_same_at_every_whole_patch_and_at_no_other_shift() -> None:
    found = lengths(Steep(vit("none"), 100))
    assert all((value < 1e-5) == (length % 4 == 0) for length, value in found.items()), found
    assert min(lengths(Steep(vit("sincos2d"), 100)).values()) > 1e-4


def test_a_vit_without_positions_sees_no_order_of_its_patches() -> None:
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)[:, :, torch.randperm(16)]  # (B,C,16,4,4)
    shuffled = patches.unflatten(2, (4, 4)).permute(0, 1, 2, 4, 3, 5).reshape(2, 3, 16, 16)
    for pe, same in (("none", True), ("sincos2d", False)):
        model = vit(pe).double()
        assert torch.allclose(model(images), model(shuffled), atol=1e-12) is same


@pytest.mark.parametrize("stride", [1, 2])
def test_a_circular_cnn_is_the_same_at_every_multiple_of_its_stride(stride: int) -> None:
    found = lengths(Steep(cnn("circular", stride), 3))
    assert all((value < 1e-6) == (length % stride == 0) for length, value in found.items()), found
    assert min(lengths(Steep(cnn("zeros", stride), 3)).values()) > 1e-6


def test_zero_padding_breaks_equivariance_in_the_border_band_only() -> None:
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    convolutions = cnn("zeros")[:3]  # two of 3 x 3, which err two pixels far at each side and where the image was cut
    error = (convolutions(images.roll(3, 3)) - convolutions(images).roll(3, 3)).abs().amax((0, 1))  # (H,W)
    assert error[2:-2, 5:-2].max() < 1e-12
    assert error[2:-2, :2].max() > 1e-3


class Constant(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([0.0, 0.0, 1.0, 0.0]).expand(len(images), 4)


@pytest.mark.known_answer
def test_a_constant_network_is_consistent_and_flagged() -> None:
    found = scalars(Constant())
    for fill in ("crop", "circular", "zero"):
        assert found[f"shift.{fill}.consistency"] == found[f"shift.{fill}.chance"] == 1
        assert found[f"shift.{fill}.degenerate"] == 1 and found[f"shift.{fill}.total_variation"] == 0
        assert found[f"shift.{fill}.accuracy"] == 0.25
    assert found["shift.worst.accuracy"] == 0.25 and found["shift.worst.conditional_consistency"] == 1


def test_a_network_that_is_never_right_has_no_conditional_consistency_and_says_why() -> None:
    wrong = subject(Constant())._replace(labels=torch.zeros(12, dtype=torch.int64))
    undefined = [row for row in probe(wrong, seed=0) if math.isnan(row["value"])]
    assert len(undefined) == 4 and all("rightly" in row["reason"] for row in undefined)


class Corner(nn.Module):
    """A network whose class is the brightness of one pixel, 0 to 3, so that classes can be counted by hand."""

    def forward(self, images: Tensor) -> Tensor:
        value = (images[:, 0, 8, 8] * 0.3 * 255 + 127.5).round().long() % 4
        return nn.functional.one_hot(value, 4).float()


@pytest.mark.known_answer
def test_consistency_is_counted_over_pairs_of_moved_copies() -> None:
    offsets = draw_offsets(12, 3, 2, torch.Generator().manual_seed(5))  # the probe's first draw
    copies = [[int(IMAGES[i, 0, 8 - dy, 8 - dx]) % 4 for i, (dy, dx) in enumerate(draw.tolist())] for draw in offsets]
    pairs = [(a, b) for a, b in ((0, 1), (0, 2), (1, 2))]
    same = sum(copies[a][i] == copies[b][i] for a, b in pairs for i in range(12))
    rows = probe(subject(Corner()), seed=5, max_shift=2, draws=3)
    (first,) = [row for row in rows if (row["protocol"], row["metric"]) == ("shift.crop@v1", "consistency")]
    assert first["value"] == pytest.approx(same / 36) and first["low"] <= first["value"] <= first["high"]


def test_every_image_moves_by_its_own_offset_and_what_enters_is_what_the_name_says() -> None:
    image = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4).expand(2, 1, 4, 4)
    offsets = torch.tensor([[0, 1], [-1, 0]])
    for fill, first, last in (
        ("circular", [3, 0, 1, 2], [0, 1, 2, 3]),
        ("zero", [0, 0, 1, 2], [0] * 4),
        ("reflect", [1, 0, 1, 2], [8, 9, 10, 11]),
    ):
        moved = translate(image, offsets, fill)
        assert moved[0, 0, 0].tolist() == first and moved[1, 0, 3].tolist() == last
        assert moved[1, 0, 0].tolist() == [4, 5, 6, 7]


def test_a_crop_is_that_of_a_padded_image() -> None:
    padded = nn.functional.pad(IMAGES.double(), (4, 4, 4, 4), mode="reflect")
    moved = translate(IMAGES, torch.tensor([[3, -4]]).expand(12, 2), "reflect")
    assert (moved == padded[:, :, 1:17, 8:24]).all()


def test_no_circular_offset_is_zero_and_all_others_are_as_likely() -> None:
    offsets = draw_offsets(8000, 1, 1, torch.Generator().manual_seed(0), without_zero=True).view(-1, 2)
    counts = torch.unique(offsets, dim=0, return_counts=True)[1]
    assert len(counts) == 8 and not (offsets == 0).all(1).any() and counts.min() > 880


@pytest.mark.parametrize("options", [{"max_shift": 16}, {"worst": 0}, {"draws": 1}])
def test_a_shift_that_no_image_has_room_for_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        probe(subject(Constant()), seed=0, **options)


def test_large_images_are_moved_by_fewer_shifts_and_the_rows_say_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 64 px and below every shift is measured, as ever; 224 px would take 290 forwards an image."""
    met: list[int] = []

    class Counted(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            met.append(len(images))
            return torch.nn.functional.one_hot(torch.zeros(len(images), dtype=torch.long), 4).float()

    def measured(size: int, **options: Any) -> list[dict[str, Any]]:
        met.clear()
        images = torch.zeros(4, 3, size, size, dtype=torch.uint8)
        normalise = Normalise([0.5] * 3, [0.3] * 3, torch.device("cpu"))
        return probe(Subject(Counted(), images, torch.zeros(4).long(), normalise, 4), seed=0, draws=2, **options)

    def said(rows: list[dict[str, Any]]) -> dict[str, float]:
        return {row["metric"]: row["value"] for row in rows if row["metric"] == "lengths"}

    def worst(rows: list[dict[str, Any]]) -> set[str]:
        return {row["protocol"] for row in rows if row["protocol"].startswith("shift.worst")}

    large = measured(224)
    assert said(large) == {"lengths": 8} and sum(met) == 4 * (3 * 2 + 1 + 8 + 8)
    assert worst(large) == {"shift.worst8@v1"}, "a bound is not called by the name of the worst case"
    moved = [row["at"] for row in large if row["protocol"] == "shift.length@v1" and row["metric"] == "consistency"]
    assert moved[0] == 1 and moved[-1] == 56 and len(moved) == 8
    assert said(measured(64)) == {} and sum(met) == 4 * (3 * 2 + 1 + 16 + 24)
    measured(224, worst=1, max_shift=4)
    assert sum(met) == 4 * (3 * 2 + 1 + 8 + 8)
    assert worst(measured(224, worst=1)) == {"shift.worst@v1"}
