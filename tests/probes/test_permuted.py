"""Probes of a network whose run rearranged the places of its images: what a probe changes is changed first."""

from __future__ import annotations

import pytest
import torch

from vitbench.data.loader import Normalise
from vitbench.data.permute import rearrangement
from vitbench.models.build import build_model
from vitbench.probes import cost, equivariance, lie, resolution
from vitbench.probes.subject import Subject, predict

PATCH = 4


@pytest.fixture(scope="module")
def subjects() -> tuple[Subject, Subject]:
    """A ViT without positions on images as they are, and on the same with its patches moved."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    model = build_model(
        "vit",
        image_size=16,
        channels=3,
        num_classes=5,
        width=16,
        depth=2,
        heads=2,
        patch_size=PATCH,
        pe={"name": "none"},
    )
    moved = rearrangement(16, PATCH, 1.0, 0)
    both = (Normalise([0.5] * 3, [0.25] * 3, images.device, places=places) for places in (None, moved))
    plain, rearranged = (Subject(model.eval(), images, torch.arange(6) % 5, each, 5) for each in both)
    return plain, rearranged


@pytest.mark.known_answer
def test_maps_of_rearranged_images_do_not_move_with_the_image(subjects: tuple[Subject, Subject]) -> None:
    errors = []
    for subject in subjects:
        rows = [row for row in equivariance.probe(subject, seed=0, max_shift=PATCH) if row["metric"] == "on_lattice"]
        of_maps = [row["value"] for row in rows if row["protocol"] == "equivariance.circular@v1"]
        errors.append(of_maps[:4])  # the last map, the patches and the two blocks
    assert max(errors[0]) < 1e-4, "without positions, maps move with the image by whole patches"
    assert min(errors[1]) > 0.5, "the image moves first, and its places are rearranged after that"


@pytest.mark.known_answer
def test_derivatives_along_a_moving_image_are_those_of_the_plain_network(subjects: tuple[Subject, Subject]) -> None:
    """Nothing in this network depends on where patches stand, if only the image is moved before they are."""
    plain, moved = ([row["value"] for row in lie.probe(each, seed=0, draws=0, gruver=True)] for each in subjects)
    assert len(plain) == 18 and moved == pytest.approx(plain, rel=1e-3)


def test_a_rearrangement_is_of_one_size_and_costs_are_measured_at_all(subjects: tuple[Subject, Subject]) -> None:
    plain, moved = subjects
    assert resolution.refusal(plain, 8) == "" and "images of 16 px for this network" in resolution.refusal(moved, 8)
    assert cost._measured(moved.model, moved, 8, 2)["inference_images_per_second"] > 0


def test_what_the_network_gets_is_the_same_of_images_as_seen(subjects: tuple[Subject, Subject]) -> None:
    plain, moved = subjects
    seen = moved.as_seen()
    assert torch.equal(predict(seen), predict(moved)) and torch.equal(plain.as_seen().images, plain.images)
    assert not torch.equal(seen.images, moved.images) and seen.normalise.places is None
    torch.testing.assert_close(predict(plain), predict(moved), atol=1e-5, rtol=1e-5)
