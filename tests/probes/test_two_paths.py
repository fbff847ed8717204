from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY_32, Output
from vitbench.data.loader import Normalise
from vitbench.models.build import build_model
from vitbench.probes import two_paths
from vitbench.probes.subject import Subject


def subject_of(name: str, channels: int = 3, size: int = 32, **options: object) -> Subject:
    torch.manual_seed(0)
    model = build_model(name, image_size=size, channels=channels, num_classes=5, **options).eval()  # type: ignore[arg-type]
    pixels = torch.randint(256, (1, channels, size, size), dtype=torch.uint8)
    normalise = Normalise([0.5] * channels, [0.25] * channels, pixels.device)
    return Subject(model, pixels, torch.zeros(1, dtype=torch.int64), normalise, 5)


@pytest.mark.parametrize("name, own", [("vit", 2), ("resnet", 2)])
def test_both_paths_agree_where_theory_says_so(name: str, own: int) -> None:
    """Convolutions agree at every shift, pooling, strides and patches at whole ones, attention with positions never."""
    subject = subject_of(name)
    with torch.no_grad():
        rows, patch = two_paths.five_layers(subject, seed=0)
        off, on = two_paths.two_shifts(patch, 32)
        errors = [[two_paths.walk(subject, layer, by).error for by in (off, on)] for layer in rows]
    assert (off, on) == (7, 8)
    assert sum(layer.weights == "of this network" for layer in rows) == own
    conv, pool, strided, patches, attention = errors
    assert max(conv) < 1e-5
    assert all(error[0] > 0.1 and error[1] < 1e-5 for error in (pool, strided, patches))
    assert attention[0] > 0.1 and (attention[1] > 0.05 or name == "vit")  # this ViT has no positions


@pytest.mark.parametrize("options", [{"sharing": False}, {"reach": "random"}, {"stem": "patch"}], ids=str)
def test_a_cnn_without_a_common_convolution_is_shown_beside_a_random_one(options: dict[str, object]) -> None:
    subject = subject_of("resnet", **options)
    layers, _ = two_paths.five_layers(subject, seed=0)
    assert {layer.weights for layer in layers} == {"random", ""}
    assert two_paths.draw(subject, seed=0, ending=".png").startswith(b"\x89PNG")


def test_it_is_a_picture_also_of_one_grey_channel() -> None:
    subject = subject_of("resnet", channels=1)
    assert two_paths.draw(subject, seed=0, ending=".png").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "name, size, options", [("resnet", 31, {}), ("vit", 31, {"patch_size": 31}), ("vit", 32, {"patch_size": 32})]
)
def test_it_is_a_picture_also_of_images_that_few_patches_divide(name: str, size: int, options: dict[str, int]) -> None:
    assert two_paths.draw(subject_of(name, size=size, **options), seed=0, ending=".png").startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_command_draws_it_for_a_run(vitbench: Callable[..., Output]) -> None:
    assert vitbench("train", *TINY_32).code == 0
    run = next(Path("runs").iterdir()).name
    done = vitbench("probe", f"run={run}", "probe=equivariance", "file=figures/two.svg")
    assert (done.code, done.out) == (0, "figures/two.svg\n"), done.err
    refused = vitbench("probe", f"run={run}", "probe=shift", "file=two.svg")
    assert refused.code == 2
    assert "file=two.svg: draws one probe of one network; type run=ID probe=equivariance" in refused.err
