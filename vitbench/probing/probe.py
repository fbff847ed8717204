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
from typing import TYPE_CHECKING, Any

from vitbench.data.menu import forget, open_dataset
from vitbench.errors import DataError, DoesNotApply, NotInstalled, StorageError, UserError
from vitbench.machine.disk import checksum, storage, write
from vitbench.menu import Choice, look_up, parameters
from vitbench.models.menu import is_vit
from vitbench.probes.menu import FIGURES, FOR_VITS, MENU, PIXELS, TOGETHER, VERSIONS
from vitbench.probing.jobs import OTHER, Job, asked_for, jobs_of_all, with_partners
from vitbench.probing.partners import reader
from vitbench.runs import probe_rows as files
from vitbench.runs.records import find_record
from vitbench.settings.compose import cache_folder
from vitbench.settings.share import share_options, source_options

if TYPE_CHECKING:
    from torch import Tensor

    from vitbench.machine.hardware import Machine
    from vitbench.probes.subject import Subject


def main(config: Any) -> int:
    """Measures what is missing; 0, or the highest exit code of what was refused."""
    forget()
    calls, typed = asked_for(config)
    if config.file is not None:
        return _draw(calls, typed)
    todo: list[Job] = []
    planned: set[Path] = set()
    jobs, code = jobs_of_all(calls, typed), 0
    read = reader()
    for job in jobs:
        try:
            job = with_partners(job, read)
        except UserError as error:
            if len(jobs) == 1:
                raise
            print(f"vitbench: {job.name}: {error}", file=sys.stderr)
            code = max(code, error.exit_code)
            job = job._replace(probes={name: its for name, its in job.probes.items() if its.get(OTHER) is None})
        paths = {name: files.path_of(job.folder, name, job.checkpoint) for name in job.probes}
        done = [
            name
            for name, options in job.probes.items()
            if files.is_done(paths[name], images=job.images, seed=job.seed, options=options, version=version(name))
        ]
        if done:
            print(f"{job.name}: measured before: {', '.join(done)}")
        missing = {name: job.probes[name] for name in job.probes if name not in done and paths[name] not in planned}
        planned |= {paths[name] for name in missing}
        if missing:
            todo.append(job._replace(probes=missing))
    return max(code, _measure(todo, calls[0], typed) if todo else 0)


def version(name: str) -> int:
    return VERSIONS.get(name, 1)


# --------------------------------------------------------------------------------------------------------- measuring


def _measure(todo: Sequence[Job], asked: dict[str, Any], typed: Sequence[str]) -> int:
    """Measures and writes; what is refused is said when it happens, and the highest exit code returned."""
    from vitbench.machine.hardware import Machine
    from vitbench.machine.progress import progress

    machine = Machine.of(
        device=asked["machine"]["device"], precision="float32", compile=False, threads=asked["machine"]["threads"]
    )
    total, done, code = sum(len(job.probes) for job in todo), 0, 0
    show = asked["machine"]["progress"]
    left_out: set[str] = set()  # said once for all networks of a kind

    def refuse(line: str, error: UserError) -> None:  # also where progress is silent
        nonlocal code
        code = max(code, error.exit_code)
        display.say(line)
        if show is False:
            print(line, file=sys.stderr)

    with progress("probe", total, "probes", show) as display:
        for job in todo:
            wrote = False
            try:
                subject = _subject(job, asked, typed, machine)
            except StorageError:
                raise
            except UserError as error:
                if len(todo) == 1:
                    raise
                refuse(f"vitbench: {job.name}: {error}", error)
                done += len(job.probes)
                continue
            for name, options in job.probes.items():
                display.update(done, f"{job.name} {name}")
                begin = time.monotonic()
                try:
                    rows = look_up("probe", name, MENU)(subject, seed=job.seed, **options)
                    wrote = True
                    _save(job, name, rows, machine)
                    if asked["figures"] and name in FIGURES:
                        ending = ".png" if name in PIXELS else ".svg"
                        write(
                            files.picture_of(job.folder, name, job.checkpoint, ending),
                            _picture(FIGURES, name, subject, job, ending),
                        )
                except StorageError:
                    raise
                except DoesNotApply as error:
                    line = _why_not(job, name, error)
                    if not job.every:
                        refuse(f"vitbench: {job.name}: {line}", error)
                    elif line not in left_out:
                        display.say(line)
                    left_out.add(line)
                except UserError as error:
                    refuse(f"vitbench: {job.name}: probe={name}: {error}", error)
                else:
                    display.say(f"{job.name}: {name}, {len(rows)} numbers, {time.monotonic() - begin:.0f} s")
                    for line in files.undefined(rows):
                        display.say(f"{job.name}: {line}")
                done += 1
                display.update(done)
            if wrote:
                print(f"{job.folder / 'probes'}")
    return code


