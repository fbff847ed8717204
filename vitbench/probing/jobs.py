"""Decides which networks `vitbench probe` measures with which probes, by the command line or a study's `probes:`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.errors import NothingChosen, UserError, did_you_mean
from vitbench.menu import FROM_1, MOST_IMAGES, check_ranges
from vitbench.probes.menu import MENU
from vitbench.probing.partners import Reader, resolve_partners
from vitbench.runs import probe_rows as files
from vitbench.runs.record import Record
from vitbench.runs.records import find_record
from vitbench.runs.run import Run
from vitbench.settings.check import SEED, check_machine
from vitbench.settings.compose import compose
from vitbench.settings.options import check_options
from vitbench.settings.overrides import as_typed

OTHER = "other"  # the option that names the runs with which a probe compares a network
STUDY_PROBE_KEYS = ("probe", "checkpoint", "images", "seed", "where")  # what a study's `probes:` may set


class Job(NamedTuple):
    """One network, and what is to be measured of it."""

    folder: Path
    record: Record
    checkpoint: str
    images: int
    seed: int
    probes: dict[str, dict[str, Any]]  # the options of each probe
    measures_all: bool  # whether probe=all was asked for; then a probe that does not apply to the network is no error

    @property
    def name(self) -> str:
        return self.folder.name + ("" if self.checkpoint == "trained" else f" ({self.checkpoint})")


def read_requests(config: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the checked settings of what the user asks to measure, and the words on the command line.

    A study gives a request for each line of its `probes:`, and words on the command line override the line's. Without a
    study there is one request.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    typed = list(HydraConfig.get().overrides.task)
    lines: list[list[str]] = [typed]
    configs: list[Any] = [config]
    if config.study is not None:
        from vitbench.runs.study import load_study

        lines, configs = [], []
        typed_keys = {_key(word) for word in typed}
        for line in load_study(config.study).probe_words(STUDY_PROBE_KEYS):
            kept = [
                word
                for word in line
                if _key(word) not in typed_keys and not (_key(word).startswith("probe.") and "probe" in typed_keys)
            ]
            lines.append([*kept, *typed])
            configs.append(compose(lines[-1], "probe"))
    requests = [_checked(OmegaConf.to_container(each, resolve=True), typed) for each in configs]
    for request, words in zip(requests, lines, strict=True):
        request["measures_all"] = _measures_all(words)
    return requests, typed


def _key(word: str) -> str:
    return word.lstrip("+").partition("=")[0]


def _measures_all(words: Sequence[str]) -> bool:
    """Whether probe=all is asked for, which is also the default."""
    values = [word.partition("=")[2] for word in words if _key(word) == "probe"]
    return not values or "all" in values[-1].strip("[]").split(",")


def _checked(request: Any, typed: Sequence[str]) -> dict[str, Any]:
    """Returns the request with its lists and options converted. Raises UserError where it cannot be met."""
    ways = [key for key in ("run", "outside") if request[key] is not None]
    ways += ["study"] if request["study"] is not None else ["where"] if request["where"] else []
    if len(ways) != 1:
        given = as_typed(" ".join(f"{key}={request[key]}" for key in ways))
        raise UserError(
            f"{given or 'nothing to measure'}: give one of run=ID, study=NAME, where.KEY=VALUE, model=torchvision|timm"
        )
    names = [request[key] for key in ("arch", "name") if request[key] is not None]
    if len(names) == 2:
        raise UserError(f"arch={names[0]} name={names[1]}: both name the network; drop name=")
    request |= {"arch": names[0] if names else None, "name": None}
    if not request["probe"]:
        raise UserError(f"probe=: name one or several; {did_you_mean('', [*MENU, 'all'])}")
    for name in request["probe"]:
        if name not in MENU:
            raise UserError(f"probe={name}: {did_you_mean(name, MENU)}")
    request["probe"] = {
        name: check_options(f"probe={name}", f"probe.{name}", options or {}, MENU[name].target)
        for name, options in request["probe"].items()
    }
    check_ranges(request, {"images": FROM_1.up_to(MOST_IMAGES), "seed": SEED})
    check_machine(request["machine"]["device"], request["machine"]["threads"])
    if not isinstance(request["checkpoint"], list):
        request["checkpoint"] = [request["checkpoint"]]
    checkpoints = [*files.CHECKPOINTS, "kept"]
    for checkpoint in request["checkpoint"]:
        if checkpoint not in checkpoints and not str(checkpoint).isdigit():
            raise UserError(f"checkpoint={checkpoint}: {did_you_mean(str(checkpoint), checkpoints)}, or a step")
    for word in typed:
        key = _key(word)
        for_outside = key in ("arch", "name", "weights", "mean", "std", "data") or key.startswith("data.")
        if request["outside"] is None and for_outside and key not in ("data.root", "data.cache"):
            raise UserError(f"{word}: a run brings its own network and data; type only data.root or data.cache")
    return dict(request)


def all_jobs(requests: Sequence[dict[str, Any]], typed: Sequence[str]) -> list[Job]:
    """Returns the jobs of all requests. A request whose filters leave no run is skipped.

    Raises NothingChosen where all requests are skipped.
    """
    jobs: list[Job] = []
    without_runs: list[NothingChosen] = []
    for request in requests:
        try:
            jobs += jobs_of(request, typed)
        except NothingChosen as error:
            without_runs.append(error)
    if len(without_runs) == len(requests):
        raise without_runs[0]
    return jobs


def jobs_of(request: dict[str, Any], typed: Sequence[str]) -> list[Job]:
    """Returns a job for each network and checkpoint of the request.

    For a checkpoint that a run lacks it prints a line. Raises UserError where nothing is left to measure.
    """
    jobs: list[Job] = []
    lacking: list[UserError] = []
    runs = _runs_of(request, typed)
    for folder, record in runs:
        for wanted in request["checkpoint"]:
            try:
                checkpoints = _checkpoints(str(wanted), folder, record)
            except UserError as error:
                if len(runs) == 1:
                    raise
                lacking.append(error)
                continue
            shared = (request["images"], request["seed"], request["probe"], request["measures_all"])
            jobs += [Job(folder, record, checkpoint, *shared) for checkpoint in checkpoints]
    if lacking and not jobs:
        raise lacking[0]
    for line in lacking:
        print(f"vitbench: {line}", file=sys.stderr)
    return jobs


def _runs_of(request: dict[str, Any], typed: Sequence[str]) -> list[tuple[Path, Record]]:
    """Returns the folder and the record of each run that the request names, selects, or brings from outside."""
    runs = Path(request["runs"]).expanduser()
    if request["outside"] is not None:
        from vitbench.probing.outside import enter

        return [enter(request, typed)]
    if request["run"] is not None:
        ids = request["run"] if isinstance(request["run"], list) else [request["run"]]
        return [(runs / str(run_id), find_record(runs / str(run_id))) for run_id in ids]
    from vitbench.comparing.select import select_runs
    from vitbench.numbers.words import printable
    from vitbench.runs.study import load_study

    study = load_study(request["study"]) if request["study"] is not None else None
    selected = select_runs(request["runs"], request["where"], study)
    for note in selected.notes:
        print(f"vitbench: {printable(note)}", file=sys.stderr)
    return [(runs / row["id"], find_record(runs / row["id"])) for row in selected.rows]


def _checkpoints(wanted: str, folder: Path, record: Record) -> list[str]:
    """Returns the checkpoints of a run that checkpoint=WANTED means: one, or all that were kept.

    Raises UserError where the run has no such checkpoint.
    """
    kept = [str(step) for step in Run(folder, {}).kept()]
    if wanted == "trained" and record["status"] == "diverged":
        raise UserError(f"run={folder.name}: diverged and has no weights; type checkpoint=init to measure it untrained")
    if wanted in files.CHECKPOINTS or wanted in kept:
        return [wanted]
    if wanted == "kept" and kept:
        return kept
    what = f"kept its weights after {', '.join(kept)} steps" if kept else "kept none; train it with keep=[10,100]"
    raise UserError(f"checkpoint={wanted}: {folder.name} {what}")


def with_partners(job: Job, read: Reader) -> Job:
    """Returns the job with ids of runs instead of `other=` settings, so that the probe's file names these runs."""
    probes = dict(job.probes)
    for name, options in job.probes.items():
        if options.get(OTHER) is not None:
            partners = resolve_partners(f"probe.{name}.{OTHER}", options[OTHER], job.folder, read)
            probes[name] = options | {OTHER: partners}
    return job._replace(probes=probes)
