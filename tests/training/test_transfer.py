"""Beginning from trained weights: what is kept, what is new, what is refused, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.conftest import TINY_32, Output
from tests.training.test_train import assert_same_run, cut_run, folder, record
from vitbench.errors import UserError
from vitbench.models.build import build_model
from vitbench.pe.menu import MENU as ENCODINGS
from vitbench.runs.origin import Origin
from vitbench.training import checkpoint, optim, transfer
from vitbench.training.evaluate import evaluate

Cli = Callable[..., Output]
VIT: dict[str, Any] = {"name": "vit", "width": 16, "depth": 2, "heads": 2}
RESNET: dict[str, Any] = {"name": "resnet", "base_width": 2}
SMALL = {
    "vit": ["model=vit", "model.width=16", "model.depth=2", "model.heads=2"],
    "resnet": ["model=resnet", "model.base_width=2"],
}
CLASSES = tuple("abc")


def net(architecture: dict[str, Any], seed: int = 0, size: int = 16, classes: int = 3) -> Any:
    torch.manual_seed(seed)
    return build_model(**architecture, image_size=size, channels=3, num_classes=classes)


def saved(path: Path, model: nn.Module, classes: tuple[str, ...] | None = CLASSES) -> Origin:
    path.write_bytes(checkpoint.to_bytes(model.state_dict(), {"run": "a"}))
    return Origin("a", "run", "a", path, classes, 1.0)


# --------------------------------------------------------------------------------------------------- positions, names


@pytest.mark.parametrize("options", [{"pool": "mean"}, {"pool": "cls"}, {"hierarchy": True, "window": 3, "gate": True}])
@pytest.mark.parametrize("name", ENCODINGS)
def test_positions_follow_the_image_size_and_stay_where_it_is_the_same(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """A network of the new size computes what the old one computes of images of that size."""
    architecture = {**VIT, "pe": {"name": name}, **options}
    old = net(architecture).double().eval()
    for size in (16, 24):
        new = net(architecture, 1, size).double().eval()
        about = transfer.begin(new, saved(tmp_path / "a", old), head="keep", classes=CLASSES)
        images = torch.randn(2, 3, size, size, dtype=torch.float64)
        torch.testing.assert_close(new(images), old(images), rtol=0, atol=1e-12)
        ours, theirs = new.state_dict(), old.state_dict()
        moved = [key for key in ours if ours[key].shape != theirs[key].shape]
        assert sorted(about["interpolated"]) == sorted(moved) and about["new_parameters"] == 0
        assert all(key.startswith("pe.") or ".merge.pe." in key for key in moved) and not (moved and size == 16)
        if size == 16:
            assert all(torch.equal(value, new.state_dict()[key]) for key, value in old.state_dict().items())


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_librarys_vit_computes_the_same_here(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    theirs: Any
    if library == "torchvision":
        from torchvision.models import VisionTransformer as Torchvision

        theirs = Torchvision(
            image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64, num_classes=3
        )
    else:
        from timm.models.vision_transformer import VisionTransformer as Timm

        theirs = Timm(img_size=16, patch_size=4, depth=2, num_heads=2, embed_dim=16, num_classes=3)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.1)
    monkeypatch.setattr(transfer, "fetched", lambda library, name: theirs.state_dict())
    ours = net({**VIT, "pe": {"name": "learned"}, "pool": "cls"})
    about = transfer.begin(ours, Origin("", library, "vit"), head="keep", classes=CLASSES)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=0, atol=1e-5)
    assert about["new_parameters"] == 0 and len(about["sha256"]) == 64


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_without_network_one_line_says_what_else_there_is(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise OSError("Name or service not known")

    import timm

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refused)
    monkeypatch.setattr(timm, "create_model", refused)
    with pytest.raises(
        UserError, match=f"^init={library}:resnet18: {library} could not fetch its weights .* not known.*FILE"
    ):
        transfer.fetched(library, "resnet18")
    with pytest.raises(UserError, match=f"init={library}:resnet17: did you mean resnet1"):
        transfer.fetched(library, "resnet17")


# ----------------------------------------------------------------------------------------------------------- refusals

MISFITS: dict[str, tuple[dict[str, Any], int, tuple[str, ...] | None, str]] = {
    "another width": (
        {**VIT, "width": 8},
        3,
        CLASSES,
        r"is from another model: patch_embed.weight is \(8, 3, 4, 4\) there and "
        r"\(16, 3, 4, 4\) here; 1 of 30 tensors fit",
    ),
    "another depth": (
        {**VIT, "depth": 3},
        3,
        CLASSES,
        r"is from another model: blocks.2.attn.proj.bias is \(16,\) there and not here; 30 of 30 tensors fit",
    ),
    "another family": (
        RESNET,
        3,
        CLASSES,
        r"is from another model: patch_embed.weight is not there and \(16, 3, 4, 4\) here; 0 of 30 tensors fit",
    ),
    "other classes": (
        VIT,
        3,
        ("a", "b", "d"),
        "its classes are a, b, d, this run's are a, b, c; head=new draws a new head",
    ),
    "another number of classes": (
        VIT,
        7,
        None,
        "is for 7 classes, and this run has 3 classes; head=new draws a new head",
    ),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_what_does_not_fit_is_named_and_what_does_is_counted(kind: str, tmp_path: Path) -> None:
    architecture, K, classes, line = MISFITS[kind]
    origin = saved(tmp_path / "a", net(architecture, classes=K), classes)
    with pytest.raises(UserError, match=f"^init=a: {line}$"):
        transfer.begin(net(VIT), origin, head="keep", classes=CLASSES)


def test_a_new_head_is_the_one_that_was_drawn_and_all_else_is_kept(tmp_path: Path) -> None:
    old, new = net(VIT, classes=7), net(VIT, 1)
    drawn = {name: value.clone() for name, value in new.state_dict().items()}
    about = transfer.begin(new, saved(tmp_path / "a", old, tuple("abcdefg")), head="new", classes=CLASSES)
    for name, value in new.state_dict().items():
        assert torch.equal(value, (drawn if name.startswith("head.") else old.state_dict())[name]), name
    assert about["new_parameters"] == 16 * 3 + 3
    assert about["kept_parameters"] == sum(p.numel() for p in new.parameters()) - about["new_parameters"]


def test_a_new_head_is_new_for_the_distillation_token_too_and_both_are_trained_alone(tmp_path: Path) -> None:
    distilled = {**VIT, "distill_token": True}
    old, new = net(distilled, classes=7), net(distilled, 1)
    drawn = {name: value.clone() for name, value in new.state_dict().items()}
    transfer.begin(new, saved(tmp_path / "a", old, tuple("abcdefg")), head="new", classes=CLASSES)
    heads = [name for name in drawn if name.startswith("head.")]
    assert heads == ["head.weight", "head.bias", "head.dist.weight", "head.dist.bias"]
    assert all(torch.equal(new.state_dict()[name], drawn[name]) for name in heads)
    assert torch.equal(new.dist_token, old.dist_token)
    below = {name: optim.depths_below_head(new)[id(p)] for name, p in new.named_parameters()}
    assert {below[name] for name in heads} == {0} and below["dist_token"] == below["patch_embed.weight"]
    transfer.freeze(new)
    assert [name for name, p in new.named_parameters() if p.requires_grad] == heads


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_read_and_interpolated_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    old = net({**VIT, "pe": {"name": "learned"}})
    path = tmp_path / "half.safetensors"
    save_file({name: value.to(dtype) for name, value in old.state_dict().items()}, path)
    new = net({**VIT, "pe": {"name": "learned"}}, size=24)
    about = transfer.begin(new, Origin(str(path), "file", str(path), path), head="keep", classes=CLASSES)
    assert about["interpolated"] == ["pe.table"] and {p.dtype for p in new.parameters()} == {torch.float32}
    assert torch.equal(new.head.weight, old.head.weight.to(dtype).float())


def test_a_file_of_ours_knows_its_classes(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(checkpoint.to_bytes(net(VIT).state_dict(), {"run": "some-run", "classes": ["x", "y", "z"]}))
    origin = Origin(str(path), "file", str(path), path)
    with pytest.raises(UserError, match=r"its classes are x, y, z, this run's are a, b, c; head=new draws a new head"):
        transfer.begin(net(VIT), origin, head="keep", classes=CLASSES)
    transfer.begin(net(VIT), origin, head="new", classes=CLASSES)


FILES = {
    "a pickle": (b"\x80\x04N.", "is a pickle, which can hold code and is not read"),
    "what torch.save makes": (b"PK\x03\x04....", "is a pickle, which can hold code and is not read"),
    "text": (b"hello world, this is no file of weights", "is damaged or not a safetensors file"),
    "nothing": (b"", "is damaged or not a safetensors file"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_holds_no_weights_is_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(FILES[kind][0])
    with pytest.raises(UserError, match=f"^init=net.safetensors: {FILES[kind][1]}"):
        transfer.read_weights(Origin("net.safetensors", "file", "net.safetensors", path))


# ------------------------------------------------------------------------------------------- layers, what is frozen


def test_layer_decay_is_that_of_beit_and_mae() -> None:
    model = net({**VIT, "pe": {"name": "learned"}, "pool": "cls"})
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = optim.parameter_groups(model, 0.05, 0.5)
    scales = {names[id(p)]: group["scale"] for group in groups for p in group["params"]}
    assert scales.keys() == set(names.values()) and groups[0]["scale"] == 1
    for name, scale in scales.items():
        if name.startswith("blocks."):
            layer = int(name.split(".")[1]) + 1
        else:
            layer = 3 if name.startswith(("norm.", "head.")) else 0
        assert scale == 0.5 ** (3 - layer), name  # as in util/lr_decay.py of MAE, where num_layers = depth + 1
    model = net(RESNET)
    below = {name: optim.depths_below_head(model)[id(p)] for name, p in model.named_parameters()}
    modules = ("conv1", "bn1", "layer1.0.conv1", "layer3.2.bn2", "fc")
    assert [below[f"{module}.weight"] for module in modules] == [10, 10, 9, 1, 0]


def test_without_decay_and_frost_the_groups_are_two_as_before() -> None:
    groups = optim.parameter_groups(net(RESNET), 0.05)
    assert [(group["weight_decay"], group["scale"]) for group in groups] == [(0.05, 1), (0.0, 1)]


def test_evaluating_leaves_what_is_frozen_in_evaluation_mode() -> None:
    model = net(RESNET)
    transfer.freeze(model)
    images, labels = torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.zeros(2, dtype=torch.long)
    evaluate(model, images, labels, lambda batch: batch.float())  # type: ignore[arg-type]
    assert model.training and model.fc.training and not any(module.training for module in model.layer1.modules())


def test_a_second_head_under_its_former_name_is_read(tmp_path: Path) -> None:
    old = net({**VIT, "distill_token": True})
    names = {name: name.replace("head.dist.", "head_dist.") for name in old.state_dict()}
    blob = checkpoint.to_bytes({names[name]: value for name, value in old.state_dict().items()}, {"run": "a"})
    (tmp_path / "a").write_bytes(blob)
    new = net({**VIT, "distill_token": True}, 1)
    transfer.begin(new, Origin("a", "run", "a", tmp_path / "a", CLASSES), head="keep", classes=CLASSES)
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in new.state_dict().items())


@pytest.mark.parametrize(
    ("parent", "child", "line"),
    [
        ("data.val_fraction=0.2", "data.val_fraction=0.1", ""),
        ("data.val_fraction=0.1", "data.val_fraction=0.2", "held fewer images back for validation"),
    ],
)
def test_a_parent_that_held_more_back_leaks_nothing(
    vitbench: Cli, tmp_path: Path, parent: str, child: str, line: str
) -> None:
    words = [*TINY_32, *SMALL["vit"], "runs=r", "optim.steps=2"]
    words = [word for word in words if word != "optim.steps=6"]
    assert vitbench("train", *words, parent).code == 0
    done = vitbench("train", *words, child, f"init={folder(tmp_path / 'r').name}")
    assert done.code == 0 and ("validation images" in done.err) == bool(line) and line in done.err


def test_a_parent_that_drew_other_images_of_the_same_data_is_a_warning(vitbench: Cli, tmp_path: Path) -> None:
    words = [*SMALL["vit"], "runs=r", "data.val_fraction=0.2"]
    assert vitbench("train", *TINY_32, *words).code == 0
    parent = folder(tmp_path / "r").name
    done = vitbench("train", *TINY_32, *words, "seed=1", f"init={parent}")
    line = f"init={parent} drew its images with another seed, so it may have learned from this run's validation images"
    assert done.code == 0 and done.err.count(line) == 1
    assert line not in vitbench("train", *TINY_32, *words, "seed=1", f"init={parent}", "data.subset_seed=0").err


@pytest.mark.parametrize("family", SMALL)
def test_with_a_frozen_backbone_only_the_head_changes_a_bit(vitbench: Cli, tmp_path: Path, family: str) -> None:
    words = [*TINY_32, *SMALL[family]]
    assert vitbench("train", *words, "runs=r").code == 0
    parent = folder(tmp_path / "r")
    tuned = [*words, f"init={parent / 'checkpoint.safetensors'}", "freeze=backbone", "optim.ema=0.9", "runs=s"]
    assert vitbench("train", *tuned).code == 0
    before, after = (
        checkpoint.load_tensors(path / "checkpoint.safetensors")[0] for path in (parent, folder(tmp_path / "s"))
    )
    head = [name for name in before if name.startswith(("head.", "fc."))]
    assert len(head) == 2 and not any(torch.equal(before[name], after[name]) for name in head)
    assert all(torch.equal(before[name], after[name]) for name in before if name not in head)
    facts = record(tmp_path / "s")
    # a file does not say what it cost
    assert facts["init"]["source"] == "file" and facts["total_train_seconds"] is None
    assert facts["total_samples_seen"] is None is facts["total_multiply_adds"]
    assert facts["init"]["kept_parameters"] == facts["parameters"]


def test_a_fine_tuned_run_cut_off_ends_like_one_that_was_not(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins from a run of other classes and image size; its record names that run and what both cost."""
    words = [*SMALL["vit"], "data.classes=[0,1,2]", "runs=r"]
    tuned = [
        *SMALL["vit"],
        "data.classes=[4,3]",
        "data.image_size=24",
        "head=new",
        "optim.layer_decay=0.7",
        "init=data.classes=[0,1,2] data.image_size=null runs=r",
    ]
    output = vitbench("train", *TINY_32, *tuned, "runs=r")
    assert output.code == 2 and "is not finished; it is trained by: vitbench train " in output.err
    assert vitbench("train", *TINY_32, *words).code == 0
    parent = record(tmp_path / "r")
    assert parent["id"] in output.err and parent["classes"] == ["disc", "ring", "square"]
    assert vitbench("train", *TINY_32, *tuned, "runs=whole").code == 0
    cut_run(vitbench, monkeypatch, *tuned, "runs=cut", stop=3, base=TINY_32)
    assert vitbench("train", *TINY_32, *tuned, "runs=cut").code == 0
    assert_same_run(folder(tmp_path / "whole"), folder(tmp_path / "cut"))
    facts = record(tmp_path / "whole")
    assert facts["classes"] == ["cross", "triangle"] and facts["image_size"] == 24
    assert facts["init"]["name"] == parent["id"] and facts["init"]["interpolated"] == ["pe.table"]
    assert facts["init"]["new_parameters"] == 2 * 16 + 2
    assert facts["total_train_seconds"] == facts["train_seconds"] + parent["train_seconds"]
    assert facts["total_samples_seen"] == 2 * 6 * 16  # six steps of sixteen images each
    assert facts["total_multiply_adds"] == 6 * 16 * 3 * (facts["multiply_adds"] + parent["multiply_adds"])


