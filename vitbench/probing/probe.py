"""Measures networks: `vitbench probe run=ID probe=shift`, `study=NAME probe=all checkpoint=[trained,init]`.

Each network is built once, and all its probes get it with the same test images. When a probe or a run is refused, a
line says why, and the others continue.
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
from vitbench.machine.outputs import check_output, write_output
from vitbench.menu import Choice, look_up, parameters
from vitbench.models.menu import is_vit
from vitbench.probes.menu import FIGURES, FOR_VITS, MENU, PIXELS, TOGETHER, VERSIONS
from vitbench.probing.jobs import OTHER, Job, all_jobs, read_requests, with_partners
from vitbench.probing.partners import reader
from vitbench.runs import probe_rows as files
from vitbench.runs.records import find_record
from vitbench.settings.compose import cache_folder
from vitbench.settings.share import places_of, share_options, source_options

if TYPE_CHECKING:
    from torch import Tensor

    from vitbench.machine.hardware import Machine
    from vitbench.machine.progress import Progress
    from vitbench.probes.subject import Subject


def main(config: Any) -> int:
    """Measures what is not measured yet. Returns 0, or the highest exit code of what was refused."""
    return max((error.exit_code for error in measure(config)[1]), default=0)


def measure(config: Any) -> tuple[list[Job], list[UserError]]:
    """Does what `main` does; returns the jobs that were asked for (none where only a figure was), and the refusals."""
    forget()
    requests, typed = read_requests(config)
    if config.file is not None:
        _draw(requests, typed)
        return [], []
    jobs = all_jobs(requests, typed)
    refused: list[UserError] = []
    todo: list[Job] = []
    planned: set[Path] = set()
    read = reader()
    for job in jobs:
        try:
            job = with_partners(job, read)
        except UserError as error:
            if len(jobs) == 1:
                raise
            print(f"vitbench: {job.name}: {error}", file=sys.stderr)
            refused.append(error)
            alone = {name: options for name, options in job.probes.items() if options.get(OTHER) is None}
            job = job._replace(probes=alone)
        paths = {name: files.path_of(job.folder, name, job.checkpoint) for name in job.probes}
        done = [
            name
            for name, options in job.probes.items()
            if files.is_done(paths[name], images=job.images, seed=job.seed, options=options, version=version(name))
        ]
        if done:
            print(f"{job.name}: measured already: {', '.join(done)}")
        missing = {name: job.probes[name] for name in job.probes if name not in done and paths[name] not in planned}
        planned |= {paths[name] for name in missing}
        if missing:
            todo.append(job._replace(probes=missing))
    return jobs, [*refused, *(_measure(todo, requests[0], typed) if todo else [])]


def version(name: str) -> int:
    return VERSIONS.get(name, 1)


# --------------------------------------------------------------------------------------------------------- measuring


def _measure(todo: Sequence[Job], request: dict[str, Any], typed: Sequence[str]) -> list[UserError]:
    """Measures all probes of all jobs; returns the refusals."""
    from vitbench.machine.progress import progress

    machine = _machine(request)
    show = request["machine"]["progress"]
    done = 0
    with progress("probe", sum(len(job.probes) for job in todo), "probes", show) as display:
        report = _Report(display, show)
        for job in todo:
            try:
                subject = _subject(job, request, typed, machine)
            except StorageError:
                raise
            except UserError as error:
                if len(todo) == 1:
                    raise
                report.refuse(f"{job.name}: {error}", error)
                done += len(job.probes)
                continue
            measured = False
            for name in job.probes:
                display.update(done, f"{job.name} {name}")
                measured |= _measure_one(job, name, subject, machine, request["figures"], report)
                done += 1
                display.update(done)
            if measured:
                print(f"{job.folder / 'probes'}")
    return report.refused


def _measure_one(job: Job, name: str, subject: Subject, machine: Machine, figures: bool, report: _Report) -> bool:
    """Measures one probe of one network and writes its rows and figure; returns whether it could be measured."""
    begin = time.monotonic()
    measured = False
    try:
        rows = look_up("probe", name, MENU)(subject, seed=job.seed, **job.probes[name])
        measured = True
        _save(job, name, rows, machine)
        if figures and name in FIGURES:
            ending = ".png" if name in PIXELS else ".svg"
            path = files.picture_of(job.folder, name, job.checkpoint, ending)
            write(path, _picture(FIGURES, name, subject, job, ending))
    except StorageError:
        raise
    except DoesNotApply as error:
        report.leave_out(job, _why_not(job, name, error), error)
    except UserError as error:
        report.refuse(f"{job.name}: probe={name}: {error}", error)
    else:
        report.say(f"{job.name}: {name}, {len(rows)} numbers, {time.monotonic() - begin:.0f} s")
        for line in files.undefined(rows):
            report.say(f"{job.name}: {line}")
    return measured


class _Report:
    """Tells the user what happens while probes are measured, and collects refusals."""

    def __init__(self, display: Progress, show: bool | None) -> None:
        self.say, self._show = display.say, show
        self.refused: list[UserError] = []
        self._left_out: set[str] = set()

    def refuse(self, line: str, error: UserError) -> None:
        self.refused.append(type(error)(line))
        self.say(f"vitbench: {line}")
        if self._show is False:  # `say` then prints nothing, but an error must be printed
            print(f"vitbench: {line}", file=sys.stderr)

    def leave_out(self, job: Job, line: str, error: UserError) -> None:
        """Reports a probe that does not apply: as an error if it was named, otherwise once for each kind of network."""
        if not job.measures_all:
            self.refuse(f"{job.name}: {line}", error)
        elif line not in self._left_out:
            self.say(line)
        self._left_out.add(line)


def _machine(request: dict[str, Any]) -> Machine:
    from vitbench.machine.hardware import Machine

    options = {key: request["machine"][key] for key in ("device", "threads")}
    return Machine.of(**options, precision="float32", compile=False)


def _why_not(job: Job, name: str, error: DoesNotApply) -> str:
    """Says in a line why the probe does not apply to the network, and which probes do."""
    if isinstance(error, NotInstalled):
        return f"probe={name}: {error}"
    family = job.record["config"]["model"]["name"]
    others = [other for other in MENU if other != name and (other not in FOR_VITS or is_vit(family))]
    return f"probe={name}: does not apply to {family}: {error}; these do: {', '.join(others)}"


def _draw(requests: Sequence[dict[str, Any]], typed: Sequence[str]) -> None:
    """Writes the figure of one probe into `file`, for one network or for several side by side.

    With a study, these are the networks of all lines of its `probes:`, each once, with the options of the first line.
    """
    from vitbench.numbers.look import FIGURE_ENDINGS

    request = requests[0]
    path = Path(request["file"]).expanduser()
    probes = list({name: None for each in requests for name in each["probe"]})
    ending = path.suffix.lower()
    if ending not in FIGURE_ENDINGS:
        raise UserError(f"file={request['file']}: the ending says the format; choices: {', '.join(FIGURE_ENDINGS)}")
    check_output(path, replace=request["replace"])
    jobs_by_name: dict[str, Job] = {}
    for job in all_jobs(requests, typed):
        jobs_by_name.setdefault(job.name, job)
    read = reader()
    jobs = [with_partners(job, read) for job in jobs_by_name.values()]
    if len(probes) != 1 or probes[0] not in (FIGURES if len(jobs) == 1 else TOGETHER):
        several = f", or run=[ID,ID] probe={'|'.join(TOGETHER)}" if TOGETHER else ""
        raise UserError(
            f"file={request['file']}: draws one probe of one network; type run=ID probe={'|'.join(FIGURES)}{several}"
        )
    machine = _machine(request)
    subjects = {job.name: _subject(job, request, typed, machine, at_most=True) for job in jobs}
    try:
        if len(jobs) == 1:
            blob = _picture(FIGURES, probes[0], subjects[jobs[0].name], jobs[0], ending)
        else:
            blob = _picture(TOGETHER, probes[0], subjects, jobs[0], ending)
    except DoesNotApply as error:
        raise UserError(_why_not(jobs[0], probes[0], error)) from None
    write_output(path, blob, replace=request["replace"])
    print(path)


def _picture(menu: dict[str, Choice], name: str, drawn: Subject | dict[str, Subject], job: Job, ending: str) -> bytes:
    """Draws the figure of a probe, with those of the probe's options that the figure takes."""
    taken = parameters(menu[name].target)
    options = {key: value for key, value in job.probes[name].items() if key in taken}
    return bytes(look_up("figure", name, menu)(drawn, seed=job.seed, ending=ending, **options))


