"""`vitbench track trackers=NAME`: sends runs that are on disk to a tracker; a second time sends only what it lacks.

The command belongs to this room because it needs only what runs left on disk (follow.py).
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from vitbench.errors import FEW, DataError, StorageError, TryAgain, UserError, did_you_mean
from vitbench.machine.disk import sha256_of
from vitbench.machine.progress import progress
from vitbench.numbers.text import say
from vitbench.numbers.words import plural, printable
from vitbench.runs.fields import fault_of_settings
from vitbench.runs.follow import Followed, Line, lines_of, results_of
from vitbench.runs.plan import planned_ids
from vitbench.runs.record import Record
from vitbench.runs.records import REMEDY, read_record, run_folders
from vitbench.runs.run import Run
from vitbench.runs.study import load_study
from vitbench.settings.compose import read_yaml
from vitbench.trackers.menu import MENU, check_trackers


def main(config: Any) -> int:
    """Sends runs and prints how many values were new. Returns 0, 3 (a run cannot be read) or 75 (a tracker fails)."""
    from omegaconf import OmegaConf

    asked: Any = OmegaConf.to_container(config, resolve=True)
    names = check_trackers(asked["trackers"])
    if names is None:
        raise UserError(f"trackers=null: name the programs that get the runs, one or a list: {', '.join(MENU)}")
    folders = folders_of(Path(asked["runs"]).expanduser(), asked["study"], asked["run"])
    new, whole, problems = Counter[str](), Counter[str](), []
    code = 0
    with progress("track", len(folders), "runs", asked["machine"]["progress"]) as display:
        for done, folder in enumerate(folders):
            display.update(done, folder.name)
            try:
                with Run(folder, {}).claim():
                    hand_over(folder, names, new, whole)
            except UserError as error:
                problems.append(str(error))
                is_passing = isinstance(error, TryAgain | StorageError)
                code = max(code, error.exit_code if is_passing else DataError.exit_code)
    for problem in dict.fromkeys(problems[:FEW]):
        print(f"vitbench: {printable(problem)}", file=sys.stderr)
    if more := len(problems[FEW:]):
        print(f"vitbench: and {more} more", file=sys.stderr)
    for name in names:
        of_all = f"it now has {whole[name]:,} of {plural(len(folders), 'run')}"
        say(f"{name}: {plural(new[name], 'new value')}; {of_all}\n")
    return code


def folders_of(runs: Path, study: str | None, chosen: Any) -> list[Path]:
    """Returns the folders of the runs that are asked for. Raises UserError where there are none."""
    folders = run_folders(runs)
    if chosen is not None:
        there = {folder.name: folder for folder in folders}
        ids = [str(each) for each in (chosen if isinstance(chosen, list) else [chosen])]
        for run_id in ids:
            if run_id not in there:
                raise UserError(f"run={run_id}: no such run in runs={runs}; {did_you_mean(run_id, there)}")
        folders = [there[run_id] for run_id in ids]
    if study is not None:
        planned = {*planned_ids(load_study(study), runs)}
        folders = [folder for folder in folders if folder.name in planned]
    if not folders:
        of_study = f"study={study}: " if study is not None else ""
        raise UserError(f"{of_study}there is no run in runs={runs}; `vitbench train` makes one")
    return folders


def hand_over(folder: Path, names: list[str], new: Counter[str], whole: Counter[str]) -> None:
    """Sends a run to trackers. A tracker that fails is removed from `names`, and TryAgain is raised."""
    settings, lines = read(folder)
    for name in [*names]:
        try:
            with closing(Followed(name, folder.name, folder, settings)) as followed:
                new[name] += followed.hand_over(lines)
        except TryAgain:
            names.remove(name)
            raise
        whole[name] += 1


def check_metrics(folder: Path, record: Record) -> None:
    """Raises DataError where metrics.csv does not match the record of a run that has ended."""
    path, expected = folder / "metrics.csv", (record.get("files") or {}).get("metrics.csv")
    try:
        if expected is not None and sha256_of(path) != expected:
            raise DataError(f"{path} is damaged (its checksum differs); {REMEDY}")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {REMEDY}") from None


def read(folder: Path) -> tuple[dict[str, Any], list[Line]]:
    """Returns the settings of a run, and its lines and results. A run that has not ended has only the saved lines."""
    try:
        record = read_record(folder / "record.json")
        check_metrics(folder, record)
        results = results_of(record)
        return record["config"], [*lines_of(folder, record["steps"]), (record["steps"], results)]
    except (FileNotFoundError, NotADirectoryError):
        path = folder / "config.yaml"
        if not path.exists():
            raise UserError(f"{folder} holds no run") from None
    settings = read_yaml(path)
    if fault := fault_of_settings(settings):
        raise DataError(f"{path} is not as vitbench writes it: {fault}")
    return settings, [*lines_of(folder, Run(folder, {}).saved_step() or 0)]
