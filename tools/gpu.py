"""Runs the GPU tests, the measurements and a study on a GPU within a limit: `make gpu limit=540 out=FOLDER`.

The steps are in the order of their importance: the GPU tests, rows of `vitbench bench`, the study data_scaling_gpu, and
larger networks. Each step is a separate process. A line is printed before and after it, and it writes its results into
`out` as soon as it has them. A step that does not fit into the limit is cut off, and the same command continues from
the files in `out`:

    test-gpu.txt       the output of the tests, and how they ended
    bench-<card>.json  the results of `vitbench bench`
    runs.tar.gz        the folders of the runs without weights, from which missing runs are unpacked into `runs`
    results/<study>/   the data of the study, from which `vitbench report results=OUT/results` makes tables and figures
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from vitbench.errors import StorageError, UserError, check_choice, did_you_mean
from vitbench.machine.disk import storage, write
from vitbench.machine.provenance import commit, cores, processor
from vitbench.runs.records import run_folders
from vitbench.runs.run import Run, read_metrics

# the steps, in the order of their importance -------------------------------------------------------------------------

TESTS = ["-m", "gpu", "tests/gpu/test_training.py", "tests/gpu/test_probes.py"]
REHEARSED = ["-m", "gpu", "tests/gpu/test_training.py", "-k", "no_bit and relative_bias"]  # on a CPU, by a tape
ROWS = {  # the rows of `vitbench bench`, with settings for each; rows that are missing here measure CPUs
    "peak": "",
    "loop": "sizes=[tiny]",
    "stacked": "windows=1",
    "graph": "",
    "overhead": "",
    "start": "",
    "epoch": "",
    "stream": "",
    "resolution": "windows=1",
    "open": "",
}
STUDY = "data_scaling_gpu"
SWEEPS = {  # settings of each sweep, by the name of its folder in `runs`; the first is the study without changes
    STUDY: "",
    "small": "model.size=small data.count=45000 seed=0",
    "tiny": "model.size=tiny",
}


@dataclass(frozen=True)
class Words:
    """The settings that the plan types in its commands."""

    rows: Mapping[str, str]
    bench: str
    sweeps: str
    speed: str  # settings of the runs that measure the speed of the study

    @classmethod
    def of(cls, rehearse: bool) -> Words:
        if rehearse:
            return cls(
                rows={"peak": ""},
                bench="device=cpu windows=1 seconds=0.05",
                sweeps="hydra/launcher=gpus hydra.launcher.devices=[0] machine.device=cpu "
                "data=shapes data.image_size=16 data.train_images=500 data.test_images=50 data.count=450 seed=0 "
                "model.size=nano optim.batch_size=16 optim.epochs=null optim.min_steps=null optim.steps=20",
                speed="seed=1000 optim.steps=20 eval_every=10",
            )
        root = os.environ.get("CIFAR10_JPEG")
        data = f"data=imagefolder data.root={root} data.name=cifar10-jpeg" if root else "data=cifar10"
        return cls(
            rows=ROWS,
            bench="device=cuda windows=3 seconds=0.5",
            sweeps=f"hydra/launcher=gpus hydra.launcher.per_gpu=2 machine.device=cuda {data}",
            speed="seed=1000 data.count=450 optim.epochs=null optim.min_steps=null optim.steps=1000 eval_every=200",
        )


# time ----------------------------------------------------------------------------------------------------------------

SECONDS_TO_END = 10.0  # time that a process gets after a signal; a sweep saves its runs within 8 s
SECONDS_TO_PACK = 15.0  # time for the archive and the report after a sweep
SECONDS_OF_SPEED = 75.0  # time for the runs that measure the speed of the study
MARGIN = 5.0  # time before the limit, because this process may be ended there
ARCHIVED_BYTES = 15_000_000  # most bytes of states in the archive; some machines return only files of up to 16 MB

DONE, DONE_BEFORE, CUT_OFF, NO_TIME = "done", "done before", "cut off", "no time left"


@dataclass
class Plan:
    """The time that is left, and how each step ended."""

    limit: float
    begin: float = field(default_factory=time.monotonic)
    outcomes: dict[str, str] = field(default_factory=dict)  # how each step ended, by its name
    failed: bool = False
    stopped: bool = False  # whether a signal stopped the plan

    def left(self) -> float:
        return 0.0 if self.stopped else self.limit - MARGIN - (time.monotonic() - self.begin)

    def say(self, line: str) -> None:
        print(f"[{time.monotonic() - self.begin:4.0f} s] {line}", flush=True)

    def note(self, step: str, outcome: str) -> None:
        self.outcomes[step] = outcome
        self.say(f"{step}: {outcome}")

    def stop(self, number: int, frame: Any) -> None:
        """Handles a signal: the present step is cut off, and its results are packed."""
        self.stopped = True

    @contextmanager
    def going_on(self, step: str) -> Iterator[None]:
        """Notes an error within a step, so that the plan continues with the next one."""
        try:
            yield
        except Exception as error:
            self.failed = True
            self.note(step, f"FAILED: {error!r}")
            traceback.print_exc()

    def do(
        self,
        step: str,
        command: list[str],
        at_most: float = float("inf"),
        keep: float = 0.0,
        ask: signal.Signals = signal.SIGTERM,
        output: IO[str] | None = None,
    ) -> bool:
        """Runs a command and notes how it ended. Returns False if it was cut off or there is no time for it.

        It gets `at_most` seconds, and less if only `keep` seconds would be left after it. Then the signal `ask` asks it
        to end, and processes that are still running after SECONDS_TO_END are killed.
        """
        seconds = min(at_most, self.left() - SECONDS_TO_END - keep)
        if seconds < 1:
            self.note(step, NO_TIME)
            return False
        self.say(f"{step}: {seconds:.0f} s at most")
        begin = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        while process.poll() is None and time.monotonic() < begin + seconds and not self.stopped:
            time.sleep(0.1)
        in_time = process.poll() is not None
        if not in_time:
            process.send_signal(ask)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_END)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code, took = process.wait(), f"{time.monotonic() - begin:.0f} s"
        if not in_time:
            self.note(step, f"{CUT_OFF} after {took}")
        elif code == 0:
            self.note(step, f"{DONE} in {took}")
        else:
            self.failed = True
            self.note(step, f"FAILED with exit code {code} after {took}")
        return in_time


# what is typed -------------------------------------------------------------------------------------------------------


@dataclass
class Options:
    limit: float = 540.0  # seconds for everything
    out: Path = Path()  # folder of the results; default: results/gpu, or runs/rehearsal/out
    runs: Path = Path()  # folder of the runs; default: runs/gpu, or runs/rehearsal/runs
    source: Path | None = None  # from=: the `out` of an earlier call, or its runs.tar.gz
    tests: float = 120.0  # most seconds for the tests; 0 leaves them out
    bench: float = 150.0  # most seconds for all rows of the bench; 0 leaves them out
    train: float = float("inf")  # most seconds for each sweep; 0 leaves them out
    rows: list[str] = field(default_factory=list)  # rows of the bench; empty: all
    sweeps: list[str] = field(default_factory=list)  # names of sweeps; empty: all
    words: str = ""  # settings for all sweeps
    rehearse: bool = False  # true: tries the plan on a CPU, with tiny sizes

    @classmethod
    def typed(cls, words: Iterable[str]) -> Options:
        """Reads `key=value` words. Raises UserError for an unknown or wrong one."""
        options = cls()
        for word in words:
            key, _, value = word.partition("=")
            if key in ("limit", "tests", "bench", "train"):
                if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
                    raise UserError(f"{word}: must be a number of seconds, such as {key}=120")
                setattr(options, key, float(value))
            elif key in ("out", "runs"):
                setattr(options, key, Path(value).expanduser())
            elif key == "from":
                options.source = Path(value).expanduser()
            elif key in ("rows", "sweeps"):
                names, choices = value.strip("[]").split(","), ROWS if key == "rows" else SWEEPS
                for name in names:
                    check_choice(key, name, choices)
                setattr(options, key, names)
            elif key == "words":
                options.words = value
            elif key == "rehearse" and value in ("true", "false"):
                options.rehearse = value == "true"
            else:
                keys = "limit out runs from tests bench train rows sweeps words rehearse=true"
                raise UserError(f"{word}: {did_you_mean(key, keys.split())}")
        usual = ("runs/rehearsal/out", "runs/rehearsal/runs") if options.rehearse else ("results/gpu", "runs/gpu")
        options.out, options.runs = (
            given if given != Path() else Path(place)
            for given, place in zip((options.out, options.runs), usual, strict=True)
        )
        return options


def merged(*lines: str) -> list[str]:
    """Returns the words of these lines. A later word replaces an earlier one with the same key."""
    return list({word.partition("=")[0]: word for line in lines for word in line.split()}.values())


def vitbench(command: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "vitbench", command, *words]


# the steps -----------------------------------------------------------------------------------------------------------


def test(plan: Plan, options: Options, card: str) -> None:
    """Runs the tests that need a GPU, without those that have already passed with this commit on this card."""
    file, title = options.out / "test-gpu.txt", f"commit {commit() or 'unknown'}, {card}"
    before = file.read_text(errors="replace").splitlines() if file.exists() else []
    if before[:1] != [title]:
        before = []
    if before and before[-1].startswith(DONE):
        return plan.note("tests", DONE_BEFORE)
    said = (
        re.search(r"(?:^|PASSED )(tests/gpu/\S+::.+?)(?: PASSED.*)?$", line.strip())
        for line in before
        if "PASSED" in line
    )
    passed = [found[1] for found in said if found]
    tests = REHEARSED if options.rehearse else TESTS
    if find_spec("xdist") and not options.rehearse:
        tests = ["-n", str(min(4, cores())), *tests]  # many tests wait for the host
    command = [sys.executable, "-m", "pytest", "-v", *tests, *(f"--deselect={test}" for test in passed)]
    with storage(file), file.open("a" if before else "w") as output:
        if not before:
            print(title, file=output, flush=True)
        plan.do("tests", command, options.tests, ask=signal.SIGINT, output=output)
        print(plan.outcomes["tests"], file=output)
    for line in file.read_text(errors="replace").splitlines()[len(before) :]:
        if re.match(r"(FAILED|ERROR) |=+ .* in [0-9.]+s", line):  # pytest's lines about failures, and its last line
            print(line, flush=True)


def bench(plan: Plan, options: Options, card: str, words: Words) -> None:
    """Measures the rows that the file does not have of this commit."""
    file = options.out / f"bench-{re.sub('[^a-z0-9]+', '-', card.lower()).strip('-')}.json"
    measured = rows_of(file)
    end = time.monotonic() + options.bench
    for row in options.rows or words.rows:
        step = f"bench {row}"
        if row in measured:
            plan.note(step, DONE_BEFORE)
            continue
        typed = [f"rows={row}", f"file={file}", *merged(words.bench, words.rows.get(row, ""))]
        plan.do(step, vitbench("bench", *typed), end - time.monotonic())


def rows_of(file: Path) -> set[str]:
    """Returns the rows that a file of `vitbench bench` has of this commit."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return {one["row"] for one in json.loads(file.read_bytes())["figures"] if one["commit"] == commit()}
    return set()


