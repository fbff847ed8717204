"""The record of a run: what each field of `record.json` holds, in which unit, and what an absent field means.

A record is written once, when a run has ended: by `train` (vitbench/training/finish.py), and by `probe` for a network
that was trained elsewhere (vitbench/probing/outside.py). vitbench/runs/records.py reads it. In memory a record is the
plain dict of the JSON file; `Record` tells mypy its fields.

Seconds are wall-clock time, accuracies are shares in 0..1, and losses of classification are cross-entropies in nats,
averaged over images. None, `null` in the file, means that there is no such number. The types say what a field can hold,
and vitbench/runs/fields.py checks it where a record is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired, TypedDict, get_origin, get_type_hints

from vitbench.machine.provenance import Provenance
from vitbench.menu import FROM_0, FROM_1, Range
from vitbench.settings.choices import GROUPS, MENU_GROUPS, menu_of
from vitbench.settings.compose import flatten
from vitbench.settings.identity import defaults_of

RECORD_SCHEMA = 1  # to be raised when this version's reader could no longer understand a new record


# A type has its range and then its unit, where it has them. docs/reference/records.md is made from both and from the
# comments (tools/records_page.py).
Count = Annotated[int, Range("from 0 to 10^15", lambda value: 0 <= value <= 10**15)]
Images = Annotated[Count, "images"]
Steps = Annotated[Count, "steps"]
Amount = Annotated[int, FROM_0, "multiply-adds"]  # can be more than 10^15
Seconds = Annotated[float, FROM_0, "seconds"]
Share = Annotated[float, Range("from 0 to 1", lambda value: 0 <= value <= 1), "share of 1"]
Loss = Annotated[float, "nats, of classification"]  # other objectives have losses in their own units


class Essentials(TypedDict):
    """The fields without which a file is no record. A file, or a row of runs.csv, that lacks one is refused."""

    # the settings of the run, nested as on the command line; a network that was trained elsewhere has only a few
    config: dict[str, Any]
    status: Literal["finished", "diverged"]  # diverged: the loss, or a weight, was no longer finite
    classes: list[str]  # in the order of the network's outputs
    warnings: list[str]  # what a user should know, a line each
    steps: Steps  # optimizer steps that the settings ask for; 0 for a network that was trained elsewhere
    # what is left after validation images and the share; with data.online, where no image repeats, the images of all
    # steps; 0 for a network that was trained elsewhere
    train_images: Images
    test_images: Images  # all test images, which the run classified once
    # training steps alone, without evaluation and saving; a stacked run has the seconds of its whole stack
    train_seconds: Seconds


class Metrics(TypedDict):
    """How well the network does; all are null where the run diverged. An objective's own measures come last."""

    train_loss: NotRequired[Loss | None]  # mean over the steps since the last evaluation; absent: trained elsewhere
    val_accuracy: NotRequired[Share | None]  # null without validation images or classes; absent: trained elsewhere
    val_loss: NotRequired[Loss | None]  # null without validation images; absent: trained elsewhere
    # on up to 2,000 training images, which are evaluated as test images are; absent: old
    train_eval_accuracy: NotRequired[Share | None]
    train_eval_loss: NotRequired[Loss | None]  # on the same images; absent: old
    test_accuracy: Share | None  # null where no classes were learned
    test_loss: Loss | None  # cross-entropy in nats; null where no classes were learned
    test_balanced_accuracy: NotRequired[Share | None]  # mean of the recalls of classes with test images; absent: old
    test_top5_accuracy: NotRequired[Share | None]  # also null for fewer than six classes; absent: old
    test_calibration_error: NotRequired[Share | None]  # in 0..1 (docs/reference/metrics.md); absent: old
    # how much features differ, from 0 (collapsed) to 1; only with objective=simsiam (docs/reference/objectives.md)
    spread: NotRequired[float | None]


class Beginning(TypedDict):
    """The weights that a run began from (`init=`)."""

    source: str  # run, branch (of a run, after a step of its stable phase), file, torchvision or timm
    name: str  # the run's id, the file as it was typed, or the library's name of the network
    sha256: str  # of the file, or of the library's tensors
    interpolated: list[str]  # the tensors that were resampled to another grid of patches
    kept_parameters: Count  # how many parameters were taken from these weights
    new_parameters: Count  # how many were drawn at random


class ScannedFiles(TypedDict):
    """The files of the images, as they were when the run read them (vitbench/data/scan.py)."""

    root: str  # data.root, absolute and without links
    files: str  # a hash of their names, sizes and times


class FrozenFeatures(TypedDict):
    """How a run of `vitbench features` classifies."""

    width: int  # how many numbers the feature of an image has
    penalty: float | None  # of the linear classifier, chosen on validation images; null for nearest neighbours
    neighbours: int | None  # how many vote, chosen on validation images; null for a linear classifier