def test_a_sweep_trains_first_what_others_begin_from(vitbench: Cli, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("""
with: model.width=16 model.depth=2 model.heads=2 data.val_fraction=0
runs:
  - model=vit data.fraction=0.5 seed=0,1 init=null,'data.fraction=1'
  - model=vit seed=0,1
""")
    words = [word for word in TINY_32 if not word.startswith("eval_every")]
    output = vitbench("sweep", "study=s.yaml", *words)
    assert output.code == 0 and output.out == "6 of 6 runs finished\n", output.err
    table = vitbench("table", "study=s.yaml", "where.data.fraction=0.5").out
    assert "total s" in table and "data.fraction=1" in table and table.count("vit") > 1
    lines = [line.split() for line in table.splitlines() if line.startswith(("vit", "data.fraction", "null", "-"))]
    assert len(lines) >= 2  # runs of both seeds share a line, runs with and without init do not


def test_what_begins_from_a_run_that_failed_says_so(vitbench: Cli, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("runs: ['model=resnet model.base_width=2 optim.lr=1e30 init=null,\"seed=0\"']")
    words = [word for word in TINY_32 if not word.startswith("eval_every")]
    output = vitbench("sweep", "study=s.yaml", *words)
    assert output.code == 1 and "0 of 2 runs finished" in output.out
    assert "init='seed=0': resnet-shapes-f1-s0-" in output.err and " diverged and has no weights" in output.err
    alone = vitbench("sweep", "study=s.yaml", *words, "init=seed=5", "runs=r")  # that run is no part of the study
    assert alone.code == 2 and "it is trained by: vitbench train model=resnet" in alone.err
    assert not (tmp_path / "r").exists()
