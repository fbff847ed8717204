from __future__ import annotations

import pytest
import torch

from vitbench.data.loader import Loader, Normalise, seed_random_state


def loader(images: int, batch_size: int, seed: int = 0) -> Loader:
    return Loader(torch.zeros(images, 3, 4, 4, dtype=torch.uint8), torch.arange(images), batch_size, seed)


@pytest.mark.parametrize(("images", "batch_size"), [(10, 4), (64, 64), (3, 8), (7, 7), (1, 5)])
def test_every_image_is_seen_equally_often(images: int, batch_size: int) -> None:
    batches = loader(images, batch_size)
    seen = torch.cat([batches.indices(step) for step in range(images)])  # these steps are batch_size epochs
    assert all(len(batches.indices(step)) == batch_size for step in range(3))
    assert torch.bincount(seen, minlength=images).tolist() == [batch_size] * images


def test_an_epoch_is_a_permutation_and_the_next_another() -> None:
    batches = loader(50, 50)
    first, second = batches.indices(0), batches.indices(1)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(50))
    assert first.tolist() != second.tolist()


def test_a_batch_depends_on_seed_and_step_only() -> None:
    in_order, jumping = loader(13, 4), loader(13, 4)
    batches = [in_order.indices(step).tolist() for step in range(12)]
    assert [jumping.indices(step).tolist() for step in (11, 0, 7)] == [batches[11], batches[0], batches[7]]
    assert loader(13, 4, seed=1).indices(0).tolist() != batches[0]


def test_random_numbers_of_a_step_depend_on_seed_and_step() -> None:
    def numbers(seed: int, step: int) -> list[float]:
        seed_random_state(seed, step)
        return torch.rand(3).tolist()

    assert numbers(1, 5) == numbers(1, 5)
    assert len({tuple(numbers(seed, step)) for seed in range(20) for step in range(20)}) == 400
    seed_random_state(0, 2**32 + 5)  # a step that does not fit in the 32 bits that torch keeps of a seed
    assert torch.rand(3).tolist() != numbers(0, 5)


def test_normalised_training_images_have_mean_0_and_deviation_1() -> None:
    images = torch.randint(0, 256, (300, 3, 8, 8), dtype=torch.uint8)
    images[:, 1] //= 4
    normalised = Normalise.of(images)(images)
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_a_constant_channel_stays_finite() -> None:
    images = torch.full((5, 1, 4, 4), 200, dtype=torch.uint8)
    assert Normalise.of(images)(images).abs().max() < 1e-3
