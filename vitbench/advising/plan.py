"""Plans what fits into the minutes: image size, steps, shares of the images and seeds. The plan is a study file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitbench.numbers.words import listed, plural, spoken, typed_value
from vitbench.settings.compose import read_yaml
from vitbench.settings.typed_text import in_quotes

IMAGE_SIZES = (128, 96, 64, 48, 32)
BATCH = 64
SHARES = (1.0, 0.3333, 0.1111)
FEWEST_OF_A_CLASS = 3  # every class has at least so many training images in the smallest share
MOST_SEEDS = 3
PASSES, MOST_PASSES = 10, 60  # a run passes at least and at most so often over all training images
OF_PRETRAINED = 5  # so many passes are enough for a network that was trained before
# The fewest steps of any run; then the lower and upper bound of the steps that are enough, and of those that are most.
FEWEST_STEPS, ENOUGH_STEPS, MOST_STEPS = 10, (150, 2000), (400, 10_000)
EVALUATIONS = 10  # a run evaluates so often; an image then takes a third of the time that it takes in training
BESIDE = 1.3  # a step takes so many times as long while other runs train on the other cores
A_RUN, THE_STUDY = 2.0, 15.0  # seconds until a run has begun, and until the first one has


@dataclass(frozen=True)
class Arm:
    """A network that is tried."""

    name: str
    words: str  # the settings of its runs, as they are typed
    image_seconds: float  # seconds of training on one image, on one core
    pretrained: bool = False


@dataclass(frozen=True)
class Photographs:
    """How many images there are, as the folder lists them."""

    train: int  # without the validation images
    validation: int
    test: int
    smallest_class: int  # training images of the smallest class
    classes: int
    side: int  # the median of the shorter sides, in pixels


@dataclass(frozen=True)
class Plan:
    image_size: int
    steps: int
    pretrained_steps: int
    shares: tuple[float, ...]
    seeds: int
    arms: tuple[Arm, ...]
    seconds: float
    at_once: int
    left_out: tuple[str, ...] = ()
    photographs: Photographs = field(repr=False, default=Photographs(0, 0, 0, 0, 0, 0))

    @property
    def runs(self) -> int:
        return sum(self.seeds * (1 if arm.pretrained else len(self.shares)) for arm in self.arms)

    def sizes(self) -> list[int]:
        return [round(share * self.photographs.train) for share in self.shares]


def shares_of(photographs: Photographs) -> tuple[float, ...]:
    """Returns those nested shares in which every class keeps a few images."""
    return tuple(share for share in SHARES if share == 1 or share * photographs.smallest_class >= FEWEST_OF_A_CLASS)


def choose(
    seconds: float,
    at_once: int,
    photographs: Photographs,
    arms_at: Callable[[int], Sequence[Arm]],
    image_sizes: Sequence[int] | None = None,
    steps: int | None = None,
) -> Plan:
    """Returns the richest plan that fits into `seconds`.

    Where not everything fits, it gives up in this order: larger images, shares of the images, seeds, and at last
    pretrained networks. `arms_at` measures the networks on images of a size. Without `image_sizes` it tries those of
    IMAGE_SIZES that are not larger than the photographs, and without `steps` it takes as many as fit. The plan names
    what was left out, the most important first.
    """
    all_shares = shares_of(photographs)
    curve = len(all_shares) == len(SHARES)  # fewer shares are too few for a learning curve
    designs = [(all_shares, MOST_SEEDS)] if curve else []
    designs += [(SHARES[:1], seeds) for seeds in range(MOST_SEEDS, 0, -1)]
    image_sizes = image_sizes or [size for size in IMAGE_SIZES if size <= max(photographs.side, IMAGE_SIZES[-1])]
    least, most = (
        steps or min(max(math.ceil(passes * photographs.train / BATCH), bounds[0]), bounds[1])
        for passes, bounds in ((PASSES, ENOUGH_STEPS), (MOST_PASSES, MOST_STEPS))
    )
    for without_pretrained in (False, True):
        for shares, seeds in designs:
            for size in image_sizes:
                arms = [arm for arm in arms_at(size) if not (arm.pretrained and without_pretrained)]
                fitting = _steps_in(seconds, at_once, photographs, arms, shares, seeds)
                if fitting >= least:
                    had = min(fitting, most)
                    return _plan(had, size, shares, seeds, arms, at_once, photographs, without_pretrained)
        if not any(arm.pretrained for arm in arms_at(image_sizes[-1])):
            break
    cheapest = min(image_sizes, key=lambda size: sum(arm.image_seconds for arm in arms_at(size) if not arm.pretrained))
    arms = [arm for arm in arms_at(cheapest) if not arm.pretrained]
    steps = steps or max(_steps_in(seconds, at_once, photographs, arms, SHARES[:1], 1), FEWEST_STEPS)
    had_pretrained = len(arms) < len(arms_at(cheapest))
    return _plan(steps, cheapest, SHARES[:1], 1, arms, at_once, photographs, had_pretrained, least)


def _plan(
    steps: int,
    image_size: int,
    shares: tuple[float, ...],
    seeds: int,
    arms: Sequence[Arm],
    at_once: int,
    photographs: Photographs,
    without_pretrained: bool,
    needed_steps: int = 0,
) -> Plan:
    left_out = []
    if needed_steps > steps:
        left_out.append(f"enough training: runs get {steps:,} steps, and these images need {needed_steps:,} at least")
    if seeds < MOST_SEEDS:
        why = (
            "one training of each network cannot tell the better one from the lucky one"
            if seeds == 1
            else "two trainings of each network are too few for a certain answer"
        )
        left_out.append(f"{MOST_SEEDS - seeds} of {MOST_SEEDS} seeds; {why}")
    if without_pretrained:
        left_out.append("the pretrained networks, whose runs do not fit into the minutes")
    if len(shares) < len(SHARES):
        few = len(shares_of(photographs)) < len(SHARES)
        only = f"a class has only {plural(photographs.smallest_class, 'training image')}"
        why = only if few else "there are too few minutes"
        left_out.append(f"smaller shares of the images ({why}), so these runs cannot tell what more images would bring")
    seconds = _seconds(steps, at_once, photographs, arms, shares, seeds)
    pretrained = _pretrained_steps(steps, photographs)
    made = tuple(arms)
    return Plan(image_size, steps, pretrained, shares, seeds, made, seconds, at_once, tuple(left_out), photographs)


def _pretrained_steps(steps: int, photographs: Photographs) -> int:
    return min(steps, min(max(math.ceil(OF_PRETRAINED * photographs.train / BATCH), 50), 500))


def _steps_in(
    seconds: float, at_once: int, photographs: Photographs, arms: Sequence[Arm], shares: Sequence[float], seeds: int
) -> int:
    """Returns the largest number of steps that all runs can have in this time, 0 where none fits."""
    low, high = 0, MOST_STEPS[1]
    while low < high:  # the time grows with the steps
        middle = (low + high + 1) // 2
        fits = _seconds(middle, at_once, photographs, arms, shares, seeds) <= seconds
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _seconds(
    steps: int, at_once: int, photographs: Photographs, arms: Sequence[Arm], shares: Sequence[float], seeds: int
) -> float:
    """Estimates how many seconds all runs take, with `at_once` of them side by side."""
    evaluated = EVALUATIONS * photographs.validation + photographs.test + min(2000, photographs.train)
    total, longest = 0.0, 0.0
    for arm in arms:
        own = _pretrained_steps(steps, photographs) if arm.pretrained else steps
        run = (own * BATCH + evaluated / 3) * arm.image_seconds * (BESIDE if at_once > 1 else 1) + A_RUN
        total += run * seeds * (1 if arm.pretrained else len(shares))
        longest = max(longest, run)
    return max(total / at_once, longest) + THE_STUDY


# ------------------------------------------------------------------------------------------------------------ in words


def plan_lines(plan: Plan, minutes: float, costs: tuple[int, int]) -> list[str]:
    """Says what will be done, and how long it takes. `costs` are the multiply-adds of the ViT and the ResNet."""
    photographs = plan.photographs
    scratch = [arm.name for arm in plan.arms if not arm.pretrained]
    pretrained = [arm.name for arm in plan.arms if arm.pretrained]
    passes = plan.steps * BATCH / photographs.train
    sizes = listed(f"{n:,}" for n in plan.sizes())
    million = " and ".join(f"{cost / 1e6:.1f} M" for cost in costs)
    lines = [
        f"the plan takes about {spoken(plan.seconds)}, as measured on this machine, for minutes={minutes:g}:",
        f"  {listed(scratch)} from scratch, of about equal cost ({million} multiply-adds for an image), on {sizes}"
        " training images",
    ]
    if pretrained:
        lines.append(f"  {listed(pretrained)}, on {plan.sizes()[0]:,} images, {plan.pretrained_steps:,} steps")
    lines.append(f"  {photographs.validation:,} other images for validation, and {photographs.test:,} for the test")
    lines.append(
        f"  {plural(plan.runs, 'run')}, {plan.at_once} at a time: {plural(plan.seeds, 'seed')} (trainings of each"
        f" network with other random starts), images of {plan.image_size} px, {plan.steps:,} steps"
        f" ({_digits(passes)} passes over all images)"
    )
    return lines + [f"  left out: {line}" for line in plan.left_out]


def _digits(passes: float) -> str:
    return f"{passes:.0f}" if passes >= 2 else f"{passes:.1f}"


# ------------------------------------------------------------------------------------------------------- a study file


def study_text(plan: Plan, name: str, data: Sequence[str], command: str, minutes: float) -> str:
    """Writes the plan as a study file that a person can read and change. The most important runs come first."""
    common = [*data, f"data.image_size={plan.image_size}", "augment=light", f"optim.batch_size={BATCH}"]
    content: dict[str, Any] = {
        "title": f"Advice on {name}",
        "question": "Which network suits these photographs, and what would more images, time or pretraining bring?",
        "notes": f"Small networks and short runs, planned for minutes={minutes:g}. None of their settings was tuned on"
        " these images.",
        "with": " ".join(common),
        "runs": [*_lines(plan)],
        "tables": {"accuracy": {"value": "test_accuracy", "columns": "train_images"}},
    }
    return _as_yaml(content, command)


def study_with(plan: Plan, path: Path, minutes: float) -> str:
    """Returns the text of the study file at `path`, with the runs of a richer plan added behind its own."""
    content = read_yaml(path)
    content["runs"] += [line for line in _lines(plan) if line not in content["runs"]]
    content["notes"] = re.sub(r"minutes=[0-9.]*[0-9]", f"minutes={minutes:g}", content["notes"])
    return _as_yaml(content, "vitbench advise")


def _as_yaml(content: Mapping[str, Any], command: str) -> str:
    import yaml

    header = f"# Written by `{command}`, which continues with this plan as long as the file is here.\n"
    return header + yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=118)


def _lines(plan: Plan) -> Iterator[str]:
    def line(arm: Arm, share: float, seeds: str) -> str:
        steps = plan.pretrained_steps if arm.pretrained else plan.steps
        return f"{arm.words} optim.steps={steps} data.fraction={share:g} seed={seeds}"

    for seed in range(plan.seeds):
        for arm in plan.arms:
            yield line(arm, 1, str(seed))
    for share in plan.shares[1:]:
        for arm in plan.arms:
            if not arm.pretrained:
                yield line(arm, share, ",".join(map(str, range(plan.seeds))))


def setting_word(key: str, value: Any) -> str:
    """Writes a setting as a study file has it: text with other characters than plain ones stands in quotes."""
    typed = typed_value(value)
    if isinstance(value, str) and not re.fullmatch(r"[\w./-]*[A-Za-z_/][\w./-]*", typed):
        typed = in_quotes(typed)
    return f"{key}={typed}"