def _why_not(job: Job, name: str, error: DoesNotApply) -> str:
    """Why a probe does not apply to a network, and which ones do."""
    if isinstance(error, NotInstalled):
        return f"probe={name}: {error}"
    family = job.record["config"]["model"]["name"]
    others = [other for other in MENU if other != name and (other not in FOR_VITS or is_vit(family))]
    return f"probe={name}: does not apply to {family}: {error}; these do: {', '.join(others)}"


def _draw(calls: Sequence[dict[str, Any]], typed: Sequence[str]) -> int:
    """The figure of a probe, of one network or of several side by side, wherever it shall lie: of all that the lines of
    a study name, each once, with the first line's options."""
    from vitbench.machine.hardware import Machine
    from vitbench.numbers.look import FIGURE_ENDINGS

    asked = calls[0]
    path, names = Path(asked["file"]).expanduser(), list({name: None for call in calls for name in call["probe"]})
    ending = path.suffix.lower()
    if ending not in FIGURE_ENDINGS:
        raise UserError(f"file={asked['file']}: the ending says the format; choices: {', '.join(FIGURE_ENDINGS)}")
    each: dict[str, Job] = {}
    for job in jobs_of_all(calls, typed):
        each.setdefault(job.name, job)
    read = reader()
    jobs = [with_partners(job, read) for job in each.values()]
    if len(names) != 1 or names[0] not in (FIGURES if len(jobs) == 1 else TOGETHER):
        several = f", or run=[ID,ID] probe={'|'.join(TOGETHER)}" if TOGETHER else ""
        raise UserError(
            f"file={asked['file']}: draws one probe of one network; type run=ID probe={'|'.join(FIGURES)}{several}"
        )
    machine = Machine.of(
        device=asked["machine"]["device"], precision="float32", compile=False, threads=asked["machine"]["threads"]
    )
    subjects = {job.name: _subject(job, asked, typed, machine, at_most=True) for job in jobs}
    try:
        if len(jobs) == 1:
            blob = _picture(FIGURES, names[0], subjects[jobs[0].name], jobs[0], ending)
        else:
            blob = _picture(TOGETHER, names[0], subjects, jobs[0], ending)
    except DoesNotApply as error:
        raise UserError(_why_not(jobs[0], names[0], error)) from None
    write(path, blob, folders=True)
    print(path)
    return 0


def _picture(menu: dict[str, Choice], name: str, what: Subject | dict[str, Subject], job: Job, ending: str) -> bytes:
    """A figure of a menu, given those of the probe's options that it takes."""
    taken = parameters(menu[name].target)
    options = {key: value for key, value in job.probes[name].items() if key in taken}
    return bytes(look_up("figure", name, menu)(what, seed=job.seed, ending=ending, **options))


def _save(job: Job, name: str, rows: list[files.ProbeRow], machine: Machine) -> None:
    wrong = {row["protocol"] for row in rows if files.version_of(row) != version(name)}
    assert not wrong, f"{wrong}: the menu says version {version(name)}"
    described = machine.described()["hardware"]
    path = files.path_of(job.folder, name, job.checkpoint)
    with storage(path):
        path.parent.mkdir(exist_ok=True)
        for ending in (".svg", ".png"):  # of what was measured before
            files.picture_of(job.folder, name, job.checkpoint, ending).unlink(missing_ok=True)
    files.save_rows(
        path,
        rows,
        images=job.images,
        seed=job.seed,
        options=job.probes[name],
        hardware=f"{described['name']}, {described['threads']} threads",
    )


