"""Measures networks: `vitbench probe run=ID probe=shift`, `study=NAME probe=all checkpoint=[trained,init]`.

Each network is built once, and every probe that was asked for and is not measured yet gets it with the same test images.
What one probe or one run refuses is said in a line, and the others go on.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vitbench.check import SEEDS, check_open
from vitbench.config import look_up
from vitbench.data.menu import SHARE_KEYS, forget, open_dataset
from vitbench.errors import DataError, StorageError, UserError, did_you_mean
from vitbench.probes import rows as files
from vitbench.probes.menu import MENU, VERSIONS
from vitbench.run import Run, find_record, storage

if TYPE_CHECKING:
    from vitbench.machine import Machine
    from vitbench.probes.subject import Subject

Options = dict[str, dict[str, Any]]  # of each probe that was asked for
STUDY_KEYS = ("probe", "checkpoint", "images", "seed")  # what a study's `probes:` may say


class Job(NamedTuple):
    """One network, and what is to be measured of it."""

    folder: Path
    record: dict[str, Any]
    checkpoint: str
    probes: list[str]

    @property
    def name(self) -> str:
        return self.folder.name + ("" if self.checkpoint == "trained" else f" ({self.checkpoint})")


def main(config: Any) -> int:
    """Measures what is missing; 0, or the exit code of the worst that was refused."""
    forget()
    asked, typed = _asked(config)
    options = {name: check_open(f"probe={name}", f"probe.{name}", given or {}, look_up_target(name))
               for name, given in asked["probe"].items()}  # fmt: skip
    call = {"images": asked["images"], "seed": asked["seed"]}
    todo = []
    for job in _jobs(asked, typed, list(options)):
        done = [name for name in job.probes if files.is_done(
            files.path_of(job.folder, name, job.checkpoint), options=options[name], version=version(name), **call)]  # fmt: skip
        if done:
            print(f"{job.name}: measured before: {', '.join(done)}")
        if missing := [name for name in job.probes if name not in done]:
            todo.append(job._replace(probes=missing))
    return _measure(todo, options, asked, typed) if todo else 0


def look_up_target(name: str) -> str:
    if name not in MENU:
        raise UserError(f"probe={name}: {did_you_mean(name, MENU)}")
    return MENU[name].target


def version(name: str) -> int:
    return VERSIONS.get(name, 1)


# ----------------------------------------------------------------------------------------------------- what is asked


def _asked(config: Any) -> tuple[dict[str, Any], list[str]]:
    """The settings, with what the study says under what was typed; and the words that were typed."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    typed = list(HydraConfig.get().overrides.task)
    asked: Any = OmegaConf.to_container(config, resolve=True)
    if asked["study"] is not None:
        from hydra import compose

        from vitbench.study import load

        keys = {word.partition("=")[0] for word in typed}
        said = [word for word in load(asked["study"]).probe_words(STUDY_KEYS)
                if (key := word.partition("=")[0]) not in keys and not (key.startswith("probe.") and "probe" in keys)]  # fmt: skip
        asked = OmegaConf.to_container(compose("probe", [*said, *typed]), resolve=True)
    ways = [key for key in ("run", "study", "outside") if asked[key] is not None]
    if len(ways) != 1:
        given = " ".join(f"{key}={asked[key]}" for key in ways).replace("outside=", "model=")
        raise UserError(f"{given or 'nothing to measure'}: give one of run=ID, study=NAME, model=torchvision|timm")
    if not asked["probe"]:
        raise UserError(f"probe=: name one or several; {did_you_mean('', [*MENU, 'all'])}")
    if asked["images"] < 1:
        raise UserError(f"images={asked['images']}: must be 1 or more")
    if not 0 <= asked["seed"] < SEEDS:
        raise UserError(f"seed={asked['seed']}: must be 0 to {SEEDS - 1}")
    asked["checkpoint"] = asked["checkpoint"] if isinstance(asked["checkpoint"], list) else [asked["checkpoint"]]
    for checkpoint in asked["checkpoint"]:
        if checkpoint not in files.CHECKPOINTS:
            raise UserError(f"checkpoint={checkpoint}: {did_you_mean(str(checkpoint), files.CHECKPOINTS)}")
    if asked["outside"] is None:
        for word in typed:
            key = word.partition("=")[0]
            if key in ("data", "name", "weights", "mean", "std") or (
                key.startswith("data.") and key not in ("data.root", "data.cache")
            ):
                raise UserError(
                    f"{word}: a run brings its own network and data (data.root and data.cache may be typed)"
                )
    return asked, typed


def _jobs(asked: dict[str, Any], typed: Sequence[str], probes: list[str]) -> list[Job]:
    runs = Path(asked["runs"]).expanduser()
    if asked["outside"] is not None:
        from vitbench.outside import enter

        folder, record = enter(asked, typed)
        return [Job(folder, record, checkpoint, probes) for checkpoint in asked["checkpoint"]]
    if asked["run"] is not None:
        ids = asked["run"] if isinstance(asked["run"], list) else [asked["run"]]
        found = [(runs / str(name), find_record(runs / str(name))) for name in ids]
    else:
        from vitbench.study import load, planned_ids

        study = load(asked["study"])
        planned = planned_ids(study, runs)
        records = [(runs / name, Run(runs / name, {}).record()) for name in planned]
        found = [(folder, record) for folder, record in records if record is not None]
        if not found:
            raise UserError(f"study={study.name}: none of its {len(planned)} runs has ended in runs={asked['runs']}; "
                            f"`vitbench sweep study={study.name}` starts them")  # fmt: skip
        if len(found) < len(planned):
            print(f"vitbench: missing: {len(planned) - len(found)} of the {len(planned)} planned runs", file=sys.stderr)
    jobs = []
    for folder, record in found:
        for checkpoint in asked["checkpoint"]:
            if checkpoint == "trained" and record["status"] == "diverged":
                if len(found) == 1:
                    raise UserError(
                        f"run={folder.name}: diverged and has no weights; checkpoint=init measures it untrained"
                    )
                print(f"vitbench: {folder.name}: diverged and has no weights", file=sys.stderr)
                continue
            jobs.append(Job(folder, record, checkpoint, probes))
    return jobs


