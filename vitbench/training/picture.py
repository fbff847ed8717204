"""Draws training images as the network sees them: `vitbench ls images file=images.png` with the settings of a run.

    vitbench ls images file=images.png model=vit data=shapes augment=strong data.permute=tiles

The picture shows the first images of the run's first batch, after the choice of a share, augmentation and
rearrangement, with the same random numbers as in training. Only the normalisation by mean and standard deviation is
undone. The caption of an image is its class, or its two largest classes with their shares if images are mixed. Look at
such a picture before every study.

Nothing is trained, and no run is begun. The images are decoded into the cache, as for a run. The ending of the file
decides its format: .png, .svg or .pdf.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitbench.data.loader import Normalise, seed_random_state
from vitbench.errors import UserError
from vitbench.machine.outputs import check_output, write_output
from vitbench.machine.redact import redacted
from vitbench.models.build import build_model
from vitbench.numbers import look
from vitbench.numbers.setting_words import setting_in_words
from vitbench.numbers.words import printable
from vitbench.objectives.build import build_objective
from vitbench.settings.check import check
from vitbench.settings.compose import as_settings, compose
from vitbench.settings.overrides import explain, prepare
from vitbench.settings.schedule import steps_of
from vitbench.settings.share import places_of
from vitbench.settings.typed_text import with_home
from vitbench.training.prepare import architecture_of, augment_of, loader_of, machine_of, share_of

SHOWN = 16  # images of a picture, four by four
LONGEST_NAME = 18  # most characters of a class in a caption

REPLACE = ("replace=true", "replace=false")


class Shown(NamedTuple):
    """The content of a picture."""

    images: Tensor  # (SHOWN,C,H,W) in 0..1, on the CPU
    captions: list[str]
    title: str  # lines about the images and their rearrangement; the last line is about augmentation


def draw(words: Sequence[str]) -> Path:
    """Draws the picture that the typed words ask for; returns its path. Raises UserError if a word is wrong."""
    path, replace, of_run = _file(words)
    check_output(path, replace=replace)
    picture = shown(_settings(of_run))
    changed = [word for word in of_run if word.startswith("augment.")]
    *lines, augmentation = picture.title.splitlines()
    title = "\n".join([*lines, *textwrap.wrap(" ".join([augmentation, *changed]), 80)])
    picture = picture._replace(title=title)
    command = redacted(f"vitbench ls images {shlex.join(word for word in words if word not in REPLACE)}")
    write_output(path, _figure(picture, command, path.suffix.lower()), replace=replace)
    return path


def _file(words: Sequence[str]) -> tuple[Path, bool, list[str]]:
    """Returns the file of the picture, whether it may replace any file, and the words that are settings of the run."""
    files = [word.removeprefix("file=") for word in words if word.startswith("file=")]
    if len(files) != 1 or not files[0]:
        raise UserError("ls images: type one file=, for example file=images.png")
    path = Path(with_home("file", files[0])).expanduser()
    if path.suffix.lower() not in look.FIGURE_ENDINGS:
        raise UserError(f"file={path}: the ending says the format; choices: {', '.join(look.FIGURE_ENDINGS)}")
    of_run = [word for word in words if not word.startswith("file=") and word not in REPLACE]
    if flag := next((word for word in of_run if word.startswith("-")), None):
        raise UserError(f"ls images {flag}: no such option; ls images takes file=, replace=true and settings of a run")
    return path, REPLACE[0] in words, of_run


def _settings(words: Sequence[str]) -> dict[str, Any]:
    """Returns the checked settings of the run that `vitbench train` would train with these words."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    arguments = prepare(words)
    try:
        return check(as_settings(compose(arguments)))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, "train", arguments) from None


