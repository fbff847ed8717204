"""Writes the network of a run for other programs: `vitbench export run=ID file=cats.onnx`.

`safetensors` has the weights; its metadata say how to build the network and how to give it images. A run can begin from
it (`init=FILE`). `onnx` is the whole network from bytes to probabilities. Before a file is written, its network gets
test images, and its logits may differ by at most TOLERANCE from those of the run (docs/how-to/using.md).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitbench.data.menu import open_dataset
from vitbench.errors import RunFailed, UserError, check_choice
from vitbench.machine.outputs import check_output, write_output
from vitbench.numbers.text import say
from vitbench.numbers.words import plural
from vitbench.runs.record import Record
from vitbench.settings.compose import cache_folder
from vitbench.settings.share import source_options
from vitbench.using.network import Exported, Logits, Network, described, find_classifier, load_network

FORMATS = ("safetensors", "onnx")
TOLERANCE = 1e-4  # logits may differ by so much
CHECKED = 100  # so many images are used for the comparison


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    asked: Any = OmegaConf.to_container(config, resolve=True)
    form, path = form_and_path(asked["format"], asked["file"], asked["run"])
    check_output(path, replace=asked["replace"])
    folder, record = find_classifier(asked["runs"], asked["run"])
    network = load_network(folder, record, asked["machine"] | {"device": "cpu"})
    if form == "onnx":
        from vitbench.using.onnx import as_onnx

        exported = as_onnx(network, record)
    else:
        exported = as_safetensors(network, record)
    images, which = images_to_check(record)
    difference = largest_difference(network.logits, exported.logits, images)
    if not difference <= TOLERANCE:
        raise RunFailed(
            f"run={record['id']} format={form}: the logits of the file differ by {difference:.2g} on {which}, but only "
            f"{TOLERANCE:g} is allowed; nothing was written"
        )
    write_output(path, exported.blob, replace=asked["replace"])
    note = f"; {exported.note}" if exported.note else ""
    say(f"{path}: {len(exported.blob) / 1e6:.1f} MB, logits differ by at most {difference:.1g} on {which}{note}\n")
    return 0


def form_and_path(form: str | None, file: str | None, run: Any) -> tuple[str, Path]:
    """Returns the format and the file to write. Either can be left out, because it follows from the other."""
    if form is not None:
        check_choice("format", form, FORMATS)
    if file is None:
        if form is None:
            raise UserError("file= is missing, for example file=network.onnx or file=network.safetensors")
        return form, Path(f"{run}.{form}")
    ending = Path(file).suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise UserError(f"file={file}: the ending says the format; choices: .safetensors, .onnx")
    if form not in (None, ending):
        raise UserError(f"format={form} file={file}: these contradict each other; drop format=, the ending says it")
    return ending, Path(file).expanduser()


def as_safetensors(network: Network, record: Record) -> Exported:
    """Returns the weights as a safetensors file, with the values of `described` as JSON in its metadata.

    The tensors of networks of timm and torchvision have the names of their library, so that it can load the file, too.
    """
    from safetensors.torch import load, save

    from vitbench.models import library
    from vitbench.models.build import of_record
    from vitbench.training.checkpoint import digest

    def with_names(model: Any) -> Any:
        return model.net if isinstance(model, library.Network) else model

    own = with_names(network.model).state_dict()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in own.items()}
    about = described(record)
    known = {key: record[key] for key in ("classes", "mean", "std")}
    origin = json.dumps({"run": record["id"], **known}, sort_keys=True)
    metadata = {key: json.dumps(value, ensure_ascii=False) for key, value in about.items()}
    # init=FILE reads this key: it has the classes, the mean and std of normalisation, and a checksum of the tensors
    blob = save(tensors, metadata | {"vitbench": f"{digest(tensors, origin)} {origin}", "format": "pt"})
    model = of_record(record).eval()
    with_names(model).load_state_dict(load(blob))
    return Exported(blob, network._replace(model=model).logits)


def images_to_check(record: Record) -> tuple[NDArray[np.uint8], str]:
    """Returns test images of the run (M,C,H,W), or noise where they are not at hand, and says which of the two."""
    data = record["config"]["data"]
    cache = data.get("cache") or ""
    cache = cache if Path(cache).is_dir() else cache_folder(None)
    # opening a public set that is not decoded here would download it
    at_hand = data["source"] in ("shapes", "imagefolder") or any(Path(cache).glob(f"{data['source']}-*.json"))
    why = "not decoded here"
    if at_hand:
        try:
            dataset = open_dataset(**source_options(data | {"cache": cache}), progress=True)
            shape = (record["channels"], record["image_size"], record["image_size"])
            images = np.asarray(dataset.test.images[np.arange(min(CHECKED, len(dataset.test)))])
            if images.shape[1:] == shape:
                return images, f"{plural(len(images), 'test image')}"
            why = "of another size now"
        except (UserError, TypeError) as error:  # TypeError: images are decoded one by one, or the run has old settings
            why = str(error)
    size = record["image_size"]
    noise = np.random.default_rng(0).integers(0, 256, (CHECKED, record["channels"], size, size), np.uint8)
    return noise, f"{CHECKED} images of noise (test images: {why})"


def largest_difference(one: Logits, other: Logits, images: NDArray[np.uint8]) -> float:
    """Returns the largest absolute difference between the logits of two networks."""
    batches = np.array_split(images, max(1, len(images) // 20))
    return max(float((one(batch) - other(batch)).abs().max()) for batch in batches)
