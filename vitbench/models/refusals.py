"""Refuses settings that a model cannot be combined with. The menu names these functions. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitbench.errors import UserError, check_choice
from vitbench.menu import (
    ABOVE_0,
    BELOW_1,
    FROM_1,
    MOST_DEPTH,
    MOST_HEADS,
    MOST_PIXELS,
    MOST_WIDTH,
    Range,
    check_ranges,
    tunables,
)
from vitbench.models.families import LIBRARIES, check_arch

STEMS = ("patch", "conv")
WINDOW = Range("an odd number of patches, 3 or more", lambda value: value >= 3 and value % 2 == 1)
RANGES = {
    "model.window": WINDOW.up_to(MOST_PIXELS),
    "model.patch_size": FROM_1.up_to(MOST_PIXELS).of("pixels"),
    "model.width": FROM_1.up_to(MOST_WIDTH),
    "model.depth": FROM_1.up_to(MOST_DEPTH).of("blocks"),
    "model.heads": FROM_1.up_to(MOST_HEADS),
    "model.mlp_ratio": ABOVE_0.up_to(64),
    "model.drop_path": BELOW_1,
}
RESNET = {"model.depth": FROM_1.up_to(MOST_DEPTH).of("layers"), "model.base_width": FROM_1.up_to(MOST_WIDTH)}
MIXER = {
    "model.patch_size": FROM_1.up_to(MOST_PIXELS).of("pixels"),
    "model.width": FROM_1.up_to(MOST_WIDTH),
    "model.depth": FROM_1.up_to(MOST_DEPTH).of("blocks"),
    "model.token_ratio": ABOVE_0.up_to(64),
    "model.mlp_ratio": ABOVE_0.up_to(64),
    "model.drop_path": BELOW_1,
}


def vit(flat: Mapping[str, Any]) -> None:
    check_ranges(flat, RANGES | {"model.pe.theta": ABOVE_0.up_to(10**12)})
    defaults = {key: option.default for key, option in tunables("vitbench.models.vit:ViT").items()}
    options = defaults | {key: flat[f"model.{key}"] for key in defaults if f"model.{key}" in flat}
    refuse_rungs(options)
    for key in ("stem", "window", "conv", "hierarchy", "gate"):
        if flat["objective.name"] == "mae" and options[key] != defaults[key]:
            typed = _typed(key, options[key])
            raise UserError(
                f"objective=mae {typed}: mae shows the network only some of an image's patches, but {typed} "
                "needs the whole grid; drop one of them"
            )


def refuse_rungs(options: Mapping[str, Any]) -> None:
    """Refuses options of the ViT's ladder that cannot be combined."""
    check_ranges({"model.window": options["window"]}, {"model.window": RANGES["model.window"]})
    check_choice("model.stem", options["stem"], STEMS)
    patch_size, depth = options["patch_size"], options["depth"]
    if options["stem"] == "conv" and (patch_size < 2 or patch_size & (patch_size - 1)):
        raise UserError(
            f"model.patch_size={patch_size} model.stem=conv: must be a power of 2, such as 4, because each "
            "convolution of the stem halves the image"
        )
    if options["hierarchy"] and depth is not None and depth < 2:
        raise UserError(f"model.depth={depth} model.hierarchy=true: must be 2 or more, half before the merging")
    for rung, reason in {"hierarchy": "merges patches 2 x 2", "gate": "attends by position on the grid"}.items():
        for key, value, without in (("pool", "cls", "mean"), ("distill_token", True, False)):
            if options[rung] and options[key] == value:
                raise UserError(
                    f"{_typed(key, value)}: model.{rung}=true {reason}, and such a token has no position; add "
                    f"{_typed(key, without)}"
                )


def refuse_patches(image_size: int, patch_size: int) -> None:
    """Refuses an image size that is not a multiple of the patch size."""
    if image_size % patch_size:
        below = image_size - image_size % patch_size
        larger = below + patch_size
        sizes = f"{below} or {larger}" if below else f"{larger}"
        raise UserError(
            f"data.image_size={image_size} model.patch_size={patch_size}: patches must divide the image; "
            f"data.image_size={sizes} works, or model.patch_size={nearest_divisor(image_size, patch_size)}"
        )


def nearest_divisor(number: int, wanted: int) -> int:
    divisors = (d for d in range(1, number + 1) if number % d == 0)
    return min(divisors, key=lambda d: abs(d - wanted))


def mixer(flat: Mapping[str, Any]) -> None:
    check_ranges(flat, MIXER)
    if flat["objective.name"] == "mae":
        raise UserError(
            "objective=mae model=mixer: mae shows the network only some of an image's patches, but model=mixer needs "
            "all of them; objective=simsiam works with every model"
        )


def timm(flat: Mapping[str, Any]) -> None:
    check_ranges(flat, {"model.drop_path": BELOW_1})
    _library(flat)


def torchvision(flat: Mapping[str, Any]) -> None:
    _library(flat)
    if flat["optim.layer_decay"] != 1:
        raise UserError(
            f"optim.layer_decay={flat['optim.layer_decay']}: torchvision does not tell the order of its layers; "
            "model=timm does, and has most of the same networks"
        )


def _library(flat: Mapping[str, Any]) -> None:
    library, arch = flat["model.name"], flat["model.arch"]
    check_arch(library, arch, f"model.arch={arch}")
    if (flat["init"] or "").startswith(tuple(f"{name}:" for name in LIBRARIES)):
        raise UserError(
            f"init={flat['init']}: model={library} comes with its own pretrained weights; type init=pretrained, and "
            "the network as model.arch"
        )


def _typed(key: str, value: Any) -> str:
    """Returns an option of the model as people type it."""
    return f"model.{key}={str(value).lower() if isinstance(value, bool) else value}"


def resnet(flat: Mapping[str, Any]) -> None:
    check_ranges(flat, RESNET)
    if flat["freeze"] == "none" and flat["model.norm"] == "batch":  # frozen norms do not depend on the batch
        refuse_parts(flat, "model=resnet")


def refuse_parts(flat: Mapping[str, Any], typed: str) -> None:
    """Refuses to split a batch for a network with batch norm, which `typed` names."""
    part = flat["machine.microbatch"]
    if part and part < flat["optim.batch_size"]:
        raise UserError(
            f"machine.microbatch={part}: {typed} has batch norm, which needs the whole batch at once; drop "
            f"machine.microbatch, or type optim.batch_size={part}, which makes another run"
        )