def shown(settings: Mapping[str, Any]) -> Shown:
    """Returns the first images that the network of a run would get, by the same code that trains it."""
    machine, share = machine_of(settings), share_of(settings)
    classes, size = share.dataset.classes, share.dataset.train.image_size
    places = places_of(settings, size)
    images, labels = share.train(machine.device)
    architecture = architecture_of(settings, share)
    model: Any = build_model(**architecture)
    smoothing = settings["optim"]["label_smoothing"]
    objective = build_objective(
        **settings["objective"], model=model, label_smoothing=smoothing, teacher=None, distill=settings["distill"]
    )
    normalise = Normalise.of(images, model.channels_last, places)
    augment = augment_of(settings, architecture)
    loader = loader_of(settings, images, labels, steps_of(settings["optim"], len(labels)))
    pixels: list[Tensor] = []
    captions: list[str] = []
    for step in count():
        seed_random_state(settings["seed"], step + 1)  # as training does before this step
        batch, batch_labels = loader.take(*loader.batch(step))
        views = objective.views(batch, batch_labels, augment, normalise)
        seen = [view for view in views if view.shape == batch.shape]  # some objectives make several views of an image
        pixels += torch.stack(seen, 1).flatten(0, 1).cpu()
        shares = views[1] if augment.mixes and objective.classifies else batch_labels
        captions += [_caption(each, classes) for each in shares.cpu() for _ in seen]
        if len(pixels) >= SHOWN:
            break
    std, mean = (torch.tensor(values).view(-1, 1, 1) for values in (normalise.std, normalise.mean))
    undone = (torch.stack(pixels[:SHOWN]) * std + mean).clamp(0, 1)
    return Shown(undone, captions[:SHOWN], _title(settings, size, loader.train_images, len(seen)))


def _caption(label: Tensor, classes: Sequence[str]) -> str:
    """Returns the name of a class; or, for shares of the classes (K,), a line for each of the two largest."""
    if label.ndim == 0:
        return _short(classes[int(label)])
    largest = [int(k) for k in label.argsort(descending=True)[:2] if label[k] > 0]
    if len(largest) == 1:
        return _short(classes[largest[0]])
    return "\n".join(f"{label[k]:.2f} {_short(classes[k])}" for k in largest)


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _title(settings: Mapping[str, Any], size: int, images: int, views: int) -> str:
    data, objective = settings["data"], settings["objective"]["name"]
    seen = (
        f"{setting_in_words('objective', objective)}: {views} views of each image, side by side\n" if views > 1 else ""
    )
    moved = {"none": "", "pixels": f"{_share(data)} of the pixels moved, "}
    places = moved.get(data["permute"], f"{_share(data)} of the tiles of {data['permute_tile']} px moved, ")
    return (
        f"{setting_in_words('data', printable(data['name']))}: {images:,} training images of {size} px\n{seen}"
        f"{places}{setting_in_words('augment', settings['augment']['name'])}"
    )


def _share(data: Mapping[str, Any]) -> str:
    return "all" if data["permute_share"] == 1 else f"{100 * data['permute_share']:g} %"


def _figure(shown: Shown, command: str, ending: str) -> bytes:
    from matplotlib.figure import Figure

    with look.figure_style():
        figure = Figure(figsize=(6.3, 7.6), layout="constrained")
        panels = figure.subplots(4, 4)
        for panel, image, caption in zip(panels.flat, shown.images, shown.captions, strict=True):
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            panel.spines[:].set_visible(False)
            panel.imshow(image.permute(1, 2, 0).expand(-1, -1, 3).numpy(), interpolation="nearest")
            panel.set_xlabel(caption, fontsize=8, labelpad=3)
        first, *others = shown.title.splitlines()
        panels[0, 0].set_title("\n".join(others), loc="left", fontsize=8.5, fontweight="normal", pad=6)
        figure.suptitle(first, x=0.01, ha="left", fontsize=10, fontweight="bold")
        look.small_print(figure, "\n".join(textwrap.wrap(command, 120)))
        return look.save_figure(figure, ending)
