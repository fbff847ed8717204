"""Attribution of networks that are known to look at one place."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from tests.probes.known import curve, find, noise, subject, value
from vitbench.errors import NotInstalled, UserError
from vitbench.models.build import build_model
from vitbench.probes import attribution
from vitbench.probes.subject import Row, Subject


class OnePatch(nn.Module):
    """Predicts class 1 as far as rows 8 to 11, columns 4 to 7 are bright, by a map of 8 x 8 patches and its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.head = nn.AvgPool2d(4), nn.Identity()
        self.register_buffer("only", torch.zeros(8, 8))
        self.only[2, 1] = 1  # type: ignore[operator]

    @property
    def taps(self) -> dict[str, nn.Module]:
        return {"maps": self.maps, "head": self.head}

    def forward(self, images: Tensor) -> Tensor:
        bright = self.maps(images.mean(1, keepdim=True) * self.only.repeat_interleave(4, 0).repeat_interleave(4, 1))  # type: ignore[operator]
        score = bright.mean((1, 2, 3)) / 2 - 0.5
        return self.head(torch.stack([-score, score], 1))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    pixels = 40 + noise(12, 32) // 8
    pixels[:, :, 8:12, 4:8] = 255
    return attribution.probe(subject(OnePatch(), pixels, torch.ones(12).long(), 2), seed=0)


def rows_of(rows: list[Row], method: str) -> list[Row]:
    return [row for row in rows if row["protocol"] == f"attribution.{method}@v1"]


@pytest.mark.known_answer
@pytest.mark.parametrize("method", ["grad_cam", "integrated_gradients"])
def test_the_one_patch_that_decides_goes_first_and_comes_first(rows: list[Row], method: str) -> None:
    """The first 4 tiles hold all of the change; a random order has it half-way on average."""
    for name in ("deletion_curve", "insertion_curve"):
        found = curve(rows_of(rows, method), name)
        assert len(found) == 17 and abs(found[100 / 16] - found[100.0]) < 1e-6 < abs(found[0.0] - found[100.0]) / 1e3
    random = {name: value(rows_of(rows, "random"), name) for name in ("deletion", "insertion")}
    assert value(rows_of(rows, method), "deletion") < random["deletion"] < random["insertion"]
    gain = find(rows_of(rows, method), "over_random")
    expected = sum(abs(value(rows_of(rows, method), name) - random[name]) for name in random)
    assert gain["value"] == pytest.approx(expected) and gain["low"] > 0.2
    assert find(rows_of(rows, "rollout"), "over_random")["reason"] == "the network has no attention weights to roll out"


@pytest.mark.known_answer
def test_rollout_of_known_attention() -> None:
    """Attention to itself or to all alike shows nothing. A token that all look at has 1 - 2^-L and part of the rest."""
    itself, alike = torch.eye(5).expand(1, 2, 5, 5), torch.full((1, 2, 5, 5), 0.2)
    assert torch.equal(attribution.rolled([itself] * 3)[0], torch.eye(5))
    torch.testing.assert_close(attribution.rolled([alike] * 3).mean(1), torch.full((1, 5), 0.2))
    to_3 = torch.zeros(1, 2, 5, 5)
    to_3[..., 3] = 1
    found = attribution.rolled([to_3] * 3).mean(1)[0]
    expected = torch.full((5,), 0.125 / 5)
    expected[3] += 1 - 0.125
    torch.testing.assert_close(found, expected)


def network(name: str, **options: object) -> Subject:
    torch.manual_seed(0)
    model = build_model(name, image_size=32, channels=3, num_classes=5, **options)  # type: ignore[arg-type]
    return subject(model, noise(4, 32), torch.arange(4), 5)


def test_grad_cam_is_captums_where_that_applies_and_integrated_gradients_are_complete() -> None:
    from captum.attr import LayerGradCam

    cnn = network("resnet")
    inputs = cnn.normalise(cnn.images) / 100 - 1
    classes = torch.tensor([0, 1, 2, 3])
    found = attribution.grad_cam(cnn, inputs, classes)
    theirs = LayerGradCam(cnn.model, cnn.model.taps["layer3.2"]).attribute(  # type: ignore[index, operator]
        inputs.clone().requires_grad_(), target=classes, relu_attributions=True
    )
    torch.testing.assert_close(found, theirs[:, 0].detach())
    gradients = attribution.integrated_gradients(cnn, inputs, classes, batch_size=16)
    with torch.no_grad():
        logits = cnn.model(inputs) - cnn.model(torch.zeros_like(inputs))
    torch.testing.assert_close(gradients.sum((1, 2)), logits.gather(1, classes[:, None])[:, 0], atol=0.02, rtol=0.02)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_a_vit_has_all_maps_also_with_a_class_token(pool: str) -> None:
    vit = network("vit", pe={"name": "sincos2d"}, pool=pool)
    inputs = vit.normalise(vit.images) / 100 - 1
    cam, rolled = attribution.grad_cam(vit, inputs, torch.arange(4)), attribution.rollout(vit, inputs)
    assert cam is not None and cam.shape == rolled.shape == (4, 8, 8) and cam.any()
    share = 1 if pool == "mean" else 1 - 0.5**4  # the class token keeps at least its own share
    assert (rolled.sum((1, 2)) <= share + 1e-5).all() and (rolled > 0).all()


def test_rollout_of_two_heads_is_the_mean_of_what_each_reads() -> None:
    vit = network("vit", pe={"name": "sincos2d"}, distill_token=True)
    inputs = vit.normalise(vit.images) / 100 - 1
    reached = attribution.rolled(vit.model.attention(inputs))  # type: ignore[operator]
    both = (reached[:, 1:].mean(1) + reached[:, 0]) / 2  # of the patches, and of the distillation token before them
    torch.testing.assert_close(attribution.rollout(vit, inputs), both[:, 1:].unflatten(1, (8, 8)))


def test_ties_fall_at_random_and_tiles_are_means() -> None:
    random = torch.Generator().manual_seed(0)
    ranks = attribution.ranks(torch.tensor([[0.0] * 15 + [1.0]]).expand(200, 16), random)
    assert (ranks[:, 15] == 0).all() and (ranks.sort(1).values == torch.arange(16)).all()
    assert ranks[:, 0].double().mean().item() == pytest.approx(8, abs=1)
    assert attribution.tile_means(torch.arange(16.0).view(1, 4, 4), 2).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]


def test_what_cannot_be_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    vit = network("vit")
    with pytest.raises(UserError, match=r"probe.attribution.count=0: must be 1 or more"):
        attribution.probe(vit, seed=0, count=0)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(NotInstalled, match=r"pip install 'vitbench\[captum\]'"):
        attribution.probe(vit, seed=0)


def test_it_is_a_picture() -> None:
    assert attribution.draw(network("resnet"), seed=0).startswith(b"\x89PNG")
