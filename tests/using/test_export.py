"""`vitbench export`: a file that gives other programs the logits of the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.conftest import TINY_32, Output
from vitbench.data.loader import Normalise
from vitbench.models.build import build_model
from vitbench.using import export
from vitbench.using.network import load_network
from vitbench.using.onnx import FromBytes

Cli = Callable[..., Output]


def test_safetensors_hold_all_that_a_program_needs_to_build_the_network(trained: Path, vitbench: Cli) -> None:
    done = vitbench("export", f"runs={trained.parent}", f"run={trained.name}", "file=net.safetensors")
    assert done.code == 0, done.err
    assert "logits differ by at most 0 on 50 test images" in done.out
    with safe_open("net.safetensors", framework="pt") as file:
        about = {key: json.loads(value) for key, value in file.metadata().items() if key not in ("vitbench", "format")}
    record = json.loads((trained / "record.json").read_text())
    for key in ("classes", "image_size", "channels", "mean", "std"):
        assert about[key] == record[key]
    shape = {"image_size": about["image_size"], "channels": about["channels"], "num_classes": len(about["classes"])}
    build_model(**about["model"], **shape).load_state_dict(load_file("net.safetensors"))


def test_a_network_of_timm_is_exported_under_timms_own_names_and_can_begin_a_run(vitbench: Cli, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    words = [*TINY_32, "model=timm", "model.arch=test_convnext", "data.image_size=32"]
    assert vitbench("train", *words).code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    done = vitbench("export", f"run={folder.name}", "file=net.safetensors")
    assert done.code == 0 and "differ by at most 0" in done.out, done.err
    timm.create_model("test_convnext", num_classes=10).load_state_dict(load_file("net.safetensors"))
    assert vitbench("train", *words, "init=net.safetensors").code == 0


def test_an_exported_file_can_begin_a_run_of_the_same_classes(trained: Path, vitbench: Cli) -> None:
    assert vitbench("export", f"runs={trained.parent}", f"run={trained.name}", "file=net.safetensors").code == 0
    words = [*TINY_32, "pe=rope", "data.image_size=16"]
    assert vitbench("train", *words, "init=net.safetensors").code == 0
    done = vitbench("train", *words, "init=net.safetensors", "data.classes=[0,1]")
    assert done.code == 2 and "head=new draws a new head" in done.err


def test_the_module_that_is_exported_takes_bytes_and_normalises_and_rearranges_them_itself(trained: Path) -> None:
    record = json.loads((trained / "record.json").read_text())
    network = load_network(trained, record, {"device": "cpu", "threads": 1})
    images, _ = export.images_to_check(record)
    with torch.inference_mode():
        logits, probabilities = FromBytes(network.model, network.normalise)(torch.from_numpy(images))
    torch.testing.assert_close(logits, network.logits(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(images)))


def test_where_test_images_are_gone_the_check_is_on_noise_and_says_so(trained: Path) -> None:
    record = json.loads((trained / "record.json").read_text())
    record["config"]["data"] |= {"source": "cifar10", "cache": "/nowhere"}
    images, which = export.images_to_check(record)
    assert images.shape == (100, 3, 16, 16) and which == "100 images of noise (test images: not decoded here)"


def test_a_file_that_computes_something_else_is_not_written(
    trained: Path, vitbench: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(export, "largest_difference", lambda *given: 0.01)
    done = vitbench("export", f"runs={trained.parent}", f"run={trained.name}", "file=net.safetensors")
    assert done.code == 1 and "differ by 0.01 on 50 test images" in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "net.safetensors").exists()


def test_differences_that_are_no_numbers_are_not_small() -> None:
    logits = torch.tensor([[float("nan")]])
    assert not export.largest_difference(lambda _: logits, lambda _: logits, np.zeros((1, 3, 2, 2), np.uint8)) <= 1


def test_bytes_are_normalised_as_in_training() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    normalise = Normalise([0.4, 0.5, 0.6], [0.2, 0.3, 0.0], torch.device("cpu"))
    seen = normalise(images)  # this widens its factors to the size of the images
    given, _ = FromBytes(torch.nn.Identity(), normalise)(images)
    torch.testing.assert_close(given, seen, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=RUN"], "file= is missing, for example file=network.onnx"),
        (["run=RUN", "file=net.pt"], "file=net.pt: the ending says the format; choices: .safetensors, .onnx"),
        (["run=RUN", "format=onnx", "file=net.safetensors"], "these contradict each other"),
        (["run=RUN", "format=onx"], "format=onx: did you mean onnx?"),
        (["file=net.onnx"], "run=ID is missing"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    trained: Path, vitbench: Cli, tmp_path: Path, words: list[str], said: str
) -> None:
    shutil.copytree(trained, tmp_path / "runs" / trained.name)
    done = vitbench("export", *(word.replace("RUN", trained.name) for word in words))
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1 and done.out == ""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vit", "resnet", "mixer"])
def test_onnx_gives_any_number_of_images_the_logits_of_the_run(vitbench: Cli, model: str, tmp_path: Path) -> None:
    import onnxruntime

    assert vitbench("train", *TINY_32, f"model={model}").code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    done = vitbench("export", f"run={folder.name}", "file=net.onnx")
    assert done.code == 0 and "50 test images" in done.out, done.err
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3):
        (given,) = session.run(["probabilities"], {"images": np.zeros((count, 3, 32, 32), np.uint8)})
        assert given.shape == (count, 10)


def test_onnx_without_its_packages_says_what_to_install(
    trained: Path, vitbench: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    done = vitbench("export", f"runs={trained.parent}", f"run={trained.name}", "file=net.onnx")
    assert done.code == 2 and "pip install 'vitbench[onnx]'" in done.err and done.err.count("\n") == 1