def sweep(plan: Plan, options: Options, name: str, words: list[str]) -> None:
    """Continues a sweep, and packs all its runs, finished or not."""
    step, typed = f"sweep {name}", [f"study={STUDY}", f"runs={options.runs / name}", *words]
    plan.do(step, vitbench("sweep", *typed), options.train, keep=SECONDS_TO_PACK)
    if plan.outcomes[step] != NO_TIME:
        plan.say(pack(options.runs, options.out / "runs.tar.gz"))


def tell_speed(plan: Plan, options: Options, words: list[str], speed: str) -> None:
    """Prints how long the study would take. If the recorded runs are not enough to tell, it times short runs.

    The steps that the sweep itself times have neither graph nor compiler, so they are far slower than a run on a GPU.
    """
    if plan.left() < SECONDS_TO_END + SECONDS_TO_PACK:
        return
    typed = [f"study={STUDY}", f"runs={options.runs / STUDY}", *words]
    with suppress(subprocess.TimeoutExpired):
        dry = subprocess.run(
            vitbench("sweep", *typed, "dry_run=true"), capture_output=True, text=True, timeout=max(1.0, plan.left())
        )
        lines = dry.stdout.splitlines()
        counts = next((i for i, line in enumerate(lines) if " to do" in line), 0)  # they come after a line per run
        for line in lines[counts:] if dry.returncode == 0 else [dry.stderr.strip()]:
            plan.say(line)
        if "no estimate" in dry.stdout or "measured step" in dry.stdout:
            runs = options.runs / "speed"
            timed = merged(" ".join(words), speed, f"study={STUDY} runs={runs}")
            plan.do("speed", vitbench("sweep", *timed), SECONDS_OF_SPEED, keep=SECONDS_TO_PACK)
            for line in speeds(runs, options.runs / STUDY, words):
                plan.say(line)
    plan.say(f"{max(0.0, plan.left() - SECONDS_TO_END - SECONDS_TO_PACK):.0f} s are left for the sweeps")


