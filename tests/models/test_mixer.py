"""The Mixer is the published one, and belongs to images of one size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from vitbench.errors import UserError
from vitbench.models.build import build_model
from vitbench.models.mixer import Mixer
from vitbench.settings.check import check
from vitbench.settings.compose import as_settings, compose
from vitbench.training.optim import parameter_groups


def mixer(**options: Any) -> Mixer:
    torch.manual_seed(0)
    model = build_model("mixer", image_size=16, channels=3, num_classes=5, **options)
    assert isinstance(model, Mixer)
    return model.eval()


def test_it_is_timms_mlp_mixer() -> None:
    from timm.models.mlp_mixer import MlpMixer

    torch.manual_seed(0)
    theirs = MlpMixer(num_classes=5, img_size=16, patch_size=4, num_blocks=3, embed_dim=24).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # norms and biases, too
    ours = mixer(width=24, depth=3)
    renamed = {
        key.replace("stem.proj", "patch_embed").replace("mlp_tokens", "mixing.mlp"): value
        for key, value in theirs.state_dict().items()
    }
    ours.load_state_dict(renamed)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)


def test_weights_begin_and_decay_as_the_vits() -> None:
    model = mixer(size="micro")
    decayed, others = parameter_groups(model, 0.05)
    assert {id(p) for p in decayed["params"]} == {id(p) for p in model.parameters() if p.ndim > 1}
    assert all(p.ndim == 1 for p in others["params"])
    for module in model.blocks.modules():
        if isinstance(module, nn.Linear):
            bound = (6 / sum(module.weight.shape)) ** 0.5
            assert 0.95 * bound < module.weight.abs().max().item() <= bound and not module.bias.any()
    assert model.patch_embed.weight.std().item() == pytest.approx(48**-0.5, rel=0.1)


def test_images_of_another_size_are_refused_when_they_come() -> None:
    with pytest.raises(UserError) as error:
        mixer()(torch.randn(1, 3, 16, 20))
    line = "images of 16 x 20 px: model=mixer has weights for each place, so it takes only images of 16 x 16 px"
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model.token_ratio=0"], "model.token_ratio=0.0: must be above 0 and at most 64"),
        (["model.depth=0"], "model.depth=0: must be 1 or more and at most 1,000 blocks"),
        (["model.drop_path=1"], "model.drop_path=1.0: must be at least 0 and below 1"),
        (["pe=rope"], "mixer is not a ViT and takes no position encoding; drop pe=rope"),
        (
            ["objective=mae"],
            "objective=mae model=mixer: mae shows the network only some of an image's patches, but model=mixer needs "
            "all of them; objective=simsiam works with every model",
        ),
    ],
)
def test_what_no_mixer_could_be_is_refused_before_anything_runs(words: list[str], line: str) -> None:
    with pytest.raises(UserError) as error:
        check(as_settings(compose(["model=mixer", *words])))
    assert str(error.value) == line


def test_a_slip_in_python_is_the_same_line() -> None:
    with pytest.raises(UserError, match=r"model\.width=0: must be 1 or more"):
        mixer(width=0)
    with pytest.raises(UserError, match=r"data\.image_size=16 model\.patch_size=5: patches must divide the image"):
        mixer(patch_size=5)
