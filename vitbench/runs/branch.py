"""A branch goes on from the stable phase of another run: `init=RUN checkpoint=STEP optim.schedule=wsd optim.steps=M`.

It equals, to the bit, a run of M steps that was begun with the same decay, and costs the steps after STEP alone. RUN
has to have kept its state after STEP (`keep=[STEP]`), and differs from the branch in FREE at most.
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
COMPARED_OTHERWISE = ("optim.warmup", "optim.warmup_steps")  # by the steps that they come to


def state_of_branch(settings: Mapping[str, Any], folder: Path, record: Record) -> Path:
    """The state that a branch begins from, in the folder of its RUN; UserError where RUN can have no such branch."""
    step, name = settings["checkpoint"], record["id"]
    typed = f"'{settings['init']}'" if is_words(settings["init"]) else settings["init"]

    def refuse(why: str) -> UserError:
        return UserError(f"init={typed} checkpoint={step}: {why}")

    config = record["config"]
    if stated(record, "results_version") != RESULTS_VERSION:
        raise refuse(f"{name} is of another version of vitbench, which gives other numbers")
    if config["optim"].get("schedule") != "wsd":
        raise refuse(f"{name} has no stable phase; train it with optim.schedule=wsd")
    if config["init"] is not None and config["checkpoint"] is None:
        raise refuse(f"{name} begins from other weights itself (init={config['init']}); a branch needs a run from none")
    if key := _first_difference(settings, config):
        own, its = (typed_value(flatten(each).get(key)) for each in (settings, config))
        raise refuse(
            f"{name} has {typed_key(key)}={its} and this run {own}; a branch differs in {', '.join(FREE)} alone"
        )
    its_schedule = Schedule.of(config["optim"], record["steps"])
    schedule = Schedule.of(settings["optim"], steps_of(settings["optim"], record["train_images"]))
    if schedule.rising != its_schedule.rising:
        raise refuse(
            f"{name} warms up in {its_schedule.rising} steps and this run in {schedule.rising}; "
            f"optim.warmup_steps={its_schedule.rising} is the same for any number of steps"
        )
    for who, falls_from in ((name, its_schedule.falls_from), ("this run", schedule.falls_from)):
        if step > falls_from:
            raise refuse(f"the decay of {who} begins after step {falls_from}; a branch leaves before it")
    run = Run(folder, {})
    if step not in (kept := run.kept_states()):
        others = f"; it kept {', '.join(map(str, kept))}" if kept else ""
        raise refuse(f"{name} kept no state after this step, as keep=[{step}] does in training{others}")
    return run.kept_state(step)


def _first_difference(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """The first setting that decides numbers and in which a branch differs from its run without being free to."""
    own, its = (identity({**each, "init": None, "checkpoint": None}) for each in (settings, config))
    keys = sorted((own.keys() | its.keys()) - {*FREE, *COMPARED_OTHERWISE})
    return next((key for key in keys if own.get(key) != its.get(key)), None)
