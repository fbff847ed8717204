"""Trains the missing runs of a study through a Hydra launcher. The same command again continues where it stopped."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from vitbench.comparing.evidence import read_evidence
from vitbench.data.menu import forget, open_dataset
from vitbench.data.sizes import count_train_images
from vitbench.errors import DataError, RunFailed, TryAgain, UserError, did_you_mean
from vitbench.machine.disk import check_folder
from vitbench.machine.interrupt import Stopped
from vitbench.machine.progress import Progress, progress
from vitbench.numbers.words import plural
from vitbench.runs.ancestor import PARENT_KEYS, finished_parent, generations, parents
from vitbench.runs.images import cannot_be_compared, done, images_changed, set_aside
from vitbench.runs.origin import find_origin
from vitbench.runs.plan import Planned, plan, remember
from vitbench.runs.records import run_folders
from vitbench.runs.run import Run
from vitbench.runs.study import load_study, study_names
from vitbench.settings.check import check
from vitbench.settings.compose import as_settings
from vitbench.settings.identity import id_of
from vitbench.settings.schema import SWEEP_KEYS
from vitbench.settings.share import source_options
from vitbench.sweeping import gpus, slurm
from vitbench.sweeping.launch import IN_PROCESS, POLL_SECONDS, Execute, in_process, launch, stopped_here, through
from vitbench.sweeping.status import ended, expected, print_plan, share_done
from vitbench.training.train import one_run


def main(config: Any) -> int:
    """Trains one run of a sweep, in a process of the launcher."""
    try:
        return work(check(as_settings(config)))
    except Stopped as stopped:
        stopped_here.append(stopped)
        slurm.requeue()
        raise


def work(settings: dict[str, Any]) -> int:
    """Trains a run, unless another sweep has tried it since this sweep began and it failed. Returns the exit code."""
    return 1 if Run.of(settings).failure() else one_run(settings, in_sweep=True)


def sweep(config: Any, arguments: list[str], launcher: Any) -> None:
    """Plans the study, launches the runs that are missing, and says how they ended.

    Raises RunFailed or TryAgain, with a line for each run that did not finish.
    """
    if config.study is None:
        raise UserError(f"study=NAME is missing; {did_you_mean('', study_names())}")
    check_folder(Path(config.runs).expanduser(), "runs")
    name = config.hydra.runtime.choices["hydra/launcher"]
    if not config.wait and name != "submitit_slurm":
        raise UserError(f"wait=false: needs hydra/launcher=submitit_slurm; hydra/launcher={name} has no queue")
    study, folder = load_study(config.study), Path(config.runs).expanduser()
    typed = [word for word in arguments if word.partition("=")[0] not in SWEEP_KEYS]
    planned = plan(study, typed, config.confirm)
    runs = {entry.id: Run(folder / entry.id, entry.settings) for entry in planned}
    for cache in {run.settings["data"]["cache"] for run in runs.values()}:
        check_folder(Path(cache), "data.cache")
    if name == "gpus" and not config.dry_run:  # refuses a slip before anything begins
        gpus.slots(config.hydra.launcher, (run.settings["machine"]["device"] for run in runs.values()))
    certified = {run.id: run.certifies for run in planned if run.certifies}
    forget()
    statuses, unusable = _statuses(runs, strict=config.dry_run)
    not_done = {run_id: run for run_id, run in runs.items() if run_id not in statuses and run_id not in unusable}
    evidence = _in_evidence(config, study.name, runs, not_done)
    todo = {
        run_id: run
        for run_id, run in not_done.items()
        if run_id not in evidence and (config.retry_failed or not run.failure())
    }
    source_images = _count_images(todo, config.dry_run)
    if config.dry_run:
        in_queue = slurm.queued(folder / slurm.JOBS_FOLDER) if name == "submitit_slurm" else {}
        print_plan(runs, {*todo}, in_queue, statuses | dict.fromkeys(evidence, "evidence"), certified)
        _refuse_lost_parents(todo, evidence)
        print(expected(config, name, todo.values(), source_images, partial(print, file=sys.stderr)))
        return
    _refuse_lost_parents(todo, evidence)
    waves = _waves({run_id: run for run_id, run in todo.items() if run_id not in certified}, {*runs})
    waves += _waves({run_id: run for run_id, run in todo.items() if run_id in certified}, {*runs})
    remember(study, planned, folder, typed, evidence)
    if told := cannot_be_compared(run for run_id, run in runs.items() if run_id not in todo):
        print(f"warning: {told}", file=sys.stderr)
    _warn_of_damaged_records(todo.values())
    _warn_of_lost_weights(run for run_id, run in runs.items() if run_id not in todo)
    _set_aside(todo.values())
    for run in todo.values():
        (run.folder / "failure.json").unlink(missing_ok=True)  # the run is tried again
    errors = {**unusable}
    if todo:
        _decode(todo.values(), config.machine.progress)
        overrides = {entry.id: _overrides(config, entry) for entry in planned if entry.id in todo}
        if not config.wait:
            before, new = slurm.Queue(launcher, overrides, todo).submit(waves[0])
            later = len(todo) - len(waves[0])
            after = f"; {later} more runs need these first: repeat the command when they have ended" if later else ""
            print(slurm.submission_line(waves[0], before, new) + after)
            return
        with progress(study.title, len(todo), "runs", config.machine.progress) as display:
            by_evidence = f" ({len(evidence)} by their evidence alone)" if evidence else ""
            already = f"{len(runs) - len(todo)} of them are done already{by_evidence}"
            display.say(f"{study.title}: {len(runs)} runs, {already}")
            display.say(expected(config, name, todo.values(), source_images, display.say))
            execute = _executor(config, launcher, overrides, todo, display.say)
            with _watch(todo, display):
                for wave in waves:
                    errors |= launch(execute, {run_id: todo[run_id] for run_id in wave}, ended, display.say)
    ended_now = {run_id: record["status"] for run_id, run in todo.items() if (record := run.record())}
    _conclude({run_id: run for run_id, run in runs.items() if run_id not in evidence}, statuses | ended_now, errors)


def _statuses(runs: Mapping[str, Run], strict: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Returns two mappings by id: how runs ended on the images that are there now, and why other runs are unusable.

    Each record is read here and not again. With `strict`, raises DataError for a folder of images that cannot be used.
    """
    statuses: dict[str, str] = {}
    unusable: dict[str, str] = {}
    for run_id, run in runs.items():
        try:
            if record := done(run):
                statuses[run_id] = record["status"]
        except DataError as error:
            if strict:
                raise
            unusable[run_id] = f"its images have changed since it ended and cannot be used now: {error}"
    return statuses, unusable


