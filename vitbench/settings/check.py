"""What no run could mean is refused here, in one line that names the setting as it was typed.

What depends on the images themselves (a class left without an image, a side that no patch divides) is checked where
the images are known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import field, make_dataclass
from functools import cache
from typing import Any

from vitbench.errors import UserError, did_you_mean
from vitbench.machine.distributed import WORLD_SIZE
from vitbench.menu import parameters, tunables
from vitbench.settings.compose import flatten
from vitbench.settings.overrides import is_words, words_of

SEED_LIMIT = 2**32  # larger ones would be cut into several numbers and meet others
_TYPES: dict[str, type] = {"int": int, "float": float, "bool": bool, "str": str}


@cache
def _open_schema(target: str) -> type:
    """A dataclass made from a signature, so that OmegaConf checks and converts the types of an open group."""
    slots = []
    for name, (annotation, default) in tunables(target).items():
        kinds = [part.strip() for part in annotation.split("|")]
        kind: Any = _TYPES.get(kinds[0], Any)
        if "None" in kinds:
            kind = kind | None
        slots.append((name, kind, field(default=default)))
    return make_dataclass("Options", slots)


@cache
def _converted(target: str, key: str, value: Any, kind: str) -> Any:
    """A value as its annotation wants it; `kind` keeps 1 and 1.0 and True apart in the cache."""
    from omegaconf import OmegaConf

    return OmegaConf.structured(_open_schema(target)(**{key: value}))[key]


def check_open(typed: str, group: str, given: Mapping[str, Any], target: str) -> dict[str, Any]:
    """The options of a model or an encoding, checked against its signature; `group` is its place in the config."""
    from omegaconf.errors import OmegaConfBaseException

    known = tunables(target)
    checked: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise UserError(f"{group}.{key}={value}: {typed} has no such option; {did_you_mean(key, known)}")
        if known[key].annotation == "Any" or (value is None and "None" in known[key].annotation):
            checked[key] = value
            continue
        if known[key].annotation.startswith("tuple["):
            checked[key] = _listed(f"{group}.{key}", value, known[key].annotation)
            continue
        try:
            checked[key] = _converted(target, key, value, type(value).__name__)
        except (OmegaConfBaseException, TypeError):  # TypeError: a list, which no option takes
            raise UserError(f"{group}.{key}={value}: must be {known[key].annotation}") from None
    return checked


def _listed(key: str, value: Any, annotation: str) -> tuple[Any, ...]:
    """A list as `tuple[float, ...]` wants it; an int is a float too."""
    kind = _TYPES[annotation.removeprefix("tuple[").partition(",")[0]]
    values = value if isinstance(value, list | tuple) else [value]
    fits = (int, float) if kind is float else (kind,)
    if not values or any(type(one) not in fits for one in values):
        raise UserError(f"{key}={value}: must be a list of {kind.__name__}, for example [{kind(1)},{kind(2)}]")
    return tuple(kind(one) for one in values)


def check(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the model's options converted to their types; UserError names what cannot be as it was typed."""
    from vitbench.data.menu import MENU as DATA
    from vitbench.models.menu import MENU as MODELS
    from vitbench.objectives.menu import MENU as OBJECTIVES
    from vitbench.pe.menu import MENU as ENCODINGS

    model = dict(settings["model"])
    name, pe = model.pop("name", None), model.pop("pe", None)
    if name not in MODELS:
        raise UserError(f"model={name}: {did_you_mean(str(name), MODELS)}")
    takes_pe = "pe" in parameters(MODELS[name].target)
    if pe is not None and not isinstance(pe, Mapping):
        raise UserError(f"model.pe={pe}: type pe={pe}")
    if pe is not None and not takes_pe:
        raise UserError(f"{name} is not a ViT and takes no position encoding; drop pe={pe.get('name')}")
    model = {"name": name, **check_open(f"model={name}", "model", model, MODELS[name].target)}
    if takes_pe:
        pe = dict(pe or {"name": "none"})
        pe_name = pe.pop("name", None)
        if pe_name not in ENCODINGS:
            raise UserError(f"pe={pe_name}: {did_you_mean(str(pe_name), ENCODINGS)}")
        model["pe"] = {"name": pe_name, **check_open(f"pe={pe_name}", "pe", pe, ENCODINGS[pe_name].target)}
    if settings["data"]["source"] not in DATA:
        raise UserError(f"data={settings['data']['source']}: {did_you_mean(settings['data']['source'], DATA)}")
    if settings["data"].get("task") == "relation" and settings["augment"]["flip"] and settings["data"]["flip"]:
        raise UserError(
            f"augment={settings['augment']['name']}: a mirror image changes the class of data.task=relation; "
            "add data.flip=false"
        )
    if settings["data"].get("task") == "relation" and settings["augment"]["rotate"] >= 45:
        raise UserError(
            f"augment.rotate={settings['augment']['rotate']:g}: turning changes the class of "
            "data.task=relation; below 45 works"
        )
    objective = dict(settings["objective"])
    trained_for = objective.pop("name", None)
    if trained_for not in OBJECTIVES:
        raise UserError(f"objective={trained_for}: {did_you_mean(str(trained_for), OBJECTIVES)}")
    typed = f"objective={trained_for}"
    objective = {"name": trained_for, **check_open(typed, "objective", objective, OBJECTIVES[trained_for].target)}
    settings = settings | {"model": model, "objective": objective}
    _check_ranges(flatten(settings))
    if trained_for != "classify":
        _check_without_labels(settings)
    _check_init(settings)
    return settings | {"distill": _distill(settings)}