class Record(Essentials, Metrics, Provenance):
    """All fields of a record, with those of `Essentials`, `Metrics` and `Provenance` (hardware and versions)."""

    schema: int  # the RECORD_SCHEMA of the vitbench that wrote it
    results_version: NotRequired[int]  # the RESULTS_VERSION of that vitbench; absent in the first records
    id: str  # the name of the run's folder
    image_size: Annotated[int, FROM_1, "pixels"]  # the side of an image
    channels: int  # of an image: 1 or 3
    val_images: Images  # set aside from the training images before the share is taken
    mean: list[float]  # of each channel of the training images, in 0..1; the network takes (image - mean) / std
    std: list[float]  # the standard deviation of each channel of the training images
    data_fingerprint: str  # a hash of the images and labels of the whole data set
    scan: NotRequired[ScannedFiles]  # absent: images are drawn, no file of the public set was there, or old
    parameters: Count  # numbers of the network that training can change; all, for a network that was trained elsewhere
    multiply_adds: NotRequired[Amount]  # of one forward of one image; absent: trained elsewhere
    teacher_run: NotRequired[str | None]  # the teacher's id; absent: trained elsewhere, or before there were teachers
    # train_seconds together with those of the runs that it needed; null: unknown; absent: old (vitbench/runs/costs.py)
    total_train_seconds: NotRequired[Seconds | None]
    total_samples_seen: NotRequired[Images | None]  # an image counts as often as it was seen; null and absent as above
    total_multiply_adds: NotRequired[Amount | None]  # of all training; null and absent as above
    # the part of train_seconds that the first step took; absent: nothing was compiled
    compile_seconds: NotRequired[Seconds]
    # speed of training; null where the run diverged or the network was trained elsewhere
    images_per_second: Annotated[float, FROM_0, "images/s"] | None
    diverged_step: Steps | None  # the first step whose loss was not finite; null where the run finished
    created: str  # when the record was written, UTC: 2026-01-31T12:00:00Z
    commit: str | None  # of the code, with a plus where files differed from it; null where vitbench was installed
    features: NotRequired[FrozenFeatures]  # absent: the network was trained by steps, or elsewhere
    init: NotRequired[Beginning]  # absent: the weights were drawn at random
    files: NotRequired[dict[str, str]]  # the SHA-256 of each file of the run, by its name; absent: old
    sha256: NotRequired[str]  # of all other fields (vitbench/machine/seal.py); absent: old


# -------------------------------------------------------------------------------------------- what reading requires


def _checked_type(hint: Any) -> Any:
    """Returns what `isinstance` can check of a field's type. JSON may write a float without a point."""
    if get_origin(hint) is Literal:
        return str
    return int | float if hint is float else get_origin(hint) or hint


REQUIRED_FIELDS = {name: _checked_type(hint) for name, hint in get_type_hints(Essentials).items()}


# --------------------------------------------------------------------------------------- what an absent field means

# The keys are the fields' places in a flat record, which are also the names of their columns in tables. New records
# also lack `processes` and `stacked` where they are 1, and `graph` where there was none.
ABSENT = {"results_version": 1, "hardware.processes": 1, "hardware.stacked": 1, "hardware.graph": False}


def stated(flat: Mapping[str, Any], field: str) -> Any:
    """Returns a field of a flat record or of a row; where the field is absent, returns what its absence means."""
    return flat.get(field, ABSENT.get(field))


def default_settings(model: str | None, pe: str | None, data: str | None, objective: str | None) -> dict[str, Any]:
    """Returns the value of each setting for a run with these choices that does not state it, because it came later.

    The options of a choice that is no longer on its menu are not known.
    """
    members = {"model": model, "pe": pe, "data": data, "objective": objective or GROUPS["objective"].implied}
    known = {name: member if member in menu_of(name) else None for name, member in members.items()}
    return defaults_of(**known)


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record's settings by their keys (`data.fraction`), without the machine's, which decide no number.

    Settings that came after the record was written have their defaults. A network that was trained elsewhere has only
    its own few settings.
    """
    flat = flatten(config)
    if "optim" in config:
        choices = {name: flat.get(GROUPS[name].name_key) for name in MENU_GROUPS}
        flat = default_settings(**choices) | flat
    return {key: value for key, value in flat.items() if not key.startswith("machine.")}


def total_seconds(results: Mapping[str, Any], settings: Mapping[str, Any]) -> float | None:
    """Returns the seconds of training of a run and of the runs that it needed; None where they are not known.

    `results` is a record or a row of a table. Where it lacks the total and the run needed no other run, the total is
    the run's own seconds.
    """
    needs_no_other = settings.get("init") is None and settings.get("teacher") is None
    own: float | None = results.get("train_seconds") if needs_no_other else None
    total: float | None = results.get("total_train_seconds", own)
    return total