def _set_aside(todo: Iterable[Run]) -> None:
    """Moves the folders of runs aside whose images have changed since they ended, and says so in a line."""
    moved = []
    for run in todo:
        with suppress(TryAgain):  # another process holds the run, and moves it aside itself
            moved += [told] if (told := set_aside(run)) else []
    if moved:
        more = f"; and so for {len(moved) - 1:,} other runs" if len(moved) > 1 else ""
        print(f"warning: {moved[0]}{more}", file=sys.stderr)


def _in_evidence(config: Any, study: str, planned: Collection[str], not_done: Mapping[str, Run]) -> set[str]:
    """Returns the ids of the runs that evidence=true takes as done: those that ended according to
    results/<study>/runs.csv.

    It warns where none of them is planned, for example because the study was edited, and where images have changed.
    """
    if not config.evidence:
        return set()
    check_folder(Path(config.results).expanduser(), "results")
    path = Path(config.results).expanduser() / study / "runs.csv"
    read = read_evidence(path)
    if not read.ids & {*planned}:
        print(
            f"warning: evidence=true: none of the {len(read.ids):,} runs in {path} is among the {len(planned):,} runs"
            " of this sweep",
            file=sys.stderr,
        )
    rows = {row["id"]: row for row in [*read.rows, *read.certificates] if row["id"] in not_done}
    on_others = [run_id for run_id, row in rows.items() if images_changed(row, not_done[run_id].settings)]
    if on_others:
        print(
            f"warning: evidence=true: the images of {len(on_others):,} runs in {path} have changed since, so these runs"
            " count as not done",
            file=sys.stderr,
        )
    return {*rows} - {*on_others}


def _refuse_lost_parents(todo: Mapping[str, Run], evidence: set[str]) -> None:
    """Raises UserError where a run needs the weights of a run that has only its evidence."""
    for run_id, run in todo.items():
        for key in PARENT_KEYS:
            if (parent := id_of(run.settings, key)) in evidence:
                raise UserError(
                    f"{run_id}: {key}='{run.settings[key]}': {parent} has only its evidence and no weights; drop "
                    "evidence=true to train it again"
                )


def _waves(todo: Mapping[str, Run], of_study: set[str]) -> list[list[str]]:
    """Sorts the ids of the missing runs into lists that are done one after the other, each run after its parents.

    Raises UserError where a parent does not belong to the study and is not there. A run whose parent failed is tried
    all the same, and fails with a line that says so.
    """
    settings = {run_id: run.settings for run_id, run in todo.items()}
    for each in settings.values():
        if id_of(each, "init") not in of_study:
            find_origin(each)
        if id_of(each, "teacher") not in {None, *of_study}:
            finished_parent(each, "teacher")
    return generations(parents(settings))


def _overrides(config: Any, entry: Planned) -> list[str]:
    """Returns what a launcher composes a run from: the run's own words, and the sweep's settings that reach a run."""
    words = [word for word in entry.overrides if not word.startswith("machine.progress=")]
    threads = ["machine.threads=1"] if config.machine.threads is None else []
    return [*words, f"study={config.study}", "machine.progress=false", *threads]


