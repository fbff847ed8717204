"""Runs vitbench in child processes that are disturbed, and compares what they leave with an undisturbed run.

Most children are forked from a process that has already imported torch, so they take about a second. Rounds that depend
on how a process starts (memory, descriptors, the clock) use new processes, and so does the undisturbed run.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # set before anything imports torch

import csv
import importlib
import io
import itertools
import json
import pkgutil
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.machine.disk import sha256_of

ROOT = Path(__file__).resolve().parent.parent
STEPS = 12
KEPT = (4, 8)
TYPED = f"""train model=vit pe=learned model.size=nano model.width=32 model.heads=2 model.depth=2
    data=shapes data.train_images=32 data.test_images=16 data.image_size=16 optim.batch_size=8 optim.steps={STEPS}
    optim.schedule=wsd eval_every=2 keep=[{KEPT[0]},{KEPT[1]}] machine.device=cpu machine.threads=1
    machine.progress=false runs=runs data.cache=cache"""
WORDS = TYPED.split()
TIMES = {"train_seconds", "total_train_seconds", "images_per_second", "created", "sha256", "files", "warnings"}
AT_MOST = 600.0  # seconds; a child that takes longer hangs, even on a busy machine
PRELOADED = """hydra.core.plugins filelock yaml torch._dynamo vitbench.data.shapes vitbench.models.vit
    vitbench.pe.learned vitbench.training.train vitbench.training.prepare vitbench.training.forecast
    vitbench.training.finish"""
WARNING = re.compile(r"warning: |W[0-9]{4} ")  # warnings of vitbench and of torch's log
NOT_TRIED = 77  # the exit code of a child whose fault this machine does not allow
SAVED_WITHIN = 10.0  # seconds after a signal in which a run must have saved and ended


class Failed(Exception):
    """A round failed: something happened that must not happen."""


class NotTried(Exception):
    """This machine cannot do a round; the message says why."""


# processes -----------------------------------------------------------------------------------------------------------


class Ended(NamedTuple):
    """How a process ended. The code is negative if a signal ended it."""

    code: int
    err: str
    seconds: float


@dataclass
class Child:
    """A process that runs vitbench in a folder."""

    pid: int
    folder: Path
    begin: float = field(default_factory=time.monotonic)

    def wait(self, seconds: float = AT_MOST, kill: bool = False) -> Ended:
        """Waits until it has ended. After `seconds` it is killed, which is a failure unless `kill` is true."""
        descriptor = os.pidfd_open(self.pid)
        in_time = bool(select.select([descriptor], [], [], seconds)[0])
        os.close(descriptor)
        if not in_time:
            os.kill(self.pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if not in_time and not kill:
            raise Failed(f"it hung for {seconds:.0f} s")
        err = (self.folder / "err").read_text(errors="replace")
        if code == NOT_TRIED:
            raise NotTried(err.strip())
        return Ended(code, err, time.monotonic() - self.begin)


def fork(folder: Path, *more: str, before: Callable[[], object] = lambda: None) -> Child:
    """Forks a child that runs `vitbench` with WORDS and `more`; the child calls `before` first."""
    if pid := os.fork():
        return Child(pid, folder)
    code: Any = 1
    try:
        os.chdir(folder)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as when a user types the command
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        before()
        from vitbench import cli

        code = cli.run([*WORDS, *more])
    except SystemExit as end:
        code = end.code
    except NotTried as reason:
        print(reason, file=sys.stderr)
        code = NOT_TRIED
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)


def new(folder: Path, limit: Callable[[], object] | None = None, **environment: str) -> Ended:
    """Does the same in a new process."""
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "vitbench", *WORDS],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"} | environment,
            stdout=out,
            stderr=err,
            preexec_fn=limit,
        )
    return Child(process.pid, folder).wait()


def told(ended: Ended, *codes: int) -> Ended:
    """Returns `ended`. Raises Failed unless the exit code is one of `codes`, with one line of output if it is not 0."""
    lines = [line for line in ended.err.splitlines() if not WARNING.match(line)]
    if ended.code not in codes:
        raise Failed(f"exit code {ended.code}: {lines[-1] if lines else 'nothing was printed'}")
    if any(line.startswith("Traceback") for line in lines):
        raise Failed(f"a traceback, {lines[-1]}")
    if ended.code > 0 and len(lines) != 1:
        raise Failed(f"{len(lines)} lines with exit code {ended.code}: {lines}")
    return ended


# what is left --------------------------------------------------------------------------------------------------------


def run_of(folder: Path) -> Path:
    """Returns the only run in the folder of a round."""
    (run,) = (path for path in (folder / "runs").iterdir() if path.is_dir())
    return run


def left_by(run: Path) -> tuple[dict[str, Any], list[str]]:
    """Returns what a finished run left, by name and without times, and the warnings of its record."""
    from vitbench.training.checkpoint import digest, load_tensors

    record = json.loads((run / "record.json").read_bytes())
    files = {name: sha256_of(run / name) for name in record["files"]}
    if files != record["files"]:
        raise Failed("the checksums in the record differ from those of the files")
    if not 0 < record["train_seconds"] < AT_MOST:
        raise Failed(f"train_seconds is {record['train_seconds']}")
    left = {f"record.{key}": value for key, value in record.items() if key not in TIMES}
    rows = csv.DictReader(io.StringIO((run / "metrics.csv").read_text()))
    left["metrics.csv"] = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
    for path in run.iterdir():
        if ".damaged" in path.name:
            continue  # it was renamed because it is damaged
        if path.name.startswith("state."):  # a state contains times, also in the lines of metrics within it
            tensors, about = load_tensors(path)
            tensors.pop("metrics", None)
            left[path.name] = digest(tensors), {key: value for key, value in about.items() if key not in TIMES}
        elif path.name not in ("metrics.csv", "record.json"):
            left[path.name] = sha256_of(path)
    return left, record["warnings"]


@dataclass
class Place:
    """The folder of the rounds, and what the undisturbed run left, which they are compared with."""

    work: Path
    seed: int
    left: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0  # time that an undisturbed child takes
    calls: dict[str, int] = field(default_factory=dict)  # number of each system call of an undisturbed child

    def begin(self) -> None:
        """Does the undisturbed run in a new process, and again in a child, which must leave the same."""
        folder = self.fresh("reference")
        told(new(folder), 0)
        self.left, _ = left_by(run_of(folder))
        self._warm()
        again = self.fresh("again")
        self.seconds = told(fork(again).wait(), 0).seconds
        self.same(again)
        told(fork(self.fresh("other"), "seed=1").wait(), 0)

    def _warm(self) -> None:
        """Imports and parses in this process, so that forked children need not do it again. It trains nothing."""
        from vitbench import cli

        for module in PRELOADED.split():
            importlib.import_module(module)
        from hydra._internal.hydra import Hydra
        from hydra.types import RunMode

        # To find out the mode, Hydra would compose all settings a second time.
        Hydra.get_mode = lambda *_, **__: RunMode.RUN  # type: ignore[method-assign]
        with redirect_stdout(io.StringIO()):
            cli.run([*WORDS, "--cfg", "job"])

    def fresh(self, name: str, drawn: bool = False) -> Path:
        """Makes an empty folder for a round; `drawn` also copies the images there, so the run need not draw them."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "runs").mkdir(parents=True)
        if drawn:
            shutil.copytree(self.work / "reference" / "cache", folder / "cache")
        return folder

    def same(self, folder: Path) -> str:
        """Compares the finished run of a round with the undisturbed one. Raises Failed if they differ silently."""
        left, warnings = left_by(run_of(folder))
        differing = {name for name in {*left, *self.left} if left.get(name) != self.left.get(name)}
        told_of = " ".join(warnings)
        lost = {name for name in differing if name not in left and _step_of(name) in _steps_told(told_of)}
        if differing - lost:
            raise Failed(f"different results without a warning: {', '.join(sorted(differing - lost))}")
        return "same but for a kept file, warned" if lost else "same, warned" if warnings else "same"

    def finished(self, folder: Path) -> str:
        """Repeats the command without a disturbance, and compares as `same` does."""
        told(fork(folder).wait(), 0)
        return self.same(folder)

    def halfway(self, stage: int, seed: int = 0) -> Path:
        """Returns the folder of a run that was stopped after `stage` steps, or right before its record was written."""
        folder = self.work / f"stage{stage}-seed{seed}"
        if not folder.exists():
            self.fresh(folder.name, drawn=True)
            before = sends("record", 1) if stage > STEPS else sends("step", stage)
            told(fork(folder, f"seed={seed}", before=before).wait(), 75)
        return run_of(folder)

    def stopped(self, name: str, stage: int) -> Path:
        """Makes a folder for a round with a copy of that run."""
        folder, run = self.fresh(name, drawn=True), self.halfway(stage)
        shutil.copytree(run, folder / "runs" / run.name)
        return folder