def speeds(timed: Path, runs: Path, words: list[str]) -> Iterator[str]:
    """Yields a line for each model with the speed of its run in `timed`, and the time of the runs that are missing."""
    from vitbench.runs.plan import plan
    from vitbench.runs.study import load_study
    from vitbench.settings.schedule import steps_of
    from vitbench.settings.schema import SWEEP_KEYS

    typed = [word for word in words if not word.startswith("hydra") and word.partition("=")[0] not in SWEEP_KEYS]
    planned = plan(load_study(STUDY), typed)
    missing = [run.settings for run in planned if Run(runs / run.id, run.settings).record() is None]
    for folder in run_folders(timed):
        if len(lines := read_metrics(folder)) < 2:
            continue  # the run was cut off
        first, last = lines[0], lines[-1]  # nothing is compiled between these lines
        seconds = float(last["train_seconds"]) - float(first["train_seconds"])
        rate = (int(last["step"]) - int(first["step"])) / max(seconds, 1e-3)
        model = folder.name.partition("-")[0]
        its = [settings for settings in missing if settings["model"]["name"] == model]
        steps = sum(steps_of(settings["optim"], settings["data"]["count"]) for settings in its)
        yield f"{model}: {rate:,.0f} steps a second; {steps:,} steps are missing, {steps / rate:,.0f} s one by one"