# --------------------------------------------------------------------------------------------------------- measuring


def _measure(todo: Sequence[Job], options: Options, asked: dict[str, Any], typed: Sequence[str]) -> int:
    """Measures and writes; what is refused is said when it happens, and the highest exit code returned."""
    from vitbench.machine import Machine
    from vitbench.progress import progress

    machine = Machine.of(device=asked["machine"]["device"], precision="float32", compile=False,
                         threads=asked["machine"]["threads"])  # fmt: skip
    total, done, code = sum(len(job.probes) for job in todo), 0, 0
    with progress("probe", total, "probes", asked["machine"]["progress"]) as display:
        for job in todo:
            try:
                subject = _subject(job, asked, typed, machine)
            except StorageError:
                raise
            except UserError as error:
                if len(todo) == 1:
                    raise
                display.say(f"vitbench: {job.name}: {error}")
                done, code = done + len(job.probes), max(code, error.exit_code)
                continue
            for name in job.probes:
                display.update(done, f"{job.name} {name}")
                begin = time.monotonic()
                try:
                    rows = look_up("probe", name, MENU)(subject, seed=asked["seed"], **options[name])
                except UserError as error:
                    display.say(f"vitbench: {job.name}: probe={name}: {error}")
                    code = max(code, error.exit_code)
                else:
                    _save(job, name, rows, options, asked, machine)
                    display.say(f"{job.name}: {name}, {len(rows)} numbers, {time.monotonic() - begin:.0f} s")
                    for line in files.undefined(rows):
                        display.say(f"{job.name}: {line}")
                done += 1
                display.update(done)
            print(f"{job.folder / 'probes'}")
    return code


def _save(
    job: Job, name: str, rows: list[files.Row], options: Options, asked: dict[str, Any], machine: Machine
) -> None:
    wrong = {row["protocol"] for row in rows if files.version_of(row) != version(name)}
    assert not wrong, f"{wrong}: the menu says version {version(name)}"
    described = machine.described()["hardware"]
    path = files.path_of(job.folder, name, job.checkpoint)
    with storage(path):
        path.parent.mkdir(exist_ok=True)
    files.save(path, rows, images=asked["images"], seed=asked["seed"], options=options[name],
               hardware=f"{described['name']}, {described['threads']} threads")  # fmt: skip


def _subject(job: Job, asked: dict[str, Any], typed: Sequence[str], machine: Machine) -> Subject:
    """The network of a run, trained or as it was before its first step, with test images of the run's own data."""
    import torch

    from vitbench.data.loader import Normalise
    from vitbench.probes.subject import Subject, draw_images

    record = job.record
    data = {key: value for key, value in record["config"]["data"].items() if key not in SHARE_KEYS}
    if any(word.startswith("data.root=") for word in typed):
        data["root"] = os.path.expanduser(asked["data"]["root"])
    cache = asked["data"]["cache"] or os.environ.get("VITBENCH_CACHE") or "~/.cache/vitbench"
    dataset = open_dataset(
        **data | {"cache": os.path.expanduser(cache)}, progress=asked["machine"]["progress"] is not False
    )
    if dataset.fingerprint != record["data_fingerprint"]:
        raise DataError(f"data.root={data['root']}: not the images that {job.folder.name} was trained on "
                        f"(fingerprint {dataset.fingerprint}, its record has {record['data_fingerprint']})")  # fmt: skip
    model = _network(job, asked)
    channels_last = getattr(model, "channels_last", False)
    model.to(machine.device, memory_format=torch.channels_last if channels_last else torch.preserve_format)
    images, labels = draw_images(dataset.test, asked["images"], asked["seed"], machine.device)
    normalise = Normalise(record["mean"], record["std"], machine.device, channels_last)
    return Subject(model.eval(), images, labels, normalise, len(record["classes"]))


def _network(job: Job, asked: dict[str, Any]) -> Any:
    from vitbench import checkpoint
    from vitbench.data.loader import draw
    from vitbench.models.build import build
    from vitbench.outside import FAMILIES
    from vitbench.outside import build as build_outside

    record = job.record
    if record["config"]["model"]["name"] in FAMILIES:
        if asked["weights"] is None:
            raise UserError(f"{job.folder.name}: trained elsewhere; name it by model=, name=, weights= and data= again")
        return build_outside(record, asked["weights"] if job.checkpoint == "trained" else None)
    architecture = {
        **record["config"]["model"],
        "image_size": record["image_size"],
        "channels": record["channels"],
        "num_classes": len(record["classes"]),
    }
    draw(record["config"]["seed"], 0)  # as `train` begins
    model = build(**architecture)
    if job.checkpoint == "trained":
        path = job.folder / "checkpoint.safetensors"
        tensors, about = checkpoint.load(path)
        if about.get("run") != record["id"]:
            raise UserError(f"{path} holds the weights of another run, {about.get('run')}")
        checkpoint.fit(model, tensors, path)
    return model