def _executor(
    config: Any, launcher: Any, overrides: Mapping[str, list[str]], todo: Mapping[str, Run], say: Callable[[str], None]
) -> Execute:
    """Returns the function that does the runs with the launcher that was chosen."""
    name = config.hydra.runtime.choices["hydra/launcher"]
    if name == "submitit_slurm":
        return slurm.Queue(launcher, overrides, todo).executor(ended, say)
    if name == "submitit_local":
        return slurm.local(launcher, overrides, todo)
    if name not in IN_PROCESS:
        return through(launcher, overrides)
    silent = {
        run_id: {**run.settings, "machine": run.settings["machine"] | {"progress": False}}
        for run_id, run in todo.items()
    }
    in_turn = in_process(work, silent)
    if name == "basic":
        return in_turn
    from vitbench.sweeping import stacked

    return stacked.executor(silent, config.hydra.launcher.max_runs, in_turn, say)


def _decode(todo: Collection[Run], show: bool | None) -> None:
    """Opens each set of images once, so that it is decoded here, with all cores and a progress bar, and not in a run.

    A set that cannot be read is left to its runs, which say what is wrong with it; runs on other sets continue.
    """
    opened = set()
    for run in todo:
        data = source_options(run.settings["data"]) | {"files": run.settings["machine"]["images"] == "files"}
        if (key := json.dumps(data)) not in opened:
            opened.add(key)
            with suppress(UserError):
                open_dataset(**data, progress=show is not False)


def _count_images(todo: Mapping[str, Run], strict: bool) -> dict[str, int | None]:
    """Returns, by run, how many training images its source has, without decoding or downloading any.

    With `strict`, raises DataError for a folder that cannot be used. Otherwise its runs say so later, and runs on other
    images continue.
    """
    counted: dict[str, int | None] = {}
    of_source: dict[str, int | None] = {}
    for run_id, run in todo.items():
        options = source_options(run.settings["data"])
        key = json.dumps(options, sort_keys=True)
        if key not in of_source:
            try:
                of_source[key] = count_train_images(**options)
            except DataError:
                if strict:
                    raise
                of_source[key] = None
        counted[run_id] = of_source[key]
    return counted


def _warn_of_damaged_records(todo: Iterable[Run]) -> None:
    """Warns of runs that are done again because their records are damaged."""
    damaged = [reason for run in todo if (reason := run.damage())]
    if damaged:
        again = plural(len(damaged), "damaged run")
        print(f"warning: the sweep trains {again} again; the first: {damaged[0]}", file=sys.stderr)


def _warn_of_lost_weights(ended: Iterable[Run]) -> None:
    """Warns of ended runs that lack weights which `keep` names now. They are not repeated."""
    lacking = sorted(run.id for run in ended if run.lost())
    if lacking:
        print(
            f"warning: {len(lacking)} of the finished runs lack weights that keep= asks for; remove their folders to"
            f" train them again, the first is {lacking[0]}",
            file=sys.stderr,
        )


@contextmanager
def _watch(todo: Mapping[str, Run], display: Progress) -> Iterator[None]:
    """Shows how far the runs are. It reads their folders, so it does not matter which process trains a run."""
    stop = threading.Event()

    def look() -> None:
        waiting = dict(todo)
        folder = next(iter(todo.values())).folder.parent
        while True:
            last = stop.is_set()
            shares = 0.0
            begun = {path.name for path in run_folders(folder)}
            for run in [run for run_id, run in waiting.items() if run_id in begun]:
                line = ended(run)
                if line is not None:
                    del waiting[run.id]
                    display.say(f"{len(todo) - len(waiting)} of {len(todo)}  {line}")
                else:
                    shares += share_done(run)
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


def _conclude(runs: Mapping[str, Run], statuses: Mapping[str, str], errors: Mapping[str, str]) -> None:
    """Prints how many runs finished, and raises one error with a line for each run that did not.

    A run without a status failed, or its images have changed since it ended.
    """
    finished = sum(statuses.get(run_id) == "finished" for run_id in runs)
    diverged = [run_id for run_id in runs if statuses.get(run_id) == "diverged"]
    failed = {
        run_id: run.failure() or run.held() or errors.get(run_id) or "lost: its process was killed"
        for run_id, run in runs.items()
        if run_id not in statuses
    }
    print(f"{finished} of {len(runs)} runs finished")
    if not diverged and not failed:
        return
    held = [run_id for run_id, reason in failed.items() if reason.startswith("held by")]
    lines = [f"{run_id} diverged" for run_id in diverged]
    lines += [f"{run_id}: {reason} (in {runs[run_id].folder})" for run_id, reason in failed.items()]
    hint = "; type retry_failed=true to try failed runs again" if len(failed) > len(held) else ""
    message = "\n  ".join([f"{len(lines)} of {len(runs)} runs did not finish{hint}", *lines])
    raise TryAgain(message) if len(held) == len(lines) else RunFailed(message)
