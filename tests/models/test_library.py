"""Networks of timm and torchvision: built, observed, trained by their family's recipe, begun from others' weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.conftest import TINY_32, Output
from vitbench.errors import UserError
from vitbench.models.build import build_model, cost, expected_input
from vitbench.models.families import architectures, is_cnn, recipe_of
from vitbench.probes.taps import POOLED, grid_of, record
from vitbench.runs.origin import Origin, find_origin
from vitbench.runs.plan import Planner
from vitbench.runs.records import read_record
from vitbench.settings.identity import run_id
from vitbench.training import checkpoint, transfer
from vitbench.training.networks import normalise_of, refuse_parts_of_batch
from vitbench.training.optim import parameter_groups
from vitbench.training.training import Training

Cli = Callable[..., Output]
# small networks: of tokens, of maps (B,h,w,D), of maps (B,D,h,w) with grey images, and of two heads
SMALL: dict[str, tuple[str, str, int, int]] = {
    "tokens": ("timm", "test_vit", 32, 3),
    "channels last": ("timm", "swin_tiny_patch4_window7_224", 32, 3),
    "grey": ("timm", "test_convnext", 32, 1),
    "grey colours": ("torchvision", "mobilenet_v3_small", 32, 1),
    "two heads": ("timm", "levit_128s", 32, 3),
}
SHAPES = ["data=shapes", "data.train_images=200", "data.test_images=50", "data.image_size=32"]


def network(library: str, arch: str, size: int = 32, channels: int = 3, classes: int = 3, **options: Any) -> Any:
    torch.manual_seed(0)
    shape = {"image_size": size, "channels": channels, "num_classes": classes}
    return build_model(library, arch=arch, **shape, **options)


def logits(model: nn.Module, size: int = 32, channels: int = 3) -> Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        given: Tensor = model.eval()(torch.randn(2, channels, size, size))
    return given


def settings(*words: str) -> dict[str, Any]:
    return Planner().settings(["model=timm", *words])


# ----------------------------------------------------------------------------------------------------- names, families


def test_names_are_read_from_the_source_as_the_libraries_list_them() -> None:
    import timm
    from torchvision import models

    assert list(architectures("timm")) == sorted(timm.list_models())
    assert list(architectures("torchvision")) == sorted(models.list_models(module=models))


@pytest.mark.parametrize(
    ("arch", "recipe", "cnn"),
    [
        ("resnet18", "resnet", True),
        ("mobilenetv3_small_050", "resnet", True),
        ("tf_efficientnet_b0.ns_jft_in1k", "resnet", True),
        ("regnety_002", "resnet", True),
        ("convnext_atto", "vit", True),
        ("swin_tiny_patch4_window7_224", "vit", False),
        ("vit_b_16", "vit", False),
        ("maxvit_nano_rw_256", "vit", False),
        ("mixer_s32_224", "vit", False),
    ],
)
def test_the_recipe_follows_the_family(arch: str, recipe: str, cnn: bool) -> None:
    assert recipe_of(arch) == recipe and is_cnn(arch) == cnn


def test_a_recipe_by_family_is_that_of_the_file_and_what_is_typed_wins() -> None:
    cnn = settings("model.arch=resnet18")["optim"]
    ours = Planner().settings(["model=resnet"])["optim"]
    assert cnn == ours and cnn["name"] == "resnet" and cnn["lr"] == 0.1
    assert settings("model.arch=convnext_atto")["optim"] == Planner().settings(["model=vit"])["optim"]
    assert settings("model.arch=resnet18", "optim=vit", "optim.lr=0.5")["optim"]["lr"] == 0.5
    assert settings("model.arch=resnet18", "optim.lr=0.5")["optim"]["optimizer"] == "sgd"


def test_a_run_is_called_after_its_architecture_and_how_it_begins_makes_another_run() -> None:
    scratch = settings("model.arch=test_vit", *SHAPES)
    pretrained = settings("model.arch=test_vit", "init=pretrained", "head=new", *SHAPES)
    assert run_id(scratch).startswith("timm-test_vit-shapes-") and run_id(scratch) != run_id(pretrained)
    assert run_id(settings("model.arch=test_vit2", *SHAPES)) != run_id(scratch)


# ------------------------------------------------------------------------------------------------ as models of ours do


@pytest.mark.parametrize(("library", "arch", "size", "channels"), SMALL.values(), ids=SMALL)
def test_a_network_has_taps_in_depth_order_features_and_logits(
    library: str, arch: str, size: int, channels: int
) -> None:
    model = network(library, arch, size, channels).eval()
    images = torch.randn(2, channels, size, size)
    with torch.no_grad(), record(model) as features:
        given = model(images)
    assert given.shape == (2, 3) and list(features)[-1] == "head"
    assert [name for name in features if name != POOLED] == list(model.taps)
    assert features["head"].shape == (2, 3) and features[POOLED].ndim == 2
    maps = {name: grid_of(model, name, features) for name in features if name not in (POOLED, "head")}
    assert len(maps) > 1 and all(its.shape[2] == its.shape[3] for its in maps.values())
    assert all(its.shape[1] >= its.shape[2] for its in list(maps.values())[-2:]), "more channels than places"
    with torch.no_grad():
        assert torch.equal(model.features(images), features[POOLED])
    parameters, multiply_adds = cost(library, arch=arch, image_size=size, channels=channels, num_classes=3)
    assert parameters == sum(p.numel() for p in model.parameters()) and multiply_adds > 1e5


@pytest.mark.parametrize("arch", ["hrnet_w18_small", "poolformerv2_s12", "ese_vovnet19b_dw"])
def test_networks_that_say_otherwise_that_they_take_no_size_are_built(arch: str) -> None:
    with torch.device("meta"):
        model = network("timm", arch, size=64).eval()
        assert model(torch.empty(2, 3, 64, 64)).shape == (2, 3) and model.features(torch.empty(2, 3, 64, 64)).ndim == 2


@pytest.mark.parametrize("arch", ["cait_xxs24_224", "volo_d1_224", "samvit_base_patch16"])
def test_maps_and_tokens_of_special_networks_have_square_grids(arch: str) -> None:
    with torch.device("meta"):
        model, images = network("timm", arch, size=224).eval(), torch.empty(2, 3, 224, 224)
        with torch.no_grad(), record(model) as features:
            model(images)
            taken = model.features(images)
    assert taken.shape[0] == 2 and taken.ndim == 2 and taken.shape[1] <= 768
    maps = [grid_of(model, name, its) for name, its in ((n, features) for n in features if n not in (POOLED, "head"))]
    assert maps and all(its.shape[2] == its.shape[3] and its.shape[1] >= 144 for its in maps)


def test_the_same_seed_draws_the_same_weights() -> None:
    first, second = (network("timm", "test_vit").state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_weight_decay_spares_biases_vectors_and_what_the_network_names() -> None:
    model = network("timm", "test_vit")
    decayed, spared = parameter_groups(model, 0.1)
    names = {id(p): name for name, p in model.net.named_parameters()}
    assert {names[id(p)] for p in spared["params"]} >= {"cls_token", "pos_embed", "head.bias", "norm.weight"}
    assert all(p.ndim > 1 for p in decayed["params"]) and decayed["weight_decay"] == 0.1


def test_layer_decay_is_by_the_order_of_layers_that_timm_gives() -> None:
    model = network("timm", "test_vit")
    below = model.layers_below_head()
    depth = {name: below[id(p)] for name, p in model.net.named_parameters()}
    assert depth["head.weight"] == 0 < depth["blocks.1.mlp.fc1.weight"] < depth["blocks.0.mlp.fc1.weight"]
    assert depth["patch_embed.proj.weight"] == max(depth.values())
    assert {group["scale"] for group in parameter_groups(model, 0.1, 0.5)} == {0.5**d for d in set(depth.values())}


def test_freezing_leaves_the_head_alone() -> None:
    model = network("timm", "levit_128s").train()
    transfer.freeze(model)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and all(name.startswith(("net.head.", "net.head_dist.")) for name in trained)
    assert not model.net.stages.training and model.net.head.training


# --------------------------------------------------------------------------------------------------- others' weights


def in_the_formats_of_others(weights: dict[str, Tensor], folder: Path) -> dict[str, Path]:
    """Files as people have them: of the hub, of torchvision, of timm's training script, and of several GPUs."""
    save_file(weights, folder / "model.safetensors")
    torch.save(weights, folder / "plain.pth")
    about = {"arch": "a", "args": argparse.Namespace(lr=0.1), "epoch": 3}
    torch.save({"state_dict": weights, **about}, folder / "model_best.pth.tar")
    torch.save({f"module.{name}": value for name, value in weights.items()}, folder / "pytorch_model.bin")
    return {path.name: path for path in sorted(folder.glob("*.*"))}


