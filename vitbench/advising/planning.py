"""Makes the plan for a folder: counts its images, measures the networks, and extends a plan that is there."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.advising.asked import Asked, command_again
from vitbench.advising.plan import Photographs, Plan, choose, plan_lines, study_text, study_with
from vitbench.errors import UserError
from vitbench.inspect import Inspected
from vitbench.numbers.words import typed_value
from vitbench.runs.images import done
from vitbench.runs.run import Run
from vitbench.settings.command_schemas import CHOSEN_BY_ADVISE
from vitbench.settings.named_networks import NamedNetwork
from vitbench.settings.schema import FolderConfig


def photographs_in(inspected: Inspected, data: dict[str, Any]) -> Photographs:
    """Counts by the names of the files how many images there will be for training, validation and test."""
    images, names = inspected.images, sorted({*inspected.images.classes})
    chosen = names if data["classes"] is None else [names[k] for k in data["classes"] if k < len(names)]
    listed = [each for each in zip(images.classes, images.splits, strict=True) if each[0] in chosen]
    of_test = [bool(split) and not split.startswith("train") for _, split in listed]
    train = Counter(label for (label, _), is_test in zip(listed, of_test, strict=True) if not is_test)
    test, learning = sum(of_test), 1.0
    if not test:
        learning = 1 - data["test_fraction"]
        test = round(data["test_fraction"] * len(listed))
    left = learning * sum(train.values())
    share = learning * (1 - FolderConfig.val_fraction)
    sides = sorted(min(images.facts[i].width, images.facts[i].height) for i in images.whole.tolist())
    return Photographs(
        max(1, round(share * sum(train.values()))),
        round(FolderConfig.val_fraction * left),
        test,
        math.floor(share * min(train.values(), default=0)),
        len(train),
        sides[len(sides) // 2] if sides else 0,
    )


class Planned(NamedTuple):
    text: str  # the text of the study file
    lines: list[str]  # the lines that say what is planned
    image_size: int


def planned(asked: Asked, inspected: Inspected, old: OldPlan | None = None) -> Planned:
    """Measures the networks and plans what fits into the minutes. An old plan keeps its image size and steps."""
    from vitbench.advising.doing import launcher_of
    from vitbench.advising.measure import Arm, measured, scratch_arms, scratch_costs
    from vitbench.advising.pretrained import read_models, run_words, tuning_rate, usual, why_no_images, why_no_weights

    photographs, memory = photographs_in(inspected, asked.data), Path(asked.data["cache"])
    models = usual() if asked.models is None else read_models(asked.models)
    common = [*asked.words, f"machine.device={asked.machine['device']}"]
    weights: dict[NamedNetwork, str | None] = {}  # why the weights cannot be had; None: they can
    refused: dict[tuple[NamedNetwork, int], str] = {}  # why a network takes no images of a size

    @cache
    def arms_at(image_size: int) -> tuple[Arm, ...]:
        arms = scratch_arms(image_size, common, memory)
        for one in models:
            if why := why_no_images(one, image_size, photographs.classes):
                refused[one, image_size] = why
                continue
            if one not in weights:
                weights[one] = why_no_weights(one, image_size, photographs.classes)
            if weights[one]:
                continue
            seconds = measured(f"model={one.library} model.arch={one.name}", image_size, common)
            words, called = run_words(one), f"{one.name} pretrained"
            arms.append(Arm(f"{called}, only its last layer", f"{words} freeze=backbone", seconds, True))
            arms.append(Arm(f"{called}, fine-tuned", f"{words} optim.lr={tuning_rate(one):g}", seconds, True))
        return tuple(arms)

    _, at_once = launcher_of(asked.machine["device"])
    size = old.image_size if old else asked.data["image_size"]
    plan: Plan = choose(
        60 * asked.minutes, at_once, photographs, arms_at, [size] if size else None, old.steps if old else None
    )
    lines = plan_lines(plan, asked.minutes, scratch_costs(plan.image_size, memory)[1:])
    for one in models:
        if why := weights.get(one) or refused.get((one, plan.image_size)):
            lines.append(f"  not tried: {one.name} pretrained, {why}")
    if asked.models is None and not models:
        lines.append(
            "  not tried: pretrained networks; none is on this computer, and models=[timm:convnext_atto] downloads one"
        )
    if old:
        text = study_with(plan, asked.study, asked.minutes)
    else:
        text = study_text(plan, asked.name, asked.words, command_again(), asked.minutes)
    return Planned(text, lines, plan.image_size)


class OldPlan(NamedTuple):
    """What the study file that is there says."""

    image_size: int
    steps: int
    minutes: float  # for so many minutes it was planned, by its notes; infinite where they name none
    is_done: bool
    lacks_models: bool  # whether it lacks any of the networks that are typed now


def old_plan(asked: Asked) -> OldPlan:
    """Reads the plan in the study file. Raises UserError where it is about other images."""
    from vitbench.advising.pretrained import read_models, run_words
    from vitbench.runs.plan import plan
    from vitbench.runs.study import load_study

    models = [] if asked.models is None else read_models(asked.models)
    study = load_study(str(asked.study))
    planned = plan(study, asked.sweep_words)
    settings = planned[0].settings
    own = {**asked.data, "root": str(Path(asked.data["root"]).absolute())}
    for key in (field.name for field in fields(FolderConfig)):
        theirs = settings["data"][key]
        may_differ = key in ("source", "cache", "image_size") or f"data.{key}" in CHOSEN_BY_ADVISE
        if not may_differ and theirs != own[key]:
            raise UserError(
                f"data.{key}={typed_value(own[key])}: the plan in {asked.study} has {typed_value(theirs)}; type"
                " data.name=NEW to begin another plan"
            )
    size, typed = settings["data"]["image_size"], asked.data["image_size"]
    if typed not in (None, size):
        raise UserError(
            f"data.image_size={typed}: the plan in {asked.study} has {size}; type another out=, or remove that file"
        )
    noted = re.search(r"minutes=([0-9.]*[0-9])", study.notes)
    return OldPlan(
        int(size),
        settings["optim"]["steps"],
        float(noted[1]) if noted else math.inf,
        all(done(Run(Path(asked.runs).expanduser() / one.id, one.settings)) for one in planned),
        any(run_words(one) not in " ".join(study.runs) for one in models),
    )