def report(plan: Plan, options: Options) -> None:
    """Writes the data of the study's runs, without tables and figures, which can be made from it on any machine."""
    runs, results = options.runs / STUDY, options.runs / "results"
    if not any(runs.glob("*/record.json")):
        return plan.note("report", "no run has ended yet")
    typed = [f"study={STUDY}", f"runs={runs}", f"results={results}"]
    if plan.do("report", vitbench("report", *typed)):
        for file in ("runs.csv", "mcnemar.csv", "study.yaml"):
            if (results / STUDY / file).exists():
                write(options.out / "results" / STUDY / file, (results / STUDY / file).read_bytes(), folders=True)


# the archive of runs -------------------------------------------------------------------------------------------------


def pack(runs: Path, archive: Path) -> str:
    """Packs the files that resuming and a report need. Returns a line with the number of runs and of states left out.

    Weights are not packed, because only probes need them. The smallest states are packed first.
    """
    folders = [folder for name in SWEEPS for folder in run_folders(runs / name)]
    ended = {folder for folder in folders if (folder / "record.json").exists()}
    files = [path for name in SWEEPS for path in runs.glob(f"{name}/.plans/*.json")]
    for folder in folders:
        kinds = (folder.glob(f"[!.]*{suffix}") for suffix in (".yaml", ".csv", ".json", ".npy"))
        files += [path for paths in kinds for path in paths]
    newest = [state for folder in folders if folder not in ended for state in Run(folder, {}).states()[:1]]
    states: list[Path] = []
    room = ARCHIVED_BYTES
    for state in sorted(newest, key=lambda path: path.stat().st_size):
        if (room := room - state.stat().st_size) >= 0:
            states.append(state)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=6) as tar:
        for path in (*files, *states):
            tar.add(path, path.relative_to(runs))
    write(archive, packed.getvalue())
    large = len(newest) - len(states)
    too_large = f"; {large} of {len(newest)} states are too large for the archive and stay in {runs}" if large else ""
    return (
        f"{archive}: {len(folders)} runs, {len(ended)} of them ended, {len(packed.getvalue()) / 1e6:.1f} MB{too_large}"
    )