def begun(model: Any, path: Path, head: str = "keep") -> Any:
    return transfer.begin(model, Origin(str(path), "file", str(path), path), head=head, classes=tuple("abc"))


@pytest.mark.parametrize(
    ("library", "arch"), [("timm", "test_vit"), ("timm", "test_resnet"), ("torchvision", "resnet18")]
)
def test_files_of_others_give_the_logits_they_were_saved_with(library: str, arch: str, tmp_path: Path) -> None:
    theirs = network(library, arch)
    for name, path in in_the_formats_of_others(theirs.net.state_dict(), tmp_path).items():
        ours = network(library, arch)
        nn.init.ones_(ours.heads[0].weight)
        about = begun(ours, path)
        assert torch.equal(logits(ours), logits(theirs)), name
        assert about["source"] == "file" and about["new_parameters"] == 0
    few = network(library, arch, classes=7)
    with pytest.raises(UserError, match=r"for 3 classes, and this run has 7 classes; head=new draws a new head$"):
        begun(few, path)
    assert begun(few, path, head="new")["new_parameters"] == sum(p.numel() for h in few.heads for p in h.parameters())
    kept = [name for name in few.net.state_dict() if not f"net.{name}".startswith(transfer.head_prefixes(few))]
    assert all(torch.equal(few.net.state_dict()[name], theirs.net.state_dict()[name]) for name in kept)