def _subject(job: Job, asked: dict[str, Any], typed: Sequence[str], machine: Machine, at_most: bool = False) -> Subject:
    """The network of a run, trained or as it was before its first step, with test images of the run's own data; with
    `at_most` all of them where they are fewer than was asked for, which does for a picture."""
    import torch

    from vitbench.data.loader import Normalise
    from vitbench.data.subset import split_and_subset
    from vitbench.probes.subject import Subject, draw_images

    record = job.record
    data = source_options(record["config"]["data"])
    if any(word.startswith("data.root=") for word in typed):
        data["root"] = os.path.expanduser(asked["data"]["root"])
    cache = cache_folder(asked["data"]["cache"])
    dataset = open_dataset(**data | {"cache": cache}, progress=asked["machine"]["progress"] is not False)
    if dataset.fingerprint != record["data_fingerprint"]:
        raise DataError(
            f"data.root={data['root']}: not the images that {job.folder.name} was trained on "
            f"(fingerprint {dataset.fingerprint}, its record has {record['data_fingerprint']})"
        )
    count = min(job.images, len(dataset.test)) if at_most else job.images
    images, labels = draw_images(dataset.test, count, job.seed, machine.device)

    def held_out(most: int) -> tuple[Tensor, Tensor]:
        _, places = split_and_subset(dataset.train.labels, dataset.classes, **share_options(record["config"]))
        pixels, classes = dataset.train.images[places[:most]], dataset.train.labels[places[:most]]
        return torch.from_numpy(pixels).to(machine.device), torch.from_numpy(classes).to(machine.device)

    def network(name: str) -> Subject:
        other = Job(job.folder.parent / name, find_record(job.folder.parent / name), "trained", 0, 0, {}, False)
        if other.record["data_fingerprint"] != record["data_fingerprint"]:
            raise DataError(
                f"{name} was trained on other images (fingerprint {other.record['data_fingerprint']}) than "
                f"{job.folder.name} ({record['data_fingerprint']}): they have none to be compared on"
            )
        return made(other)

    def made(job: Job) -> Subject:
        model = _network(job, asked)
        channels_last = getattr(model, "channels_last", False)
        model.to(machine.device, memory_format=torch.channels_last if channels_last else torch.preserve_format)
        normalise = Normalise(job.record["mean"], job.record["std"], machine.device, channels_last)
        return Subject(model.eval(), images, labels, normalise, len(record["classes"]), job.name, dataset.classes)

    return made(job)._replace(network=network, held_out=held_out)


def _network(job: Job, asked: dict[str, Any]) -> Any:
    from vitbench.data.loader import seed_random_state
    from vitbench.models.build import of_record
    from vitbench.probing.outside import FAMILIES
    from vitbench.probing.outside import build_outside as build_outside
    from vitbench.training.transfer import trained

    record = job.record
    if record["config"]["model"]["name"] in FAMILIES:
        if asked["weights"] is None:
            raise UserError(f"{job.folder.name}: trained elsewhere; name it by model=, name=, weights= and data= again")
        if job.checkpoint != "trained":
            return build_outside(record, None)
        if checksum(Path(asked["weights"]).expanduser(), "weights=") != record["config"]["model"]["weights"]:
            raise UserError(
                f"weights={asked['weights']}: is not the file of {job.folder.name}; only one can be typed, so a "
                "network trained elsewhere is compared with what vitbench trained"
            )
        return build_outside(record, asked["weights"])
    seed_random_state(record["config"]["seed"], 0)  # as `train` begins
    if job.checkpoint == "init":
        return of_record(record)
    return trained(job.folder, record, int(job.checkpoint) if job.checkpoint.isdigit() else None)
