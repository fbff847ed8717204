"""Refuses settings that no run could have, in one line that names the setting as it was typed.

A choice says on its menu what it cannot be combined with (`refuses`). What depends on the images (a class without an
image, a side that the patch does not divide) is checked where the images are known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from vitbench.data.permute import KINDS
from vitbench.data.sizes import own_size
from vitbench.errors import UserError, did_you_mean
from vitbench.machine.redact import redacted
from vitbench.menu import (
    ABOVE_0,
    BELOW_1,
    FROM_0,
    FROM_1,
    MOST,
    MOST_BATCH,
    MOST_IMAGES,
    MOST_PIXELS,
    MOST_STEPS,
    MOST_THREADS,
    SHARE,
    Choice,
    Range,
    check_ranges,
    imported,
)
from vitbench.models.families import LIBRARIES
from vitbench.models.menu import check_encoding, is_vit
from vitbench.models.patches import usual_patch_size
from vitbench.objectives.distillation import distillation
from vitbench.settings.choices import MENU_GROUPS, menu_of
from vitbench.settings.compose import flatten
from vitbench.settings.options import check_options
from vitbench.settings.overrides import PRETRAINED, is_file_of_weights, is_words, words_of
from vitbench.settings.schedule import SCHEDULES, Schedule
from vitbench.settings.schema import DataConfig, OptimConfig
from vitbench.settings.share import without_idle_dial
from vitbench.trackers.menu import check_trackers

SEED_LIMIT = 2**32  # a larger seed would be split into several numbers, which could be those of other seeds
SEED = Range(f"0 to {SEED_LIMIT - 1}", lambda value: 0 <= value < SEED_LIMIT)

RANGES = {
    "seed": SEED,
    "eval_every": FROM_1.up_to(MOST_STEPS).of("steps"),
    "checkpoint": FROM_1.up_to(MOST_STEPS),
    "data.fraction": SHARE.with_note("a share; for a number of images: data.count"),
    "data.count": FROM_1.up_to(MOST_IMAGES).of("images"),
    "data.subset_seed": SEED,
    "data.val_fraction": BELOW_1,
    "data.permute_share": Range("at least 0 and at most 1 (a share of the tiles)", lambda value: 0 <= value <= 1),
    "data.permute_tile": FROM_1.up_to(MOST_PIXELS).of("pixels"),
    "data.permute_seed": SEED,
    "data.image_size": FROM_1.up_to(MOST_PIXELS).of("pixels"),
    "optim.lr": ABOVE_0.up_to(1e30),  # a run with a huge rate diverges, which is an answer, too
    "optim.weight_decay": FROM_0.up_to(MOST),
    "optim.momentum": BELOW_1,
    "optim.beta2": BELOW_1,
    "optim.steps": FROM_1.up_to(MOST_STEPS),
    "optim.epochs": ABOVE_0.up_to(MOST),
    "optim.min_steps": FROM_1.up_to(MOST_STEPS),
    "optim.batch_size": FROM_1.up_to(MOST_BATCH).of("images"),
    "optim.warmup": Range("at least 0 and at most 1 (a share of the steps)", lambda value: 0 <= value <= 1),
    "optim.warmup_steps": FROM_0.up_to(MOST_STEPS),
    "optim.decay": SHARE.with_note("a share of the steps"),
    "optim.label_smoothing": BELOW_1,
    "optim.clip": ABOVE_0.up_to(10**12),
    "optim.ema": Range("above 0 and below 1", lambda value: 0 < value < 1),
    "optim.layer_decay": SHARE,
    "machine.threads": FROM_1.up_to(MOST_THREADS),
    "machine.microbatch": FROM_1.up_to(MOST_BATCH).of("images"),
    "augment.area": SHARE.with_note("a share of the image"),
    "augment.crop": BELOW_1.with_note("a share of the width"),
    "augment.rotate": Range("0 to 180 degrees", lambda value: 0 <= value <= 180),
    "augment.scale": FROM_0.up_to(100).with_note("factors reach from 1/(1 + scale) to 1 + scale"),
    "augment.randaugment": FROM_0.up_to(100).of("operations"),
    "augment.magnitude": Range("0 to 30", lambda value: 0 <= value <= 30),
    "augment.mixup": FROM_0.up_to(MOST),
    "augment.cutmix": FROM_0.up_to(MOST),
    "augment.erase": Range("at least 0 and at most 1 (a probability)", lambda value: 0 <= value <= 1),
}
WORDS = {
    "head": ("keep", "new"),
    "freeze": ("none", "backbone"),
    "classifier": ("head", "linear", "nearest"),
    "data.permute": KINDS,
    "optim.optimizer": ("adamw", "sgd"),
    "optim.schedule": SCHEDULES,
    "optim.class_weights": ("none", "balanced"),
    "augment.draw": ("chunk", "image"),
    "machine.precision": ("auto", "float32", "bfloat16"),
    "machine.images": ("auto", "memory", "cache", "files"),
}


def check(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings with all options of their choices, converted to their types.

    All of `distill` is filled in, and a rearrangement of places that moves nothing is taken out. Raises UserError for
    impossible settings, in the words that were typed.
    """
    check_ranges({"data.image_size": settings["data"]["image_size"]}, RANGES)  # patches are chosen by it
    model = dict(settings["model"])
    pe = model.pop("pe", None)
    if pe is not None and not isinstance(pe, Mapping):
        raise UserError(f"model.pe={pe}: type pe={pe}")
    model = _member("model", _with_patch_size(model, settings["data"]))
    check_encoding(model["name"], pe)
    if is_vit(model["name"]):
        model["pe"] = _member("pe", pe or {"name": "none"})
    _on_menu("data", settings["data"]["source"])
    settings = settings | {"model": model, "objective": _member("objective", settings["objective"])}
    flat = flatten(settings)
    _check_values(flat)
    _check_together(flat)
    for group, its in MENU_GROUPS.items():
        if (name := flat.get(its.name_key)) and (refuses := _on_menu(group, name).refuses):
            imported(refuses)(flat)
    _check_checkpoint(flat)
    _check_init(flat)
    data = without_idle_dial(settings["data"]) | _size_of_pretrained(flat)
    trackers = check_trackers(settings["trackers"])
    return settings | {"data": data, "distill": distillation(flat), "trackers": trackers}


