"""The runs of a study that are missing, through a Hydra launcher. Repeating the command goes on where it ended."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vitbench.data.menu import forget, open_dataset
from vitbench.errors import RunFailed, TryAgain, UserError, did_you_mean
from vitbench.machine.interrupt import Stopped
from vitbench.machine.progress import Progress, progress
from vitbench.runs.ancestor import finished_parent, generations, parents
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
from vitbench.sweeping import slurm
from vitbench.sweeping.launch import IN_PROCESS, POLL_SECONDS, in_process, launch, through
from vitbench.sweeping.status import ended, expected, print_plan, share_done
from vitbench.training.train import one_run


def main(config: Any) -> int:
    """What a launcher does for each run."""
    try:
        return work(check(as_settings(config)))
    except Stopped:
        slurm.requeue()
        raise


def work(settings: dict[str, Any]) -> int:
    """A run, unless it failed in another sweep since this one began."""
    return 1 if Run.of(settings).failure() else one_run(settings, in_sweep=True)


def sweep(config: Any, arguments: list[str], launcher: Any) -> None:
    """Plans the study, launches what is missing, and says how every run ended; raises RunFailed unless all are well."""
    if config.study is None:
        raise UserError(f"study=NAME is missing; {did_you_mean('', study_names())}")
    name = config.hydra.runtime.choices["hydra/launcher"]
    if not config.wait and name != "submitit_slurm":
        raise UserError(f"wait=false: hydra/launcher={name} has no queue that goes on alone; submitit_slurm has")
    study, runs_folder = load_study(config.study), Path(config.runs).expanduser()
    typed = [word for word in arguments if word.partition("=")[0] not in SWEEP_KEYS]
    planned = plan(study, typed, config.confirm)
    runs = {one.id: Run(runs_folder / one.id, one.settings) for one in planned}
    todo = [
        one for one in planned if runs[one.id].record() is None and (config.retry_failed or not runs[one.id].failure())
    ]
    if config.dry_run:
        in_queue = slurm.queued(runs_folder / slurm.MEMORY) if name == "submitit_slurm" else {}
        print_plan(planned, runs, {one.id for one in todo}, in_queue)
        print(expected(config, name, [(one.settings, share_done(one, runs[one.id])) for one in todo]))
        return
    waves = _waves(todo, {*runs})
    remember(study, planned, runs_folder, typed)
    _warn_of_other_images(planned, runs)
    _warn_of_lost_weights([runs[name] for name in {*runs} - {one.id for one in todo}])
    for one in todo:
        (runs[one.id].folder / "failure.json").unlink(missing_ok=True)  # it is tried again
    errors: dict[str, str] = {}
    if todo:
        forget()
        _decode(todo, config.machine.progress)
        missing = {one.id: runs[one.id] for one in todo}
        jobs = _jobs(config, todo) if name not in IN_PROCESS else {}
        if not config.wait:
            before, new = slurm.Queue(launcher, jobs, missing).submit(waves[0])
            later = len(todo) - len(waves[0])
            after = f"; {later} start from them: repeat the command then" if later else ""
            print(slurm.submitted(waves[0], before, new) + after)
            return
        with progress(study.title, len(todo), "runs", config.machine.progress) as display:
            display.say(f"{study.title}: {len(planned)} runs, {len(planned) - len(todo)} of them done before")
            display.say(expected(config, name, [(one.settings, share_done(one, runs[one.id])) for one in todo]))
            if name in IN_PROCESS:
                silent = {
                    one.id: one.settings | {"machine": one.settings["machine"] | {"progress": False}} for one in todo
                }
                hand = in_process(work, silent)
                if name == "stacked":
                    from vitbench.sweeping import stacked

                    hand = stacked.hand(silent, config.hydra.launcher.max_runs, hand, display.say)
            elif name == "submitit_slurm":
                hand = slurm.Queue(launcher, jobs, missing).hand(ended, display.say)
            elif name == "submitit_local":
                hand = slurm.local(launcher, jobs, missing)
            else:
                hand = through(launcher, jobs)
            with _watch([(one, runs[one.id]) for one in todo], display):
                for wave in waves:
                    errors |= launch(hand, {name: missing[name] for name in wave}, ended, display.say)
    _conclude(runs, errors)


def _waves(todo: list[Planned], of_study: set[str]) -> list[list[str]]:
    """The ids of missing runs in the order in which they can be done: what a run starts from comes before it.

    What is no run of the study has to be there. What starts from a run that failed is tried all the same, and says so.
    """
    for one in todo:
        if id_of(one.settings, "init") not in of_study:
            find_origin(one.settings)
        if id_of(one.settings, "teacher") not in {None, *of_study}:
            finished_parent(one.settings, "teacher")
    return generations(parents({one.id: one.settings for one in todo}))


def _jobs(config: Any, todo: list[Planned]) -> dict[str, list[str]]:
    """The words of each run for a launcher, which composes again and drops the sweep's own."""
    handed_on = [f"study={config.study}", "machine.progress=false"]
    if config.machine.threads is None:
        handed_on.append("machine.threads=1")
    return {one.id: [w for w in one.overrides if not w.startswith("machine.progress=")] + handed_on for one in todo}


def _decode(todo: list[Planned], show: bool | None) -> None:
    """Opens each set of images once, so that it is decoded here, with all cores and a progress bar, and not in a run.

    What is wrong with one is left to its runs to tell: the others go on.
    """
    opened = set()
    for one in todo:
        data = source_options(one.settings["data"]) | {"files": one.settings["machine"]["images"] == "files"}
        if (key := json.dumps(data)) not in opened:
            opened.add(key)
            with suppress(UserError):
                open_dataset(**data, progress=show is not False)


def _warn_of_other_images(planned: list[Planned], runs: dict[str, Run]) -> None:
    """The folder of the images is no part of a run's identity, their name is."""
    for one in planned:
        record, asked = runs[one.id].record(), one.settings["data"]
        if record and asked["source"] != "shapes" and record["config"]["data"]["root"] != asked["root"]:
            print(
                f"warning: finished runs on data.name={asked['name']} read"
                f" data.root={record['config']['data']['root']}, not {asked['root']}; set data.name to tell two sets of"
                " images apart",
                file=sys.stderr,
            )
            return


def _warn_of_lost_weights(ended: list[Run]) -> None:
    """Runs that ended are what they are, whatever `keep` says now."""
    lacking = sorted(run.id for run in ended if run.lost())
    if lacking:
        print(
            f"warning: {len(lacking)} of the finished runs kept no weights as keep= says; remove their folders to train"
            f" them again, the first is {lacking[0]}",
            file=sys.stderr,
        )


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
                line = ended(run)
                if line is not None:
                    del waiting[run.id]
                    display.say(f"{len(todo) - len(waiting)} of {len(todo)}  {line}")
                else:
                    shares += share_done(one, run)
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


def _conclude(runs: dict[str, Run], errors: dict[str, str]) -> None:
    records = {name: run.record() for name, run in runs.items()}
    finished = sum(record is not None and record["status"] == "finished" for record in records.values())
    diverged = [name for name, record in records.items() if record is not None and record["status"] == "diverged"]
    failed = {
        name: runs[name].failure() or runs[name].held() or errors.get(name) or "lost: its process was killed"
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
