"""Files of weights that others made: one line for what is none, no code run, memory bounded, no advice to run code."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from vitbench.errors import DataError, UserError
from vitbench.models.weights import read_safetensors, read_state_dict, reason_of
from vitbench.runs.origin import Origin, _normalised_by
from vitbench.training import checkpoint, transfer


class Trap:
    """Runs code where it is unpickled: it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


class Bytes:
    """Asks for a gigabyte of zeros in a few bytes of a pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (bytearray, (1_000_000_000,))


pytestmark = pytest.mark.usefixtures("impatient")


def saved(content: Any, **options: Any) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path, **options)


def written(blob: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(blob)


def cut(path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/data/0", bytes(50_000_000))


W = torch.ones(3, 2)
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (written(b"hello world, these are no weights"), "is not a file of weights"),
    "nothing": (written(b""), "is not a file of weights"),
    "a web page": (written(b"<!DOCTYPE html><html>404</html>"), "is not a file of weights"),
    "a pickle of numbers": (written(pickle.dumps({"a": 1})), "is damaged or not a file of weights"),
    "a pickle of protocol 0": (written(pickle.dumps({"a": 1}, 0)), "is not a file of weights"),
    "a torn pickle": (written(pickle.dumps({"a": "b" * 999})[:50]), "is damaged or not a file of weights"),
    "a folder": (lambda path: path.mkdir(), "cannot be read: Is a directory"),
    "a pipe": (os.mkfifo, "cannot be read: it is not a regular file"),
    "a device without end": (lambda path: path.symlink_to("/dev/zero"), "cannot be read: it is not a regular file"),
    "no file": (lambda path: None, "cannot be read: No such file or directory"),
    "half an archive": (cut, "is damaged or not a file of weights"),
    "an archive of something else": (
        lambda path: zipfile.ZipFile(path, "w").close() or zipfile.ZipFile(path, "a").writestr("a.txt", "b"),
        "is damaged or not a file of weights",
    ),
    "a bomb": (bomb, "an archive that unpacks to more than 2 times its size"),
    "a gigabyte of zeros": (saved({"a": Bytes()}), r"holds more than tensors \(\w+.bytearray\), which could run code"),
    "integer keys": (saved({0: W}), "is not a state_dict, which is a dict of names and tensors"),
    "nested dicts": (saved({"model": {"a": {"b": W}}}), "is not a state_dict, which is a dict of names and tensors"),
    "a list": (saved([W]), "is not a state_dict, which is a dict of names and tensors"),
    "a tensor": (saved(W), "is not a state_dict, which is a dict of names and tensors"),
    "a network": (saved(nn.Linear(2, 3)), "is damaged or not a file of weights"),
    "tensors without values": (saved({"w": W.to("meta")}), "w is not a plain tensor"),
    "a sparse tensor": (saved({"w": W.to_sparse()}), "w is not a plain tensor"),
    "one value as a million": (saved({"w": torch.ones(1).expand(1_000_000)}), "more than 2 times as many bytes"),
    "not a number": (saved({"w": W / 0 * 0}), "w has values that are not finite"),
    "not a number, in a byte each": (
        saved({"w": torch.full((9,), torch.nan).to(torch.float8_e5m2)}),
        "w has values that|is damaged",
    ),
    "a name of two lines": (saved({"w\nx\x1b[2J": W / 0}), r"w x\\x1b\[2J has values that are not finite"),
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_state_dict_is_one_line(
    kind: str, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, line = REFUSED[kind]
    path = tmp_path / "net.pth"
    if old:
        monkeypatch.setattr(torch, "save", partial(SAVE, _use_new_zipfile_serialization=False))
    make(path)
    with pytest.raises(UserError, match=f"^weights=net.pth: .*{line}") as error:
        read_state_dict(path, "weights=net.pth")
    told = str(error.value)
    assert "\n" not in told and "weights_only" not in told and error.value.exit_code == 2


SAVE = torch.save


@pytest.mark.parametrize("make", [saved, lambda content: written(pickle.dumps(content))])
def test_no_code_of_a_file_is_run_and_what_it_names_is_told(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    make({"w": Trap(tmp_path / "executed")})(path)
    with pytest.raises(UserError, match=r"holds more than tensors|is damaged or not a file of weights"):
        read_state_dict(path, "weights=net.pth")
    assert not (tmp_path / "executed").exists()


def test_a_variable_that_switches_the_protection_off_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"w": Trap(tmp_path / "executed")}, tmp_path / "net.pth")
    with pytest.raises(UserError):
        read_state_dict(tmp_path / "net.pth", "weights=net.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_scripts_save_is_read(zipped: bool, tmp_path: Path) -> None:
    beside = {"args": argparse.Namespace(lr=0.1), "epoch": 3, "best": 0.5, "on": True, "seen": {1, 2}}
    wanted = {"w": W, "steps": torch.tensor(7), "attn_mask": torch.tensor([-torch.inf])}
    content = {"state_dict": {f"module.{name}": value for name, value in wanted.items()}, **beside}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    read = read_state_dict(tmp_path / "a.pth", "weights=a.pth")
    assert read.keys() == wanted.keys() and all(torch.equal(read[name], value) for name, value in wanted.items())


def header(length: int, text: bytes = b"{}") -> bytes:
    return struct.pack("<Q", length) + text


UNSAFE: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (written(b"hello world, this is no file of weights"), "is damaged or not a safetensors file"),
    "nothing": (written(b""), "is damaged or not a safetensors file"),
    "a header of an exabyte": (written(header(2**60)), "is damaged or not a safetensors file"),
    "a header as long as can be said": (written(header(2**64 - 1)), "is damaged or not a safetensors file"),
    "a header that is a list": (written(header(2, b"[]")), "is damaged or not a safetensors file"),
    "a header of brackets": (written(header(90_000, b"[" * 90_000)), "is damaged or not a safetensors file"),
    "a type that there is not": (
        written(header(56, b'{"w":{"dtype":"Q9","shape":[1],"data_offsets":[0,1]}}   \0')),
        "is damaged or not a safetensors file",
    ),
    "values that are not there": (lambda path: path.write_bytes(save({"w": W})[:-4]), "is damaged or not"),
    "a pickle": (written(pickle.dumps({"a": 1})), "is a pickle, which can hold code and is not read"),
    "what torch.save makes": (saved({"w": W}), "is a pickle, which can hold code and is not read"),
    "a pipe": (os.mkfifo, "cannot be read: it is not a regular file"),
    "a folder": (lambda path: path.mkdir(), "cannot be read: Is a directory"),
    "not a number": (lambda path: save_file({"w": W * torch.nan}, path), "w has values that are not finite"),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_what_is_no_safetensors_file_is_one_line(kind: str, tmp_path: Path) -> None:
    make, line = UNSAFE[kind]
    path = tmp_path / "net.safetensors"
    make(path)
    with pytest.raises(UserError, match=f"^init=net.safetensors: .*{line}") as error:
        read_safetensors(path, "init=net.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["a pipe", "text", "a header of an exabyte", "a header of brackets"])
def test_weights_of_a_run_that_are_none_are_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    UNSAFE[kind][0](path)
    with pytest.raises(UserError, match=f"^{path} (cannot be read: it is not a regular file|is damaged)"):
        checkpoint.weights_of("some-run", path)


def as_ours(tensors: dict[str, torch.Tensor], about: str) -> bytes:
    """A file with a checksum that is right, and whatever `about` says: anyone can make one."""
    return save(tensors, {"vitbench": f"{checkpoint.digest(tensors, about)} {about}"})


@pytest.mark.parametrize("about", ["[1]", "3", '"a"', "[" * 90_000])
def test_a_file_that_looks_like_ours_may_say_anything(about: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(as_ours({"w": W}, about))
    with pytest.raises(UserError, match=r"was not written by vitbench|is damaged"):
        transfer.read_weights(Origin("net", "file", "net", path))


@pytest.mark.parametrize("classes", [3, [3], "abc", {"a": 1}])
def test_classes_that_are_no_names_are_one_line(classes: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(as_ours({"w": W}, json.dumps({"classes": classes})))
    with pytest.raises(UserError, match=r"^init=net: is damaged: its classes are not a list of names"):
        transfer.read_weights(Origin("net", "file", "net", path))


@pytest.mark.parametrize(
    ("mean", "std"), [([], []), ([0.5], [0.0]), ([0.5, 0.5], [1.0]), ([float("nan")], [1.0]), (3, 4), ([[1]], [1])]
)
def test_what_images_cannot_be_normalised_by_is_not_believed(mean: Any, std: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(as_ours({"w": W}, json.dumps({"mean": mean, "std": std})))
    assert _normalised_by(path) is None
    path.write_bytes(as_ours({"w": W}, json.dumps({"mean": [0.5], "std": [0.2]})))
    assert _normalised_by(path) == ([0.5], [0.2])


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_numbers_of_another_kind_are_not_taken_for_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    tensors = {name: torch.ones_like(value).to(dtype) for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=rf"{str(dtype)[6:]} there, but weights are floating-point numbers"):
        checkpoint.fit_tensors(model, tensors, tmp_path / "net.pth")
    checkpoint.fit_tensors(model, {name: value.double() for name, value in model.state_dict().items()}, tmp_path / "a")


@pytest.mark.parametrize(
    "error",
    [
        pickle.UnpicklingError("Weights only load failed. (1) Re-running with `weights_only` set to `False` succeeds"),
        RuntimeError("Cannot use weights_only=True with files saved in the legacy .tar format"),
    ],
)
def test_what_a_library_advises_against_safety_is_not_passed_on(error: Exception) -> None:
    assert reason_of(error, 100) == "the file is damaged, or holds more than tensors, which could run code"
    assert reason_of(OSError("no such host"), 100) == "no such host"


FOREIGN_META = {
    "a pickle with code": lambda path: torch.save(Trap(path.parent / "executed"), path),
    "text": written(b"hello"),
    "other tensors": saved({"w": W}),
    "a number": saved(3),
    "nothing": written(b""),
}


@pytest.mark.parametrize("kind", FOREIGN_META)
def test_a_foreign_meta_file_of_imagenet_is_one_line_of_data(kind: str, tmp_path: Path) -> None:
    from vitbench.data import torchvision_sets

    FOREIGN_META[kind](tmp_path / "meta.bin")
    for split in ("train", "val"):
        (tmp_path / split).mkdir()  # without them torchvision looks no further
    with pytest.raises(
        DataError, match=r"^data=imagenet: .*a file there is damaged, or does not belong to the set"
    ) as error:
        torchvision_sets.load("imagenet", root=tmp_path, cache=tmp_path / "cache", image_size=32)
    assert "\n" not in str(error.value) and "weights_only" not in str(error.value)
    assert not (tmp_path / "executed").exists()