def _with_patch_size(model: Mapping[str, Any], data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fills in a patch size that suits the images, where a model has `model.patch_size=null`."""
    if model.get("patch_size", 0) is not None:
        return model
    image_size = data["image_size"] or own_size(data["source"], data["root"]) or 0
    return {**model, "patch_size": usual_patch_size(image_size, power_of_two=model.get("stem") == "conv")}


def _member(group: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what was chosen from an open group: the name first, then the options, converted to their types."""
    options = dict(given)
    name = options.pop("name", None)
    target = _on_menu(group, name).target
    return {"name": name, **check_options(f"{group}={name}", group, options, target)}


def _on_menu(group: str, name: Any) -> Choice:
    """Returns the line of a group's menu. Raises UserError with near misses of the name."""
    menu = menu_of(group)
    if name not in menu:
        raise UserError(f"{group}={name}: {did_you_mean(str(name), menu)}")
    return menu[name]


@cache  # a study has few names, and each is in many runs
def _holds_a_secret(name: str | None) -> bool:
    return bool(redacted(name) != name)


def _check_values(flat: Mapping[str, Any]) -> None:
    """Checks each setting by itself."""
    check_ranges(flat, RANGES)
    for key, words in WORDS.items():
        if flat[key] not in words:
            raise UserError(f"{key}={flat[key]}: {did_you_mean(str(flat[key]), words)}")
    for key in ("runs", "data.root", "data.name"):
        if not flat[key].strip():
            raise UserError(f"{key}=: must not be empty")
    for key in ("data.name", "model.arch"):  # these are parts of ids, and so of the names of folders
        if _holds_a_secret(flat.get(key)):
            raise UserError(f"{key}={redacted(flat[key])}: looks like a secret, but would be in the names of folders")
    classes = flat["data.classes"]
    if classes is not None and (len(set(classes)) < max(2, len(classes)) or min(classes) < 0):
        raise UserError(
            f"data.classes=[{','.join(map(str, classes))}]: must be two or more numbers of classes, from 0, each once, "
            "for example [0,1]"
        )
    check_machine(flat["machine.device"], flat["machine.threads"])


def _check_together(flat: Mapping[str, Any]) -> None:
    """Refuses settings that say the same thing twice, or contradict each other."""
    if flat["data.count"] is not None and flat["data.fraction"] != 1:
        raise UserError(f"data.count={flat['data.count']} and data.fraction={flat['data.fraction']}: give one of them")
    kept, steps = flat["keep"], flat["optim.steps"]
    first = (flat["checkpoint"] or 0) + 1
    if kept is not None and not all(first <= step <= (steps or step) for step in kept):
        raise UserError(
            f"keep=[{','.join(map(str, kept))}]: must be steps of the run, {first} to {steps or 'its last'}"
        )
    if steps is None and flat["optim.epochs"] is None:
        raise UserError("optim.steps=null optim.epochs=null: give one of them, for example optim.steps=1000")
    if flat["optim.min_steps"] is not None and flat["optim.epochs"] is None:
        raise UserError(
            f"optim.min_steps={flat['optim.min_steps']}: goes with epochs, for example optim.epochs=40; "
            "for a fixed number of steps type optim.steps"
        )
    _check_permutation(flat)
    _check_schedule(flat)
    _check_step(flat)


def _check_permutation(flat: Mapping[str, Any]) -> None:
    """Refuses settings of a rearrangement where none is chosen. That tiles divide the images is checked later."""
    goes_with = {"permute_share": "tiles or pixels", "permute_seed": "tiles or pixels", "permute_tile": "tiles"}
    for key, kinds in goes_with.items():
        value = flat[f"data.{key}"]
        if flat["data.permute"] not in kinds and value != getattr(DataConfig, key):
            raise UserError(f"data.{key}={value}: goes with data.permute={kinds}")


def _check_step(flat: Mapping[str, Any]) -> None:
    """Refuses ways of computing a step that would change its numbers."""
    part = flat["machine.microbatch"]
    if flat["machine.graph"] and draws_on_host(flat):
        raise UserError(
            f"machine.graph=true: augment.randaugment={flat['augment.randaugment']} with augment.draw=chunk draws its "
            "numbers on the processor, which no graph repeats; type augment.draw=image"
        )
    if part and part < flat["optim.batch_size"] and flat.get("model.drop_path"):
        raise UserError(
            f"machine.microbatch={part}: model.drop_path={flat['model.drop_path']} draws its numbers for the whole "
            "batch; drop one of them"
        )


def draws_on_host(flat: Mapping[str, Any]) -> bool:
    """Whether augmentation draws random numbers on the processor even if the images are on a GPU."""
    return flat["augment.randaugment"] > 0 and flat["augment.draw"] == "chunk"


def _check_schedule(flat: Mapping[str, Any]) -> None:
    """Refuses a schedule of the learning rate that no run could have."""
    if flat["optim.warmup"] is None and flat["optim.warmup_steps"] is None:
        raise UserError("optim.warmup=null: type a share of the steps, or type optim.warmup_steps")
    if flat["optim.schedule"] != "wsd" and flat["optim.decay"] != OptimConfig.decay:
        raise UserError(f"optim.decay={flat['optim.decay']}: goes with optim.schedule=wsd")
    if flat["optim.steps"] is not None:
        optim = {key.removeprefix("optim."): value for key, value in flat.items() if key.startswith("optim.")}
        Schedule.of(optim, optim["steps"])


def _check_checkpoint(flat: Mapping[str, Any]) -> None:
    """Refuses a checkpoint of weights that no run here trained, and one without a stable phase."""
    step, typed = flat["checkpoint"], flat["init"]
    if step is None:
        return
    if typed is None:
        raise UserError(f"checkpoint={step}: goes with init=RUN, the run from which this one branches off")
    if not is_words(typed) and (":" in typed or typed == PRETRAINED or is_file_of_weights(typed)):
        raise UserError(f"checkpoint={step}: init={typed} has only weights; only a run keeps its state")
    if flat["optim.schedule"] != "wsd":
        raise UserError(
            f"checkpoint={step}: goes with optim.schedule=wsd; "
            f"without checkpoint, init={typed} begins from the weights at the end of that run"
        )


def _size_of_pretrained(flat: Mapping[str, Any]) -> dict[str, int]:
    """Returns the image size that the pretrained weights of a library's network expect, where no size was typed."""
    typed = flat["init"]
    begins = typed is not None and not is_words(typed) and (typed == PRETRAINED or is_file_of_weights(typed))
    if flat["model.name"] not in LIBRARIES or flat["data.image_size"] is not None or not begins:
        return {}
    from vitbench.models.build import expected_input  # imports torch

    expected = expected_input(flat["model.name"], flat["model.arch"])
    return {"image_size": expected.image_size} if expected else {}


def check_machine(device: str, threads: int | None) -> None:
    """Refuses a device or a number of threads on which nothing can compute."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", device):
        raise UserError(f"machine.device={device}: must be auto, cpu, cuda or cuda:N")
    check_ranges({"machine.threads": threads}, {"machine.threads": RANGES["machine.threads"]})


def _check_init(flat: Mapping[str, Any]) -> None:
    """Refuses an init that names no weights, without looking at runs or files."""
    typed = flat["init"]
    if typed is None:
        if flat["head"] == "new":
            raise UserError("head=new: without init= every head is new; drop it")
        return
    if not typed.strip():
        raise UserError("init=: must not be empty; init=null begins from random weights")
    if is_words(typed):
        if model := next((word for word in words_of(typed) if word.startswith("model=")), None):
            raise UserError(f"init='{typed}': {model}: a run can only begin from a run of its own model; drop it")
        return
    if flat["model.name"] in LIBRARIES and is_file_of_weights(typed):
        return
    if typed == PRETRAINED:
        if flat["model.name"] not in LIBRARIES:
            raise UserError(
                f"init={PRETRAINED}: goes with model={' or model='.join(LIBRARIES)} and model.arch=NAME; for "
                f"this model, name the network: init={LIBRARIES[-1]}:NAME"
            )
        return
    library, colon, name = typed.partition(":")
    if colon and (library not in LIBRARIES or not name):
        raise UserError(f"init={typed}: must be torchvision:NAME or timm:NAME")
    if not colon and re.search(r"/|\.(pth?|ckpt|bin|pkl|npz)$", typed) and not typed.endswith(".safetensors"):
        raise UserError(
            f"init={typed}: must be a run's id below runs=, or a file that ends in .safetensors (others can hold code)"
        )