def _check_without_labels(settings: Mapping[str, Any]) -> None:
    """What an objective without labels has no use for is refused, not ignored."""
    flat, typed = flatten(settings), f"objective={settings['objective']['name']}"
    if settings["objective"]["name"] == "mae" and "model.patch_size" not in flat:
        raise UserError(
            f"{typed}: hides patches, and model={flat['model.name']} has none; model=vit has, "
            "and objective=simsiam serves every model"
        )
    for key in ("augment.mixup", "augment.cutmix", "optim.label_smoothing"):
        if flat[key]:
            raise UserError(f"{key}={flat[key]}: {typed} has no labels; add {key}=0")
    if settings["freeze"] == "backbone":
        raise UserError(f"freeze=backbone: the backbone is what {typed} trains; drop one of them")
    if settings["optim"]["batch_size"] < 2:
        raise UserError(f"optim.batch_size={settings['optim']['batch_size']}: {typed} needs 2 or more images")
    if WORLD_SIZE > 1:
        raise UserError(f"{typed}: is trained in one process; type the command without torchrun")


DEIT = {"hard": 0.5, "soft": 0.1}  # the teacher's share of the loss, as in the paper and in its code


def _distill(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is learned from a teacher, with every default said, so that the record does; nothing without one."""
    teacher, given = settings["teacher"], dict(settings["distill"])
    if teacher is None:
        said = {f"distill.{key}": value for key, value in given.items() if value is not None}
        said |= {"model.distill_token": "true"} if settings["model"].get("distill_token") else {}
        for key, value in said.items():
            raise UserError(f"{key}={value}: is for a run that has a teacher; add teacher=RUN_ID")
        return given
    if not teacher.strip():
        raise UserError("teacher=: must be the id of a run, or words such as 'model=resnet'; null for none")
    if (objective := settings["objective"]["name"]) != "classify":
        raise UserError(f"teacher={teacher}: teaches classes, and objective={objective} learns none; drop one of them")
    kind = given["kind"] or "hard"
    if kind not in DEIT:
        raise UserError(f"distill.kind={kind}: {did_you_mean(kind, DEIT)}")
    alpha = DEIT[kind] if given["alpha"] is None else given["alpha"]
    if not 0 <= alpha <= 1:
        raise UserError(f"distill.alpha={alpha}: must be 0 to 1, the teacher's share of the loss")
    temperature = given["temperature"]
    if kind == "hard" and temperature is not None:
        raise UserError(
            f"distill.temperature={temperature}: is for distill.kind=soft; hard takes the teacher's first class"
        )
    if kind == "soft":
        temperature = 3.0 if temperature is None else temperature
        if not (_finite(temperature) and temperature > 0):
            raise UserError(f"distill.temperature={temperature}: must be above 0")
    return {"kind": kind, "alpha": alpha, "temperature": temperature}


def _check_init(settings: Mapping[str, Any]) -> None:

    if settings["init"] is not None:
        check_init(settings)
    elif settings["head"] == "new":
        raise UserError("head=new: without init every head is new; drop it")


def _check_ranges(flat: Mapping[str, Any]) -> None:
    def need(key: str, right: str, ok: Callable[[Any], bool]) -> None:
        value = flat.get(key)
        if value is not None and not (_finite(value) and ok(value)):
            raise UserError(f"{key}={value}: must be {right}")

    def one_of(key: str, *choices: str) -> None:
        if flat[key] not in choices:
            raise UserError(f"{key}={flat[key]}: {did_you_mean(str(flat[key]), choices)}")

    need("seed", f"0 to {SEED_LIMIT - 1}", lambda v: 0 <= v < SEED_LIMIT)
    need("eval_every", "1 or more steps", lambda v: v >= 1)
    need("data.fraction", "above 0 and at most 1 (a share; for a number of images: data.count)", lambda v: 0 < v <= 1)
    need("data.count", "1 or more images", lambda v: v >= 1)
    need("data.subset_seed", f"0 to {SEED_LIMIT - 1}", lambda v: 0 <= v < SEED_LIMIT)
    need("data.val_fraction", "at least 0 and below 1", lambda v: 0 <= v < 1)
    need("data.image_size", "1 or more pixels", lambda v: v >= 1)
    need("data.train_images", "1 or more", lambda v: v >= 1)
    need("data.test_images", "1 or more", lambda v: v >= 1)
    need("data.image_seed", "0 or more", lambda v: v >= 0)
    for key in ("runs", "data.root", "data.name"):
        if not flat[key].strip():
            raise UserError(f"{key}=: must not be empty")
    if flat["data.count"] is not None and flat["data.fraction"] != 1:
        raise UserError(f"data.count={flat['data.count']} and data.fraction={flat['data.fraction']}: give one of them")
    classes = flat["data.classes"]
    if classes is not None and (len(set(classes)) < max(2, len(classes)) or min(classes) < 0):
        raise UserError(
            f"data.classes=[{','.join(map(str, classes))}]: must be two or more classes by their numbers, from 0, "
            "each once, for example [0,1]"
        )
    kept, steps = flat["keep"], flat["optim.steps"]
    if kept is not None and not all(0 < step <= (steps or step) for step in kept):
        raise UserError(f"keep=[{','.join(map(str, kept))}]: must be steps of the run, 1 to {steps or 'its last'}")
    one_of("head", "keep", "new")
    one_of("freeze", "none", "backbone")
    one_of("optim.optimizer", "adamw", "sgd")
    need("optim.lr", "above 0", lambda v: v > 0)
    need("optim.weight_decay", "0 or more", lambda v: v >= 0)
    need("optim.momentum", "at least 0 and below 1", lambda v: 0 <= v < 1)
    need("optim.beta2", "at least 0 and below 1", lambda v: 0 <= v < 1)
    need("optim.steps", "1 or more", lambda v: v >= 1)
    need("optim.epochs", "above 0", lambda v: v > 0)
    need("optim.batch_size", "1 or more images", lambda v: v >= 1)
    need("optim.warmup", "at least 0 and at most 1 (a share of the steps)", lambda v: 0 <= v <= 1)
    need("optim.label_smoothing", "at least 0 and below 1", lambda v: 0 <= v < 1)
    need("optim.clip", "above 0", lambda v: v > 0)
    need("optim.ema", "above 0 and below 1", lambda v: 0 < v < 1)
    need("optim.layer_decay", "above 0 and at most 1", lambda v: 0 < v <= 1)
    if flat["optim.steps"] is None and flat["optim.epochs"] is None:
        raise UserError("optim.steps=null optim.epochs=null: give one of them, for example optim.steps=1000")
    need("augment.crop", "at least 0 and below 1 (a share of the width)", lambda v: 0 <= v < 1)
    need("augment.rotate", "0 to 180 degrees", lambda v: 0 <= v <= 180)
    need("augment.scale", "0 or more (factors reach from 1/(1 + scale) to 1 + scale)", lambda v: v >= 0)
    need("augment.randaugment", "0 or more operations", lambda v: v >= 0)
    need("augment.magnitude", "0 to 30", lambda v: 0 <= v <= 30)
    need("augment.mixup", "0 or more", lambda v: v >= 0)
    need("augment.cutmix", "0 or more", lambda v: v >= 0)
    need("objective.width", "1 or more", lambda v: v >= 1)
    need("objective.depth", "1 or more blocks", lambda v: v >= 1)
    need("objective.mask", "above 0 and below 1 (a share of the patches)", lambda v: 0 < v < 1)
    need("objective.area", "above 0 and at most 1 (a share of the image)", lambda v: 0 < v <= 1)
    need("objective.colour", "0 to 1", lambda v: 0 <= v <= 1)
    need("objective.grey", "0 to 1 (a share of the views)", lambda v: 0 <= v <= 1)
    one_of("machine.precision", "auto", "float32", "bfloat16")
    one_of("machine.images", "auto", "memory", "cache", "files")
    check_machine(flat["machine.device"], flat["machine.threads"])


def check_machine(device: str, threads: int | None) -> None:
    """What training and probes both have of `machine`."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", device):
        raise UserError(f"machine.device={device}: must be auto, cpu, cuda or cuda:N")
    if threads is not None and threads < 1:
        raise UserError(f"machine.threads={threads}: must be 1 or more")


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


LIBRARIES = ("torchvision", "timm")


def check_init(settings: Mapping[str, Any]) -> None:
    """Refuses an init that is none, without looking at runs or files, but for the words of another run."""
    typed = settings["init"]
    if not typed.strip():
        raise UserError("init=: must not be empty; init=null begins from random weights")
    if is_words(typed):
        if model := next((word for word in words_of(typed) if word.startswith("model=")), None):
            raise UserError(f"init='{typed}': {model}: a run begins from one of its own model")
        return
    library, colon, name = typed.partition(":")
    if colon and (library not in LIBRARIES or not name):
        raise UserError(f"init={typed}: must be torchvision:NAME or timm:NAME")
    if not colon and re.search(r"/|\.(pth?|ckpt|bin|pkl|npz)$", typed) and not typed.endswith(".safetensors"):
        raise UserError(
            f"init={typed}: must be a run's id below runs=, or a file that ends in .safetensors (others can hold code)"
        )
