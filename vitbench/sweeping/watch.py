"""`vitbench watch`: shows how a sweep is doing, in another terminal or on another machine that shares the disk.

It reads the folders of runs and writes nothing. In a terminal it looks again every few seconds, until all runs that a
study plans have ended, or until Ctrl-C. Elsewhere, and as JSON, it prints once. The exit code is 0 whatever the runs
did, and 130 after Ctrl-C.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitbench.errors import check_choice
from vitbench.machine.disk import check_folder
from vitbench.machine.interrupt import Interrupt
from vitbench.machine.progress import interactive
from vitbench.machine.terminal import beneath, escaped
from vitbench.menu import Range, check_ranges
from vitbench.numbers.text import say, speakable
from vitbench.runs.standing import DIVERGED, FAILED, FINISHED, INTERRUPTED, RUNNING, Standing
from vitbench.runs.study import load_study
from vitbench.sweeping.watch_lines import CURVES, Line, fitted, lines_of, points_of
from vitbench.sweeping.watched import Snapshot, Watcher

FORMATS = ("text", "json")
WIDTH = 100  # curves have so many letters where they are not drawn in a terminal


def main(config: Any) -> int:
    """Shows the runs. Returns 0, or 130 after Ctrl-C."""
    from omegaconf import OmegaConf

    asked: Any = OmegaConf.to_container(config, resolve=True)
    check_choice("format", asked["format"], FORMATS)
    check_ranges(asked, {"every": Range("0.2 to 3600 seconds", lambda seconds: 0.2 <= seconds <= 3600)})
    folder = Path(asked["runs"]).expanduser()
    check_folder(folder, "runs")
    study = load_study(asked["study"]) if asked["study"] is not None else None
    watcher = Watcher(folder, study, asked["study"])
    if asked["format"] == "json":
        say(_json(watcher.look()))
    elif interactive(sys.stdout):
        return _live(watcher, asked["every"])
    else:
        say("".join(f"{''.join(words for words, _ in line)}\n" for line in lines_of(watcher.look(), WIDTH)))
    return 0


def _live(watcher: Watcher, every: float) -> int:
    """Draws on the terminal's second screen, and at the end prints the last state on the first."""
    from rich.console import Console, Group
    from rich.live import Live

    console = Console(file=beneath(sys.stdout), highlight=False)
    snapshot, code = watcher.look(), 0
    with Interrupt():  # any signal ends it as Ctrl-C does, so that the terminal is left as it was
        try:
            options: Any = {"screen": True, "auto_refresh": False, "redirect_stdout": False, "redirect_stderr": False}
            with Live(console=console, **options) as live:
                while not snapshot.has_ended:
                    lines = fitted(snapshot, console.width, console.height - 1)
                    foot: Line = [("Ctrl-C ends watching; the runs continue", "dim")]
                    live.update(Group(*_drawn([*lines, foot], cut=True)), refresh=True)
                    time.sleep(every)
                    snapshot = watcher.look()
        except KeyboardInterrupt:
            code = 130
    for line in _drawn(lines_of(snapshot, console.width), cut=False):
        console.print(line, soft_wrap=True)
    if code:
        print("vitbench: watching ended; the runs continue", file=sys.stderr)
    return code


def _drawn(lines: Sequence[Line], cut: bool) -> list[Any]:
    """Makes the lines that rich prints; `cut` ends those that are wider than the terminal with three dots."""
    from rich.text import Text

    how: Any = {"no_wrap": True, "overflow": "ellipsis"} if cut else {}
    return [Text("", **how).append_text(Text.assemble(*_safe(line))) for line in lines]


def _safe(line: Line) -> Line:
    return [(escaped(speakable(words)), style) for words, style in line]


# --------------------------------------------------------------------------------------------------------------- JSON


def _json(snapshot: Snapshot) -> str:
    left = snapshot.seconds_left
    report = {
        "study": snapshot.study,
        "runs": str(snapshot.folder),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(snapshot.time)),
        "counts": snapshot.counts,
        "ended": snapshot.has_ended,
        "share_done": round(snapshot.share, 4),
        "seconds_left": snapshot.time_left,
        "not_counted": len(snapshot.unended) - len(left),
        RUNNING: [_begun(run, snapshot) for run in snapshot.of(RUNNING)],
        INTERRUPTED: [_begun(run, snapshot) for run in snapshot.of(INTERRUPTED)],
        FAILED: [{"id": run.id, "why": run.told} for run in snapshot.of(FAILED)],
        DIVERGED: [{"id": run.id, "why": run.told} for run in snapshot.of(DIVERGED)],
        FINISHED: [
            {"id": run.id, "test_accuracy": run.accuracy, "train_seconds": run.train_seconds}
            for run in snapshot.of(FINISHED)
        ],
        "waiting": snapshot.waiting,
        "evidence": snapshot.evidence,
        "problems": snapshot.problems,
    }
    return json.dumps(report, indent=1, allow_nan=False) + "\n"


def _begun(run: Standing, snapshot: Snapshot) -> dict[str, Any]:
    assert run.begun is not None
    return {
        "id": run.id,
        "process": run.told,
        "step": run.begun.step,
        "steps": run.begun.steps,
        "seconds_left": snapshot.seconds_left.get(run.id),
        "seconds_since_it_wrote": round(max(0.0, snapshot.time - run.changed), 1),
        "curves": {column: points_of(run.begun.rows, column) for column in CURVES},
    }