def _step_of(name: str) -> str:
    return name.split(".")[1] if name.endswith(".safetensors") else ""


def _steps_told(text: str) -> set[str]:
    return {step for steps in re.findall(r"keep=\[([0-9,]+)\]", text) for step in steps.split(",")}


PHASES = {  # the phases before which signals are sent: the object, its attribute, and how often a run gets there
    "start": ("vitbench.training.train", "check", 1),
    "data": ("vitbench.training.prepare", "share_of", 1),
    "step": ("vitbench.training.training:Training", "next_batch", STEPS),
    "evaluation": ("vitbench.training.training:Training", "evaluate", STEPS // 2),
    "checkpoint": ("vitbench.runs.run", "write_beside", STEPS // 2),
    "test": ("vitbench.training.finish", "_test", 1),
    "record": ("vitbench.runs.run", "write_record", 1),
}


def sends(phase: str, nth: int, signals: Sequence[int] = (signal.SIGTERM,)) -> Callable[[], None]:
    """Returns a function that makes a process send itself signals before a phase, when it gets there the nth time."""

    def before() -> None:
        owner, name, _ = PHASES[phase]
        original, calls = getattr(pkgutil.resolve_name(owner), name), itertools.count(1)

        def disturbed(*positional: Any, **named: Any) -> Any:
            if next(calls) == nth:
                Path("sent").write_text(str(time.monotonic()))
                for one in signals:
                    os.kill(os.getpid(), one)
            return original(*positional, **named)

        setattr(pkgutil.resolve_name(owner), name, disturbed)

    return before
