"""Says how far the runs of a study are, as read from their folders, and how long the missing runs would take."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from vitbench.machine.provenance import cores
from vitbench.numbers.words import HOUR, plural, spoken
from vitbench.runs.records import result_of
from vitbench.runs.run import Run, read_metrics
from vitbench.runs.standing import steps_by
from vitbench.sweeping import gpus
from vitbench.sweeping.estimate import Estimate, image_size_of, total
from vitbench.sweeping.launch import IN_PROCESS
from vitbench.sweeping.slurm import processes

STATES = ("finished", "evidence", "failed", "diverged", "changed", "running", "queued", "begun", "missing")
MEASURING = 30  # steps of networks without a recorded run are measured for at most so many seconds
LONG = 60  # a terminal shows at most so many runs one by one


def ended(run: Run) -> str | None:
    """Says in a line how the run ended; None while it has not."""
    record = run.record()
    if record is not None:
        if record["status"] == "diverged":
            return f"{run.id}: diverged"
        return f"{run.id}: {result_of(record)}, {record['train_seconds']:.0f} s"
    why = run.failure()
    return f"{run.id}: failed, {why}" if why else None


def share_done(run: Run) -> float:
    """Returns how much of a run is done, 0 to 1, by the last line of its metrics.csv."""
    rows = read_metrics(run.folder)
    steps = steps_by(run.settings["optim"], rows)
    return min(1.0, int(rows[-1]["step"]) / steps) if rows and steps else 0.0


def state(run: Run, todo: bool, job: str | None) -> str:
    """Returns the state of a run: one of STATES, followed by what else is known."""
    record = run.record()
    if record is not None:
        return "changed: the images have changed since it ended" if todo else str(record["status"])
    if (why := run.failure()) and not todo:
        return f"failed: {why}"
    if holder := run.held():
        return f"running, {share_done(run):.0%}: {holder}"
    if job is not None:
        return f"queued: job {job}"
    if run.states():
        return f"begun, {share_done(run):.0%}"
    return "missing"


def print_plan(
    runs: Mapping[str, Run],
    todo: set[str],
    queued: Mapping[str, str],
    known: Mapping[str, str],
    certified: Mapping[str, str],
) -> None:
    """Prints each run with its state, then the number of runs in each state. On a terminal, a long list is left out.

    `known` holds the states of runs that have ended. `certified` maps the id of each certificate (a run that repeats
    another one with more samples) to the id of the run that it repeats.
    """
    states = {
        run_id: known.get(run_id) or state(run, run_id in todo, queued.get(run_id)) for run_id, run in runs.items()
    }
    prints_all = len(runs) <= LONG or not sys.stdout.isatty()
    for run_id, line in states.items():
        if prints_all or line.startswith("failed"):
            of = f"  (certificate of {certified[run_id]})" if run_id in certified else ""
            print(f"{run_id}  {line}{of}")
    if not prints_all:
        print("type the same command with `| less` to see the runs one by one")
    counts = Counter(line.partition(":")[0].partition(",")[0] for line in states.values())
    shown = [f"{counts[word]} {word}" for word in STATES if counts[word] or word in ("finished", "failed", "missing")]
    some = f" ({len(certified)} of them certificates)" if certified else ""
    print(f"{len(runs)} runs{some}, {len(todo)} to do: {', '.join(shown)}")


def expected(
    config: Any,
    launcher: str,
    todo: Collection[Run],
    source_images: Mapping[str, int | None],
    say: Callable[[str], None],
) -> str:
    """Says how long the rest of these runs would take with this launcher and, if it is long, how to make it shorter.

    `source_images` has, by the run's id, the number of training images of its source. `say` is told what is measured.
    """
    if not todo:
        return "nothing to do"
    options, threads = config.hydra.launcher, config.machine.threads
    at_once = {
        "basic": lambda: 1,
        "gpus": lambda: gpus.at_once(options, (run.settings["machine"]["device"] for run in todo)),
        "submitit_local": lambda: processes(options),
        "submitit_slurm": lambda: options.array_parallelism,
    }.get(launcher, lambda: options.get("n_jobs") or 1)()
    at_once = min(len(todo), at_once if at_once > 0 else cores())
    runs, here = Path(config.runs).expanduser(), launcher != "submitit_slurm"
    estimate = Estimate(
        runs, threads or (None if launcher in IN_PROCESS else 1), anywhere=not here, stacked=launcher == "stacked"
    )
    for run in todo:
        estimate.count_images(run.settings, source_images.get(run.id))
    measured = 0
    if here and (kinds := estimate.unmeasured(run.settings for run in todo)):
        networks = plural(len(kinds), "network")
        say(f"{networks} without a recorded run: measuring how long a step takes (at most {MEASURING} s)")
        measured = estimate.measure(kinds, MEASURING)
    estimates = [(run, estimate.seconds(run.settings)) for run in todo]
    left = [seconds * (1 - share_done(run)) for run, seconds in estimates if seconds is not None]
    unknown = sorted({_kind(run.settings) for run, seconds in estimates if seconds is None})
    some = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
    if not left:
        return f"the time is not known: {runs} has no recorded run of {some}{' on this hardware' if here else ''}"
    how = "stacked" if launcher == "stacked" else f"{at_once} at a time"
    sources = [f"the runs recorded in {runs}"] if estimate.has_records else []
    sources += [f"a measured step of {plural(measured, 'network')}"] if measured else []
    in_all = total(left, at_once)
    line = f"about {spoken(in_all)} of training, {how}, by {' and '.join(sources)}"
    line += f"; {len(estimates) - len(left)} runs are not counted: no run of {some} is recorded" if unknown else ""
    longest = max((each for each in estimates if each[1]), key=lambda each: each[1] or 0)[0].settings
    if not here or in_all <= HOUR or estimate.device(longest) != "cpu":
        return line
    from vitbench.training.forecast import shorter

    return f"{line}\n{shorter(longest, image_size_of(longest), None)}"


def _kind(settings: Mapping[str, Any]) -> str:
    """Returns what the estimate calls a network: vit rope nano."""
    model, pe = settings["model"], settings["model"].get("pe")
    words = [model["name"], pe and pe["name"], model.get("size") or model.get("arch")]
    return " ".join(word for word in words if word)