def _save(job: Job, name: str, rows: list[files.ProbeRow], machine: Machine) -> None:
    wrong = {row["protocol"] for row in rows if files.version_of(row) != version(name)}
    assert not wrong, f"{wrong}: the menu says version {version(name)}"
    path = files.path_of(job.folder, name, job.checkpoint)
    with storage(path):
        path.parent.mkdir(exist_ok=True)
        for ending in (".svg", ".png"):  # the old pictures show rows that are now replaced
            files.picture_of(job.folder, name, job.checkpoint, ending).unlink(missing_ok=True)
    described = machine.described()["hardware"]
    hardware = f"{described['name']}, {described['threads']} threads"
    options = job.probes[name]
    files.save_rows(path, rows, images=job.images, seed=job.seed, options=options, hardware=hardware)


def _subject(
    job: Job, request: dict[str, Any], typed: Sequence[str], machine: Machine, at_most: bool = False
) -> Subject:
    """Returns the network of a job, with test images of the run's own data.

    With `at_most`, it takes all test images where there are fewer than were asked for, which is enough for a figure.
    """
    import torch

    from vitbench.data.loader import Normalise
    from vitbench.data.subset import split_and_subset
    from vitbench.probes.subject import Subject, draw_images

    record = job.record
    data = source_options(record["config"]["data"])
    if any(word.startswith("data.root=") for word in typed):
        data["root"] = os.path.expanduser(request["data"]["root"])
    cache = cache_folder(request["data"]["cache"])
    dataset = open_dataset(**data | {"cache": cache}, progress=request["machine"]["progress"] is not False)
    if dataset.fingerprint != record["data_fingerprint"]:
        raise DataError(
            f"data.root={data['root']}: these are not the images that {job.folder.name} was trained on "
            f"(their fingerprint is {dataset.fingerprint}, its record has {record['data_fingerprint']})"
        )
    count = min(job.images, len(dataset.test)) if at_most else job.images
    images, labels = draw_images(dataset.test, count, job.seed, machine.device)

    def held_out(most: int) -> tuple[Tensor, Tensor]:
        """Returns at most `most` of the run's validation images, and their labels."""
        _, indices = split_and_subset(dataset.train.labels, dataset.classes, **share_options(record["config"]))
        pixels, classes = dataset.train.images[indices[:most]], dataset.train.labels[indices[:most]]
        return torch.from_numpy(pixels).to(machine.device), torch.from_numpy(classes).to(machine.device)

    def partner(run_id: str) -> Subject:
        folder = job.folder.parent / run_id
        other = Job(folder, find_record(folder), "trained", 0, 0, {}, False)
        if other.record["data_fingerprint"] != record["data_fingerprint"]:
            raise DataError(
                f"{run_id} was trained on other images (fingerprint {other.record['data_fingerprint']}) than "
                f"{job.folder.name} ({record['data_fingerprint']}), so there are none to compare them on"
            )
        return subject_of(other)

    def subject_of(job: Job) -> Subject:
        model = _network(job, request)
        channels_last = getattr(model, "channels_last", False)
        model.to(machine.device, memory_format=torch.channels_last if channels_last else torch.preserve_format)
        places = places_of(job.record["config"], images.shape[-1])
        normalise = Normalise(job.record["mean"], job.record["std"], machine.device, channels_last, places)
        return Subject(model.eval(), images, labels, normalise, len(record["classes"]), job.name, dataset.classes)

    return subject_of(job)._replace(network=partner, held_out=held_out)


def _network(job: Job, request: dict[str, Any]) -> Any:
    """Builds the network of a job on the CPU, with the weights of its checkpoint or those drawn before training."""
    from vitbench.data.loader import seed_random_state
    from vitbench.models.build import of_record
    from vitbench.probing.outside import build_outside
    from vitbench.training.transfer import trained

    record = job.record
    if "network" in record["config"]["model"]:  # it was trained elsewhere
        if request["weights"] is None:
            raise UserError(f"{job.folder.name}: was trained elsewhere; type model=, arch=, weights= and data= again")
        if job.checkpoint != "trained":
            return build_outside(record, None)
        if checksum(Path(request["weights"]).expanduser(), "weights=") != record["config"]["model"]["weights"]:
            raise UserError(
                f"weights={request['weights']}: is not the file of {job.folder.name}; only one file can be typed, so a "
                "network trained elsewhere can only be compared with networks that vitbench trained"
            )
        return build_outside(record, request["weights"])
    seed_random_state(record["config"]["seed"], 0)  # as training does before it draws its first weights
    if job.checkpoint == "init":
        return of_record(record)
    return trained(job.folder, record, int(job.checkpoint) if job.checkpoint.isdigit() else None)
