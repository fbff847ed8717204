"""The dial of places: which tiles move, and what of a network's answers depends on places."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitbench.data.augment import Augment
from vitbench.data.loader import Normalise
from vitbench.data.permute import rearrangement
from vitbench.errors import UserError
from vitbench.models.build import build_model
from vitbench.objectives.classify import Classify
from vitbench.settings.share import places_of

CPU = torch.device("cpu")


def places(tile: int = 4, share: float = 1.0, seed: int = 0, size: int = 32) -> NDArray[np.int64]:
    found = rearrangement(size, tile, share, seed)
    assert found is not None
    return found


def moved_tiles(shown: NDArray[np.int64], tile: int) -> set[int]:
    """Which of the tiles, counted row by row, show another one. Every pixel of such a tile moves with it."""
    side = round(len(shown) ** 0.5)
    rows, columns = np.divmod(np.arange(side**2), side)
    of_pixel = rows // tile * (side // tile) + columns // tile
    source = of_pixel[shown]
    for number in range((side // tile) ** 2):
        assert len({*source[of_pixel == number]}) == 1, "a tile shows one tile"
    assert (rows[shown] % tile == rows % tile).all() and (columns[shown] % tile == columns % tile).all()
    return {*of_pixel[source != of_pixel].tolist()}


@pytest.mark.parametrize("tile", [1, 4, 8, 16])
@pytest.mark.parametrize("share", [0.25, 0.5, 1])
def test_a_share_of_the_tiles_moves_and_all_pixels_stay_in_the_image(tile: int, share: float) -> None:
    shown = places(tile, share)
    tiles = (32 // tile) ** 2
    assert sorted(shown) == list(range(32 * 32))
    expected = round(share * tiles)
    assert len(moved_tiles(shown, tile)) == (2 if expected == 1 else expected)


def test_the_tiles_of_a_share_are_among_those_of_a_larger_share() -> None:
    sets = [moved_tiles(places(share=share), 4) for share in (0.1, 0.25, 0.5, 0.75, 1)]
    assert all(smaller < larger for smaller, larger in pairwise(sets))
    quarter, half = places(share=0.25), places(share=0.5)
    corners = [tile // 8 * 4 * 32 + tile % 8 * 4 for tile in moved_tiles(quarter, 4)]
    assert (quarter[corners] == half[corners]).sum() == 15, (
        "of 16 moved tiles all but the last show the same tile at twice the share"
    )


def test_the_dial_at_pixels_leaves_no_pixel_in_its_place() -> None:
    settings: dict[str, Any] = {"permute": "pixels", "permute_share": 1.0, "permute_tile": 4, "permute_seed": None}
    shown = places_of({"seed": 5, "data": settings}, 28)
    assert shown is not None and (shown != np.arange(28 * 28)).all() and (shown == places(1, seed=5, size=28)).all()


def test_one_seed_is_one_rearrangement_and_the_seed_of_the_run_unless_told_another() -> None:
    data: dict[str, Any] = {"permute": "tiles", "permute_share": 1.0, "permute_tile": 4, "permute_seed": None}
    runs = [{"seed": 3, "data": data}, {"seed": 0, "data": data | {"permute_seed": 3}}, {"seed": 0, "data": data}]
    of_run, typed, other = (places_of(settings, 32) for settings in runs)
    assert of_run is not None and typed is not None and other is not None
    assert (of_run == typed).all() and (of_run == places(seed=3)).all() and (of_run != other).mean() > 0.9


@pytest.mark.parametrize("changed", [{"permute": "none"}, {"permute_share": 0.0}, {"permute_share": 0.001}])
def test_where_no_tile_moves_there_is_no_rearrangement(changed: dict[str, Any]) -> None:
    data: dict[str, Any] = {"permute": "tiles", "permute_share": 1.0, "permute_tile": 4, "permute_seed": None}
    assert places_of({"seed": 0, "data": data | changed}, 32) is None
    assert places_of({"seed": 0, "data": {"source": "shapes"}}, 32) is None, "records of before have no such setting"


@pytest.mark.parametrize("tile", [3, 5, 32, 64])
def test_a_tile_that_does_not_divide_the_image_is_refused(tile: int) -> None:
    with pytest.raises(
        UserError, match=rf"^data.permute_tile={tile}: must divide the image size, 32 px, .*: 1, 2, 4, 8, 16$"
    ):
        rearrangement(32, tile, 0.0, 0)


# --------------------------------------------------------------------------------------------- what the network gets


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels_last", [False, True])
def test_bytes_and_floats_are_rearranged_alike_whatever_their_layout(images: Tensor, channels_last: bool) -> None:
    shown = places()
    normalise = Normalise([0.4, 0.5, 0.6], [0.2, 0.3, 0.4], CPU, channels_last, shown)
    expected = normalise.values(images).flatten(2)[:, :, torch.from_numpy(shown)].view(6, 3, 32, 32)
    assert torch.equal(normalise(images), expected) and torch.equal(
        normalise.rearranged(normalise.values(images)), expected
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert normalise(images).is_contiguous(memory_format=layout)
    assert normalise.rearranged(normalise.values(images)).is_contiguous(memory_format=layout)


def test_images_of_another_size_are_refused(images: Tensor) -> None:
    with pytest.raises(UserError, match="images of 32 px for this network"):
        Normalise([0.5] * 3, [0.25] * 3, CPU, places=places())(images[:, :, :16, :16])


@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"cutmix": 1.0}, {"erase": 1.0}, {"crop": 0.125, "flip": True}])
def test_places_are_rearranged_after_all_augmentation(images: Tensor, options: dict[str, Any]) -> None:
    usual = {"crop": 0.0, "flip": False, "randaugment": 0, "magnitude": 9, "mixup": 0.0, "cutmix": 0.0, "erase": 0.0}
    augment = Augment(num_classes=10, image_size=32, **usual | options)
    views = []
    for shown in (None, places()):
        torch.manual_seed(0)
        normalise = Normalise([0.5] * 3, [0.25] * 3, CPU, places=shown)
        views.append(Classify(0.0, None).views(images, torch.arange(6), augment, normalise))
    (plain, labels), (moved, same_labels) = views
    assert torch.equal(moved, normalise.rearranged(plain)) and torch.equal(labels, same_labels)
    assert not torch.equal(moved, plain)


# ------------------------------------------------------------------------------------------- what networks make of it


def network(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return build_model(name, image_size=32, channels=3, num_classes=10, **options).eval()


@torch.no_grad()
def largest_difference(model: Any, images: Tensor, shown: NDArray[np.int64]) -> float:
    """How far logits move when the places are rearranged, in units of their deviation."""
    plain, moved = (Normalise([0.5] * 3, [0.25] * 3, CPU, places=each)(images) for each in (None, shown))
    logits = model(plain)
    return ((model(moved) - logits).abs().max() / logits.std()).item()


@pytest.mark.known_answer
def test_a_vit_without_positions_answers_alike_where_its_patches_change_places(images: Tensor) -> None:
    vit = network("vit", width=32, depth=2, heads=2, patch_size=4, pe={"name": "none"})
    assert largest_difference(vit, images, places(4)) < 1e-5
    assert largest_difference(vit, images, places(8)) < 1e-5, "a tile of four patches takes them along"
    assert largest_difference(vit, images, places(2)) > 1e-2, "within a patch every pixel has a weight of its own"


@pytest.mark.known_answer
def test_a_learned_table_that_is_rearranged_too_undoes_the_rearrangement(images: Tensor) -> None:
    vit, shown = network("vit", width=32, depth=2, heads=2, patch_size=4, pe={"name": "learned"}), places(4)
    assert largest_difference(vit, images, shown) > 1e-3
    plain, moved = (Normalise([0.5] * 3, [0.25] * 3, CPU, places=each)(images) for each in (None, shown))
    with torch.no_grad():
        logits = vit(plain)
        rows, columns = np.divmod(shown.reshape(32, 32)[::4, ::4].reshape(-1), 32)
        vit.pe.table[:] = vit.pe.table[:, torch.from_numpy(rows // 4 * 8 + columns // 4)].clone()
        torch.testing.assert_close(vit(moved), logits, atol=1e-5, rtol=1e-5)


def test_a_cnn_answers_otherwise(images: Tensor) -> None:
    assert largest_difference(network("resnet", base_width=4), images, places(4)) > 1e-2
