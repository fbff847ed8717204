"""The runs of a study that are missing, through a Hydra launcher. Repeating the command goes on where it ended."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vitbench.check import check
from vitbench.config import SWEEP_KEYS, plain
from vitbench.data.menu import forget, open_dataset
from vitbench.errors import RunFailed, TryAgain, UserError, did_you_mean
from vitbench.launch import POLL_SECONDS, Hand, in_process, launch, through
from vitbench.progress import Progress, progress
from vitbench.run import Run, read_metrics, run_folders
from vitbench.study import Planned, load, names, plan, remember
from vitbench.train import one_run

SHARE_KEYS = ("name", "fraction", "count", "subset_seed", "val_fraction", "flip")  # choose among the images of a set


def main(config: Any) -> int:
    """What a launcher does for each run."""
    return work(check(plain(config)))


def work(settings: dict[str, Any]) -> int:
    """A run, unless it failed in another sweep since this one began."""
    return 1 if _failure(Run.of(settings)) else one_run(settings, in_sweep=True)


def sweep(config: Any, arguments: list[str], launcher: Any) -> None:
    """Plans the study, launches what is missing, and says how every run ended; raises RunFailed unless all are well."""
    if config.study is None:
        raise UserError(f"study=NAME is missing; {did_you_mean('', names())}")
    study = load(config.study)
    typed = [word for word in arguments if word.partition("=")[0] not in SWEEP_KEYS]
    planned = plan(study, typed, config.confirm)
    runs = {one.id: Run.of(one.settings) for one in planned}
    todo = [
        one for one in planned if runs[one.id].record() is None and (config.retry_failed or not _failure(runs[one.id]))
    ]
    if config.dry_run:
        _print_plan(planned, runs, todo)
        return
    remember(study, planned, Path(config.runs).expanduser(), typed)
    _warn_of_other_images(planned, runs)
    for one in todo:
        (runs[one.id].folder / "failure.json").unlink(missing_ok=True)  # it is tried again
    errors: dict[str, str] = {}
    if todo:
        forget()
        _decode(todo, config.machine.progress)
        with progress(study.title, len(todo), "runs", config.machine.progress) as display:
            display.say(f"{study.title}: {len(planned)} runs, {len(planned) - len(todo)} of them done before")
            with _watch([(one, runs[one.id]) for one in todo], display):
                errors = launch(_hand(config, launcher, todo), {one.id: runs[one.id] for one in todo}, _ended, display.say)  # fmt: skip
    _conclude(runs, errors)


def _hand(config: Any, launcher: Any, todo: list[Planned]) -> Hand:
    """How the runs are done: here for Hydra's basic launcher, else by the one that was chosen."""
    if config.hydra.runtime.choices["hydra/launcher"] == "basic":
        quiet = {one.id: one.settings | {"machine": one.settings["machine"] | {"progress": False}} for one in todo}
        return in_process(work, quiet)
    handed_on = [f"study={config.study}", "machine.progress=false"]
    if config.machine.threads is None:
        handed_on.append("machine.threads=1")
    jobs = {one.id: [w for w in one.overrides if not w.startswith("machine.progress=")] + handed_on for one in todo}
    return through(launcher, jobs)


def _decode(todo: list[Planned], show: bool | None) -> None:
    """Opens each set of images once, so that it is decoded here, with all cores and a progress bar, and not in a run.

    What is wrong with one is left to its runs to tell: the others go on.
    """
    opened = set()
    for one in todo:
        data = {key: value for key, value in one.settings["data"].items() if key not in SHARE_KEYS}
        if (key := json.dumps(data)) not in opened:
            opened.add(key)
            with suppress(UserError):
                open_dataset(**data, progress=show is not False)


def _failure(run: Run) -> str | None:
    """Why a run failed, where it did."""
    try:
        return str(json.loads((run.folder / "failure.json").read_text())["error"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return "unreadable failure.json"


def _share_done(one: Planned, run: Run) -> float:
    """How much of a run is done, 0 to 1, by the last line of its metrics.csv."""
    rows, optim = read_metrics(run.folder), one.settings["optim"]
    if not rows:
        return 0.0
    done = int(rows[-1]["step"]) / optim["steps"] if optim["steps"] else float(rows[-1]["epoch"]) / optim["epochs"]
    return min(1.0, done)


def _warn_of_other_images(planned: list[Planned], runs: dict[str, Run]) -> None:
    """The folder of the images is no part of a run's identity, their name is."""
    for one in planned:
        record, asked = runs[one.id].record(), one.settings["data"]
        if record and asked["source"] != "shapes" and record["config"]["data"]["root"] != asked["root"]:
            print(f"warning: finished runs on data.name={asked['name']} read data.root={record['config']['data']['root']}, "
                  f"not {asked['root']}; set data.name to tell two sets of images apart", file=sys.stderr)  # fmt: skip
            return


def _print_plan(planned: list[Planned], runs: dict[str, Run], todo: list[Planned]) -> None:
    missing = {one.id for one in todo}
    for one in planned:
        record = runs[one.id].record()
        state = record["status"] if record else "missing" if one.id in missing else f"failed: {_failure(runs[one.id])}"
        print(f"{one.id}  {state}")
    print(f"{len(planned)} runs, {len(todo)} to do")


@contextmanager
def _watch(todo: list[tuple[Planned, Run]], display: Progress) -> Iterator[None]:
    """Reads the runs' own folders while launchers work in whatever process, and shows what it sees."""
    stop = threading.Event()

    def look() -> None:
        waiting = {run.id: (one, run) for one, run in todo}
        parent = todo[0][1].folder.parent
        while True:
            last = stop.is_set()
            shares = 0.0
            begun = {path.name for path in run_folders(parent)}
            for one, run in [waiting[name] for name in waiting if name in begun]:
                line = _ended(run)
                if line is not None:
                    del waiting[run.id]
                    display.say(f"{len(todo) - len(waiting)} of {len(todo)}  {line}")
                else:
                    shares += _share_done(one, run)
            display.update(round(len(todo) - len(waiting) + shares, 1))
            if last:
                return
            stop.wait(POLL_SECONDS)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _ended(run: Run) -> str | None:
    record = run.record()
    if record is not None:
        accuracy = record["test_accuracy"]
        return f"{run.id}: " + (
            f"{100 * accuracy:.1f} %, {record['train_seconds']:.0f} s" if accuracy is not None else "diverged"
        )
    failure = _failure(run)
    return f"{run.id}: failed, {failure}" if failure else None


def _conclude(runs: dict[str, Run], errors: dict[str, str]) -> None:
    records = {name: run.record() for name, run in runs.items()}
    finished = sum(record is not None and record["status"] == "finished" for record in records.values())
    diverged = [name for name, record in records.items() if record is not None and record["status"] == "diverged"]
    failed = {
        name: _failure(runs[name]) or runs[name].held() or errors.get(name) or "lost: its process was killed"
        for name, record in records.items()
        if record is None
    }
    print(f"{finished} of {len(runs)} runs finished")
    if len(diverged) + len(failed) == 0:
        return
    held = [name for name, reason in failed.items() if reason.startswith("held by")]
    lines = [f"{name} diverged" for name in diverged]
    lines += [f"{name}: {reason} (in {runs[name].folder})" for name, reason in failed.items()]
    hint = "; retry_failed=true tries the failed ones again" if len(failed) > len(held) else ""
    message = "\n  ".join([f"{len(lines)} of {len(runs)} runs did not finish{hint}", *lines])
    raise TryAgain(message) if len(held) == len(lines) else RunFailed(message)
