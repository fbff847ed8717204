"""Which networks `vitbench probe` measures, and what of each: from what was typed, and from the lines of a study."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.errors import NothingChosen, UserError, did_you_mean
from vitbench.menu import FROM_1, check_ranges
from vitbench.probes.menu import MENU
from vitbench.probing.partners import Reader, resolve_partners
from vitbench.runs import probe_rows as files
from vitbench.runs.records import find_record
from vitbench.runs.run import Run
from vitbench.settings.check import SEED, check_machine
from vitbench.settings.compose import compose
from vitbench.settings.options import check_options
from vitbench.settings.overrides import as_typed

OTHER = "other"  # the option of a probe that compares runs
STUDY_PROBE_KEYS = ("probe", "checkpoint", "images", "seed", "where")  # what a study's `probes:` may say


class Job(NamedTuple):
    """One network, and what is to be measured of it."""

    folder: Path
    record: dict[str, Any]
    checkpoint: str
    images: int
    seed: int
    probes: dict[str, dict[str, Any]]  # with their options
    every: bool  # probe=all: those that do not apply are left out

    @property
    def name(self) -> str:
        return self.folder.name + ("" if self.checkpoint == "trained" else f" ({self.checkpoint})")


def asked_for(config: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """What is asked, once or once for each line of a study's `probes:`, under what was typed; and the words typed."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    typed = list(HydraConfig.get().overrides.task)
    lines: list[list[str]] = [typed]
    configs: list[Any] = [config]
    if config.study is not None:
        from vitbench.runs.study import load_study

        lines, configs = [], []
        keys = {_key(word) for word in typed}
        for line in load_study(config.study).probe_words(STUDY_PROBE_KEYS):
            said = [
                word
                for word in line
                if _key(word) not in keys and not (_key(word).startswith("probe.") and "probe" in keys)
            ]
            lines.append([*said, *typed])
            configs.append(compose(lines[-1], "probe"))
    return [
        _checked(OmegaConf.to_container(one, resolve=True), typed) | {"every": _every(words)}
        for one, words in zip(configs, lines, strict=True)
    ], typed


def _key(word: str) -> str:
    return word.lstrip("+").partition("=")[0]


def _every(words: Sequence[str]) -> bool:
    """Whether what is measured was named `all`, which is also what is measured where nothing is named."""
    named = [word.partition("=")[2] for word in words if _key(word) == "probe"]
    return not named or "all" in named[-1].strip("[]").split(",")


def _checked(asked: Any, typed: Sequence[str]) -> dict[str, Any]:
    ways = [key for key in ("run", "outside") if asked[key] is not None]
    ways += ["study"] if asked["study"] is not None else ["where"] if asked["where"] else []
    if len(ways) != 1:
        given = as_typed(" ".join(f"{key}={asked[key]}" for key in ways))
        raise UserError(
            f"{given or 'nothing to measure'}: give one of run=ID, study=NAME, where.KEY=VALUE, model=torchvision|timm"
        )
    if not asked["probe"]:
        raise UserError(f"probe=: name one or several; {did_you_mean('', [*MENU, 'all'])}")
    for name in asked["probe"]:
        if name not in MENU:
            raise UserError(f"probe={name}: {did_you_mean(name, MENU)}")
    asked["probe"] = {
        name: check_options(f"probe={name}", f"probe.{name}", options or {}, MENU[name].target)
        for name, options in asked["probe"].items()
    }
    check_ranges(asked, {"images": FROM_1, "seed": SEED})
    check_machine(asked["machine"]["device"], asked["machine"]["threads"])
    asked["checkpoint"] = asked["checkpoint"] if isinstance(asked["checkpoint"], list) else [asked["checkpoint"]]
    for checkpoint in asked["checkpoint"]:
        if checkpoint not in (*files.CHECKPOINTS, "kept") and not str(checkpoint).isdigit():
            known = [*files.CHECKPOINTS, "kept"]
            raise UserError(f"checkpoint={checkpoint}: {did_you_mean(str(checkpoint), known)}, or a step")
    for word in typed:
        key = _key(word)
        own = key in ("name", "weights", "mean", "std", "data") or key.startswith("data.")
        if asked["outside"] is None and own and key not in ("data.root", "data.cache"):
            raise UserError(f"{word}: a run brings its own network and data (data.root and data.cache may be typed)")
    return dict(asked)


def jobs_of_all(calls: Sequence[dict[str, Any]], typed: Sequence[str]) -> list[Job]:
    """The networks of all calls; a line of a study that what was typed leaves none for is left out, unless all are."""
    jobs: list[Job] = []
    nothing: list[NothingChosen] = []
    for asked in calls:
        try:
            jobs += jobs_of(asked, typed)
        except NothingChosen as error:
            nothing.append(error)
    if len(nothing) == len(calls):
        raise nothing[0]
    return jobs


def jobs_of(asked: dict[str, Any], typed: Sequence[str]) -> list[Job]:
    """The networks of one call, each once a checkpoint; those that diverged have no trained one."""
    runs = Path(asked["runs"]).expanduser()
    if asked["outside"] is not None:
        from vitbench.probing.outside import enter

        found = [enter(asked, typed)]
    elif asked["run"] is not None:
        ids = asked["run"] if isinstance(asked["run"], list) else [asked["run"]]
        found = [(runs / str(name), find_record(runs / str(name))) for name in ids]
    else:
        from vitbench.comparing.select import select_runs
        from vitbench.numbers.words import printable
        from vitbench.runs.study import load_study

        selected = select_runs(
            asked["runs"], asked["where"], load_study(asked["study"]) if asked["study"] is not None else None
        )
        for note in selected.notes:
            print(f"vitbench: {printable(note)}", file=sys.stderr)
        found = [(runs / row["id"], find_record(runs / row["id"])) for row in selected.rows]
    jobs: list[Job] = []
    said: list[UserError] = []
    for folder, record in found:
        for checkpoint in asked["checkpoint"]:
            try:
                names = _checkpoints(str(checkpoint), folder, record)
            except UserError as error:
                if len(found) == 1:
                    raise
                said.append(error)
                continue
            jobs += [
                Job(folder, record, name, asked["images"], asked["seed"], asked["probe"], asked["every"])
                for name in names
            ]
    if said and not jobs:
        raise said[0]
    for line in said:
        print(f"vitbench: {line}", file=sys.stderr)
    return jobs


def _checkpoints(asked: str, folder: Path, record: dict[str, Any]) -> list[str]:
    """One, or all that a run kept; UserError where it has not what was asked for."""
    kept = [str(step) for step in Run(folder, {}).kept()]
    if asked == "trained" and record["status"] == "diverged":
        raise UserError(f"run={folder.name}: diverged and has no weights; checkpoint=init measures it untrained")
    if asked in files.CHECKPOINTS or asked in kept:
        return [asked]
    if asked == "kept" and kept:
        return kept
    there = f"kept its weights after {', '.join(kept)} steps" if kept else "kept none; keep=[10,100] in training does"
    raise UserError(f"checkpoint={asked}: {folder.name} {there}")


def with_partners(job: Job, read: Reader) -> Job:
    """With the ids of the runs that a probe shall compare this one with, so that its file says which they were."""
    return job._replace(
        probes={
            name: (
                options | {OTHER: resolve_partners(f"probe.{name}.{OTHER}", options[OTHER], job.folder, read)}
                if options.get(OTHER) is not None
                else options
            )
            for name, options in job.probes.items()
        }
    )