def test_a_library_converts_weights_to_another_size_and_to_grey_images(tmp_path: Path) -> None:
    theirs = network("timm", "test_vit", size=64)
    save_file(theirs.net.state_dict(), tmp_path / "a.safetensors")
    for size, channels in [(32, 3), (64, 1)]:
        ours = network("timm", "test_vit", size=size, channels=channels)
        begun(ours, tmp_path / "a.safetensors")
        assert logits(ours, size, channels).isfinite().all()
        assert torch.equal(ours.net.blocks[0].mlp.fc1.weight, theirs.net.blocks[0].mlp.fc1.weight)


def test_a_file_that_vitbench_wrote_says_what_its_images_were_normalised_by(tmp_path: Path) -> None:
    model = network("timm", "test_vit")
    about = {"run": "a", "classes": ["x"], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (tmp_path / "ours.safetensors").write_bytes(checkpoint.to_bytes(model.state_dict(), about))
    save_file(model.net.state_dict(), tmp_path / "theirs.safetensors")
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    lines = {}
    for name in ("ours", "theirs"):
        typed = str(tmp_path / f"{name}.safetensors")
        origin = find_origin(settings("model.arch=test_vit", f"init={typed}", "head=new", "data.image_size=32"))
        assert origin is not None and origin.source == "file"
        normalise, (lines[name],) = normalise_of(images, model, origin, None)
        assert (normalise.mean == (0.1, 0.2, 0.3)) is (name == "ours")
    assert f"as {tmp_path}/ours.safetensors had them in its training" in lines["ours"]
    assert "as test_vit.r160_in1k is configured in its library" in lines["theirs"]


def test_a_file_of_tensors_without_names_is_refused(tmp_path: Path) -> None:
    torch.save({0: torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a.pth: is not a state_dict, which is a dict of names and tensors$"):
        begun(network("timm", "test_vit"), tmp_path / "a.pth")


def test_weights_of_another_architecture_are_refused_by_the_first_that_does_not_fit(tmp_path: Path) -> None:
    save_file(network("timm", "test_vit").net.state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"a.safetensors: is from another model: \S+ is not there and \(.*tensors fit$"):
        begun(network("timm", "test_resnet"), tmp_path / "a.safetensors")


def test_pretrained_weights_that_cannot_be_fetched_are_one_quiet_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import timm

    model, real = network("timm", "test_vit"), timm.create_model

    def unreachable(arch: str, **given: Any) -> Any:
        if given.get("pretrained"):
            print("Retrying in 1 s", file=sys.stderr)
            raise OSError("Network is unreachable")
        return real(arch, **given)

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(UserError) as caught:
        transfer.begin(model, Origin("pretrained", "timm", "test_vit"), head="new", classes=tuple("abc"))
    line = str(caught.value)
    assert line.startswith("init=pretrained: timm could not fetch the weights of test_vit.") and "\n" not in line
    assert "model.safetensors of https://huggingface.co/timm/" in line and "type init=FILE" in line
    assert capfd.readouterr().err == ""
    with pytest.raises(UserError, match="init=timm:test_vit: timm could not fetch its weights"):
        transfer.fetched("timm", "test_vit")
    assert capfd.readouterr().err == ""


def test_pretrained_weights_are_the_librarys_with_a_new_head(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    real = timm.create_model
    theirs = real("test_vit", img_size=32)

    def fetched(arch: str, **given: Any) -> Any:
        return theirs if given.get("pretrained") else real(arch, **given)

    monkeypatch.setattr(timm, "create_model", fetched)
    model = network("timm", "test_vit")
    about = transfer.begin(model, Origin("pretrained", "timm", "test_vit"), head="new", classes=tuple("abc"))
    assert about["source"] == "timm" and about["new_parameters"] == sum(p.numel() for p in model.net.head.parameters())
    assert torch.equal(model.net.pos_embed, theirs.pos_embed) and model.net.head.out_features == 3


def test_size_and_normalisation_follow_the_pretrained_network_unless_typed(tmp_path: Path) -> None:
    assert settings("model.arch=vit_tiny_patch16_224", "init=pretrained")["data"]["image_size"] == 224
    assert settings("model.arch=test_vit", "init=pretrained", "data.image_size=32")["data"]["image_size"] == 32
    assert settings("model.arch=test_vit")["data"]["image_size"] is None
    expected = expected_input("timm", "vit_tiny_patch16_224")
    assert expected is not None and expected.mean == [0.5] * 3
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    origin = Origin("pretrained", "timm", "vit_tiny_patch16_224")
    model = network("timm", "vit_tiny_patch16_224")
    normalise, (line,) = normalise_of(images, model, origin, None)
    assert (
        normalise.mean == (0.5,) * 3
        and "at 32 px; it was trained at 224 px" in line
        and "vit_tiny_patch16_224." in line
    )
    own, no_line = normalise_of(images, model, None, None)
    assert own.mean != normalise.mean and no_line == []
    typed = network("timm", "vit_tiny_patch16_224", mean=(0.1, 0.2, 0.3))
    assert normalise_of(images, typed, origin, None)[0].mean == (0.1, 0.2, 0.3)
    run = origin._replace(source="run", normalised_by=([0.3] * 3, [0.2] * 3))
    assert normalise_of(images, model, run, None)[0].std == (0.2,) * 3


# ------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model.arch=convnext_ato"], "model.arch=convnext_ato: did you mean convnext_atto"),
        (["model.arch=convnext_atto.foo", "init=pretrained"], "model.arch=convnext_atto.foo: Invalid pretrained tag"),
        (["model=torchvision", "model.arch=resnet18.foo"], "model.arch=resnet18.foo: did you mean resnet18"),
        (["model.drop_path=1"], "model.drop_path=1.0: must be"),
        (["init=timm:resnet18"], "init=timm:resnet18: model=timm comes with its own pretrained weights"),
        (["objective=mae"], "objective=mae: masks patches, and model=timm has none"),
        (["model=vit", "init=pretrained"], "init=pretrained: goes with model=torchvision or model=timm"),
        (["model=vit", "init=a.pth"], "init=a.pth: must be a run's id"),
        (["model=torchvision", "optim.layer_decay=0.5"], "optim.layer_decay=0.5: torchvision does not tell"),
        (["checkpoint=3", "init=pretrained"], "checkpoint=3: init=pretrained has only weights"),
    ],
)
def test_settings_that_make_no_run_are_refused(words: list[str], line: str) -> None:
    with pytest.raises(UserError) as caught:
        settings(*words)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_networks_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match=r"model.drop_path=0.1: model=timm model.arch=vgg11 takes none"):
        network("timm", "vgg11", drop_path=0.1)
    with pytest.raises(UserError, match=r"model.mean=\[0.5\]: must be 3 numbers.* 0 to 1$"):
        network("timm", "test_vit", mean=(0.5,))
    with pytest.raises(UserError, match=r"model.std=\[0,1,1\]: must be 3 numbers.* above 0 to 1$"):
        network("timm", "test_vit", std=(0, 1, 1))
    shape: dict[str, Any] = {"channels": 3, "num_classes": 3}
    with pytest.raises(
        UserError, match=r"takes no images of 8 px with 3 channels.*set data.image_size to another size"
    ):
        cost("timm", arch="convnext_atto", image_size=8, **shape)
    with pytest.raises(UserError, match="takes no images of 20 px"):
        cost("torchvision", arch="vit_b_16", image_size=20, **shape)
    run = settings("machine.microbatch=8", "model.arch=test_resnet")
    with pytest.raises(UserError, match=r"machine.microbatch=8: model=timm model.arch=test_resnet has batch norm"):
        refuse_parts_of_batch(run, network("timm", "test_resnet"))
    assert refuse_parts_of_batch(run, network("timm", "test_vit")) is None


def test_a_size_of_ours_is_no_setting_of_a_librarys_network(vitbench: Cli) -> None:
    output = vitbench("train", "model=timm", "model.size=tiny")
    assert output.code == 2 and output.err.startswith("vitbench: model.size=tiny: no such setting")


# ---------------------------------------------------------------------------------------------------------- whole runs


def test_tables_name_a_network_by_library_and_architecture(vitbench: Cli, tmp_path: Path) -> None:
    words = [*TINY_32, "data.image_size=32"]
    for arch in ("test_vit", "test_resnet"):
        assert vitbench("train", "model=timm", f"model.arch={arch}", *words).code == 0
    assert vitbench("train", "model=vit", "model.width=16", "model.depth=1", "model.heads=2", *words).code == 0
    table = vitbench("table").out
    assert "model.arch" in table and "test_resnet" in table
    against = vitbench("table", "against=timm test_resnet")
    assert against.code == 0, against.err
    (folder,) = (tmp_path / "runs").glob("timm-test_resnet-*")
    assert read_record(folder / "record.json")["config"]["optim"]["name"] == "resnet"


# of each family the smallest; timm keeps those called test_ for tests
TEN = {
    "test_convnext": 32,
    "swin_tiny_patch4_window7_224": 32,
    "deit_tiny_patch16_224": 32,
    "test_coatnet": 32,  # convolutions, then attention
    "test_maxvit": 32,  # both in each block
    "mobilenetv3_small_050": 32,
    "gmlp_ti16_224": 64,  # of timm's MlpMixer; with one patch no layer has a place to look at
    "test_resnet": 32,
    "test_efficientnet": 32,
    "test_vit3": 32,
}


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "size"), TEN.items(), ids=TEN)
def test_ten_architectures_are_trained_and_probed(vitbench: Cli, tmp_path: Path, arch: str, size: int) -> None:
    words = ["data.train_images=100", "data.test_images=10", f"data.image_size={size}", "optim.batch_size=4"]
    words += ["optim.steps=20", "eval_every=20", "machine.threads=1", "machine.progress=false"]
    done = vitbench("train", "model=timm", f"model.arch={arch}", *words)
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "runs").glob("timm-*")
    found = read_record(folder / "record.json")
    assert found["status"] == "finished" and found["steps"] == 20 and found["multiply_adds"] > 1e5
    probes = ["probe=[shift,equivariance,lie,receptive_field,linear,filters]", "images=4", "figures=false"]
    probes += ["probe.shift.draws=2", "probe.receptive_field.channels=2", "probe.linear.draws=1"]
    probed = vitbench("probe", f"run={folder.name}", *probes, "machine.threads=1")
    assert "Traceback" not in probed.err and probed.code == 0, probed.err
    assert len([*(folder / "probes").glob("*.csv")]) == 6


@pytest.mark.slow
def test_a_network_that_drops_paths_resumes_to_the_bit(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "model=timm", "model.arch=test_vit", "model.drop_path=0.5", "data.image_size=32", *TINY_32]
    assert vitbench(*words, "runs=whole").code == 0
    goes_on = Training.goes_on

    def stops(training: Training) -> bool:
        if training.step == 4:
            raise RuntimeError("stopped by the test")
        return goes_on(training)

    monkeypatch.setattr(Training, "goes_on", stops)
    with pytest.raises(RuntimeError):
        vitbench(*words, "runs=stopped")
    monkeypatch.setattr(Training, "goes_on", goes_on)
    assert vitbench(*words, "runs=stopped").code == 0
    whole, resumed = (next(tmp_path.glob(f"{runs}/*/checkpoint.safetensors")) for runs in ("whole", "stopped"))
    assert whole.read_bytes() == resumed.read_bytes()