def unpack(archive: Path, runs: Path) -> str:
    """Unpacks the runs that `runs` does not have; returns a line about it."""
    there = [*runs.glob("*/*/config.yaml"), *runs.glob("*/.plans/*.json")]
    before = {path.parent.relative_to(runs) for path in there}
    try:
        with tarfile.open(archive) as tar:
            new = [one for one in tar.getmembers() if one.isfile() and Path(one.name).parent not in before]
            with storage(runs):
                runs.mkdir(parents=True, exist_ok=True)
                tar.extractall(runs, new, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive} is not an archive of runs: {str(error).splitlines()[0]}") from None
    folders = {Path(one.name).parent for one in new if Path(one.name).name == "config.yaml"}
    return f"{len(folders)} runs unpacked from {archive}"


def bring(options: Options) -> None:
    """Copies the files that `from` names into `out`, unless they are there."""
    source = options.source
    if source is None:
        return
    if not source.exists():
        raise UserError(f"from={source}: no such file or folder; type the out= of an earlier call, or its runs.tar.gz")
    if source.is_file() and not tarfile.is_tarfile(source):
        raise UserError(f"from={source}: is not a runs.tar.gz; type the out= of an earlier call, or its runs.tar.gz")
    files = [source]
    if source.is_dir():
        files = [path for name in ("test-gpu.txt", "bench-*.json", "runs.tar.gz") for path in source.glob(name)]
    for path in files:
        here = options.out / (path.name if source.is_dir() else "runs.tar.gz")
        if not here.exists():
            with storage(here):
                shutil.copyfile(path, here)


# all of it -----------------------------------------------------------------------------------------------------------


def main(words: list[str]) -> int:
    options = Options.typed(words)
    plan = Plan(options.limit)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, plan.stop)
    card = processor() if options.rehearse else name_of_gpu()
    if options.rehearse:
        os.environ["VITBENCH_REHEARSE"] = "1"  # tests/gpu/conftest.py
    with storage(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
    bring(options)
    plan.say(f"{card}, commit {commit() or 'unknown'}, {options.limit:.0f} s, into {options.out}")
    if (archive := options.out / "runs.tar.gz").exists():
        plan.say(unpack(archive, options.runs))
    its = Words.of(options.rehearse)
    if options.tests:
        with plan.going_on("tests"):
            test(plan, options, card)
    if options.bench:
        with plan.going_on("bench"):
            bench(plan, options, card, its)
    if options.train:
        for name in options.sweeps or SWEEPS:
            typed = merged(SWEEPS[name], its.sweeps, options.words)
            if name == STUDY:
                with plan.going_on("speed"):
                    tell_speed(plan, options, typed, its.speed)
            with plan.going_on(f"sweep {name}"):
                sweep(plan, options, name, typed)
            if name == STUDY:
                with plan.going_on("report"):
                    report(plan, options)
    plan.say("in short:")
    for step, outcome in plan.outcomes.items():
        print(f"  {step}: {outcome}", flush=True)
    return 1 if plan.failed else 75 if plan.stopped else 0


def name_of_gpu() -> str:
    """Returns the name of the first GPU. Raises UserError if torch sees none."""
    program = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    said = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    if said.returncode or not said.stdout.strip():
        raise UserError("torch sees no GPU here; rehearse=true tries the plan on a CPU")
    return said.stdout.strip()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (UserError, StorageError) as error:
        print(f"make gpu: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
