"""A branch continues another run from its stable phase: `init=RUN checkpoint=STEP optim.schedule=wsd optim.steps=M`.

It is bit for bit the same as a run of M steps with the same decay, but it costs only the steps after STEP. RUN must
have kept its state after STEP (`keep=[STEP]`), and may differ from the branch only in the settings of FREE.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitbench.errors import UserError
from vitbench.numbers.words import typed_value
from vitbench.runs.record import Record, stated
from vitbench.runs.run import Run
from vitbench.settings.choices import typed_key
from vitbench.settings.compose import flatten
from vitbench.settings.identity import RESULTS_VERSION, identity
from vitbench.settings.overrides import is_words
from vitbench.settings.schedule import Schedule, steps_of

FREE = ("optim.steps", "optim.epochs", "optim.min_steps", "optim.decay")
COMPARED_OTHERWISE = ("optim.warmup", "optim.warmup_steps")  # these are compared by the number of steps they mean


def state_of_branch(settings: Mapping[str, Any], folder: Path, record: Record) -> Path:
    """Returns the file of the state that a branch begins from. Raises UserError where RUN can have no such branch."""
    step, name = settings["checkpoint"], record["id"]
    typed = f"'{settings['init']}'" if is_words(settings["init"]) else settings["init"]

    def refuse(why: str) -> UserError:
        return UserError(f"init={typed} checkpoint={step}: {why}")

    config = record["config"]
    if stated(record, "results_version") != RESULTS_VERSION:
        raise refuse(f"another version of vitbench trained {name}, which gives other numbers")
    if config["optim"].get("schedule") != "wsd":
        raise refuse(f"{name} has no stable phase; train it with optim.schedule=wsd")
    if config["init"] is not None and config["checkpoint"] is None:
        raise refuse(f"{name} itself has init={config['init']}; a branch needs a run that began from random weights")
    if key := _first_difference(settings, config):
        own, its = (typed_value(flatten(each).get(key)) for each in (settings, config))
        raise refuse(
            f"{name} has {typed_key(key)}={its} and this run {own}; a branch may differ only in {', '.join(FREE)}"
        )
    its_schedule = Schedule.of(config["optim"], record["steps"])
    schedule = Schedule.of(settings["optim"], steps_of(settings["optim"], record["train_images"]))
    if schedule.rising != its_schedule.rising:
        raise refuse(
            f"{name} warms up in {its_schedule.rising} steps and this run in {schedule.rising}; "
            f"type optim.warmup_steps={its_schedule.rising}, which is the same for any number of steps"
        )
    for who, falls_from in ((name, its_schedule.falls_from), ("this run", schedule.falls_from)):
        if step > falls_from:
            raise refuse(f"the decay of {who} begins after step {falls_from}; a branch must begin before it")
    run = Run(folder, {})
    if step not in (kept := run.kept_states()):
        others = f"; it kept {', '.join(map(str, kept))}" if kept else ""
        raise refuse(f"{name} kept no state after this step; train it with keep=[{step}]{others}")
    return run.kept_state(step)


def _first_difference(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """Returns the first setting that decides numbers and in which a branch differs from its run, but may not."""
    own, its = (identity({**each, "init": None, "checkpoint": None}) for each in (settings, config))
    keys = sorted((own.keys() | its.keys()) - {*FREE, *COMPARED_OTHERWISE})
    return next((key for key in keys if own.get(key) != its.get(key)), None)
