"""How the runs of a study are, read from their folders, and how long what is missing would take."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitbench.machine.provenance import cores
from vitbench.runs.plan import Planned
from vitbench.runs.records import loss_of
from vitbench.runs.run import Run, read_metrics
from vitbench.sweeping.estimate import Estimate, spoken, total
from vitbench.sweeping.launch import IN_PROCESS
from vitbench.sweeping.slurm import processes

LONG = 60  # runs that a terminal is shown one by one


def ended(run: Run) -> str | None:
    record = run.record()
    if record is not None:
        if record["status"] == "diverged":
            return f"{run.id}: diverged"
        accuracy = record["test_accuracy"]  # None where no classes were learned
        result = f"{100 * accuracy:.1f} %" if accuracy is not None else loss_of(record)
        return f"{run.id}: {result}, {record['train_seconds']:.0f} s"
    why = run.failure()
    return f"{run.id}: failed, {why}" if why else None


def share_done(one: Planned, run: Run) -> float:
    """How much of a run is done, 0 to 1, by the last line of its metrics.csv."""
    rows, optim = read_metrics(run.folder), one.settings["optim"]
    if not rows:
        return 0.0
    done = int(rows[-1]["step"]) / optim["steps"] if optim["steps"] else float(rows[-1]["epoch"]) / optim["epochs"]
    return min(1.0, done)


def state(one: Planned, run: Run, todo: bool, job: str | None) -> str:
    """One word, and what there is to know beside it."""
    record = run.record()
    if record is not None:
        return str(record["status"])
    if (why := run.failure()) and not todo:
        return f"failed: {why}"
    if holder := run.held():
        return f"running, {share_done(one, run):.0%}: {holder}"
    if job is not None:
        return f"queued: job {job}"
    if run.states():
        return f"begun, {share_done(one, run):.0%}"
    return "missing"


def print_plan(planned: list[Planned], runs: Mapping[str, Run], todo: set[str], queued: Mapping[str, str]) -> None:
    """Each run with its state, and how many there are of each; in a terminal a long list is left to a pipe."""
    states = {one.id: state(one, runs[one.id], one.id in todo, queued.get(one.id)) for one in planned}
    whole = len(planned) <= LONG or not sys.stdout.isatty()
    for name, line in states.items():
        if whole or line.startswith("failed"):
            print(f"{name}  {line}")
    if not whole:
        print("the runs one by one: the same command with `| less`")
    words = [line.partition(":")[0].partition(",")[0] for line in states.values()]
    counts = Counter(words)
    known = ("finished", "failed", "diverged", "running", "queued", "begun", "missing")
    shown = [f"{counts[word]} {word}" for word in known if counts[word] or word in ("finished", "failed", "missing")]
    print(f"{len(planned)} runs, {len(todo)} to do: {', '.join(shown)}")


def expected(config: Any, launcher: str, todo: list[tuple[Mapping[str, Any], float]]) -> str:
    """A sentence: the time that runs (settings, share already done) would take with this launcher."""
    if not todo:
        return "nothing to do"
    options, threads = config.hydra.launcher, config.machine.threads
    at_once = {
        "basic": lambda: 1,
        "submitit_local": lambda: processes(options),
        "submitit_slurm": lambda: options.array_parallelism,
    }.get(launcher, lambda: options.get("n_jobs") or 1)()
    at_once = min(len(todo), at_once if at_once > 0 else cores())
    runs = Path(config.runs).expanduser()
    estimate = Estimate(
        runs,
        threads or (None if launcher in IN_PROCESS else 1),
        anywhere=launcher == "submitit_slurm",
        stacked=launcher == "stacked",
    )
    each = [(estimate.seconds(settings), settings, done) for settings, done in todo]
    known = [seconds * (1 - done) for seconds, _, done in each if seconds is not None]
    unknown = sorted({_named(settings) for seconds, settings, _ in each if seconds is None})
    few = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
    if not known:
        return f"no estimate: no recorded run of {few} in {runs}" + (
            "" if launcher == "submitit_slurm" else " on this hardware"
        )
    how = "stacked" if launcher == "stacked" else f"{at_once} at a time"
    line = f"about {spoken(total(known, at_once))} of training, {how}, by the runs recorded in {runs}"
    return line + (f"; {len(each) - len(known)} runs not counted: none recorded of {few}" if unknown else "")


def _named(settings: Mapping[str, Any]) -> str:
    model, pe = settings["model"], settings["model"].get("pe")
    return " ".join([model["name"], *([pe["name"]] if pe else []), str(model.get("size") or "")]).strip()
