"""The lines that `vitbench watch` shows: how many runs are done, the curves of those that train, and why runs failed.

A line is a list of words with their styles, so that the same line can be printed plainly or drawn in a terminal.
"""

from __future__ import annotations

import math
import textwrap
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from vitbench.numbers.text import align
from vitbench.numbers.words import plural, printable, spoken
from vitbench.runs.fields import LARGEST
from vitbench.runs.standing import DIVERGED, FAILED, FINISHED, INTERRUPTED, RUNNING, Standing
from vitbench.sweeping.watched import STATES, WAITING, Snapshot

Line = list[tuple[str, str]]  # words and their styles

BLOCKS = " ▁▂▃▄▅▆▇█"
BAR = 20  # the length of the progress bar in letters
NAMED = 3  # at most so many runs with the same failure are named
STYLES = {FINISHED: "green", RUNNING: "cyan", FAILED: "bold red", DIVERGED: "red", INTERRUPTED: "yellow"}
CURVES = {"val_accuracy": "validation accuracy", "val_loss": "validation loss", "train_loss": "training loss"}


class Detail(NamedTuple):
    """How much is shown."""

    rows: int  # rows of letters of a curve
    running: int  # at most so many runs that train
    others: int  # at most so many runs of every other kind, and lines of a reason


ALL = Detail(1, 10**9, 10**9)
DETAILS = [Detail(4, 10**9, 5), Detail(2, 10**9, 5), Detail(1, 10**9, 3), Detail(0, 10**9, 3), Detail(0, 8, 1)]


def fitted(snapshot: Snapshot, width: int, height: int) -> list[Line]:
    """Returns the lines in as much detail as a terminal of this size has room for."""
    for detail in DETAILS:
        if len(lines := lines_of(snapshot, width, detail)) <= height:
            return lines
    return [*lines[: height - 1], [("the terminal is too small for the rest", "dim")]][-height:]


def lines_of(snapshot: Snapshot, width: int, detail: Detail = ALL) -> list[Line]:
    """Returns all lines. Only curves and reasons are fitted to `width`."""
    parts = [_head(snapshot)]
    parts += [[*_running(snapshot, width, detail)]]
    for state, remedy in (
        (FAILED, f"retry_failed=true tries them again; tracebacks are in {snapshot.folder}/ID/failure.json"),
        (DIVERGED, ""),
    ):
        parts += [[*_reasons(snapshot, state, remedy, width, detail)]]
    parts += [[*_interrupted(snapshot, detail)], [*_finished(snapshot, detail)], [*_problems(snapshot, detail)]]
    return [line for part in parts if part for line in [[], *part]][1:]


# ----------------------------------------------------------------------------------------------------------- all runs


def _head(snapshot: Snapshot) -> list[Line]:
    counts, bar = snapshot.counts, round(BAR * snapshot.share)
    always = {FINISHED, RUNNING, FAILED, *([WAITING] if snapshot.study else [])}
    told: Line = [(f"{plural(sum(counts.values()), 'run')}: ", "")]
    for state in (state for state in STATES if counts[state] or state in always):
        comma = ", " if len(told) > 1 else ""
        told += [(comma, ""), (f"{counts[state]:,} {state}", STYLES.get(state, "") if counts[state] else "")]
    left = _time_left(snapshot)
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.time))
    lines: list[Line] = [
        [(printable(snapshot.title), "bold"), (f"  {clock}", "dim")],
        told,
        [("█" * bar, "green"), ("░" * (BAR - bar), "dim"), (f" {_percent(snapshot.share)}, ", ""), (left, "")],
    ]
    if snapshot.unended and not snapshot.at_once:
        words = "no run is training at the moment"
        if snapshot.study:
            words += f"; `vitbench sweep study={printable(snapshot.study)}` decodes the images and then starts runs"
        lines.append([(words, "yellow")])
    return lines


def _percent(share: float) -> str:
    """Shows whole percents, rounded down, so that only what is all done has 100 %."""
    return f"{math.floor(100 * share)} %"


def _time_left(snapshot: Snapshot) -> str:
    if not snapshot.unended:
        return "all have ended" if snapshot.runs or snapshot.evidence else "no run yet"
    left, unknown = snapshot.time_left, len(snapshot.unended) - len(snapshot.seconds_left)
    if left is None:
        words = "the time left is not known before the first run is evaluated"
    else:
        words = f"about {spoken(left)} left, {max(1, snapshot.at_once)} at a time"
        words += f", not counting {plural(unknown, 'run')} of unknown speed" if unknown else ""
    return words


def _more(names: Sequence[str], most: int) -> str:
    """Lists at most `most` names, and says how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return printable(", ".join(names[:most])) + more


def _ago(run: Standing, snapshot: Snapshot) -> str:
    return f"{spoken(max(0.0, snapshot.time - run.changed))} ago"


# ----------------------------------------------------------------------------------------------------------- running


def _running(snapshot: Snapshot, width: int, detail: Detail) -> Iterator[Line]:
    runs = sorted(snapshot.of(RUNNING), key=lambda run: run.id)
    for run in runs[: detail.running]:
        assert run.begun is not None
        left = snapshot.seconds_left.get(run.id)
        told = [_percent(run.begun.share), _step(run)]
        told += [f"about {spoken(left)} left"] if left is not None else []
        told.append(f"{'wrote' if run.begun.step else 'begun'} {_ago(run, snapshot)}")
        progress = f"  {printable(', '.join(told))}"
        if detail.rows:
            yield [(printable(run.id), "bold cyan"), (f"  {printable(run.told)}", "dim")]
            yield [(progress, "")]
            yield from _curves(run, width, detail.rows)
        else:
            yield [(printable(run.id), "bold cyan"), (progress, "")]
    if len(runs) > detail.running:
        yield [(f"and {len(runs) - detail.running:,} more running", "cyan")]


def _step(run: Standing) -> str:
    """Says which step was the last, and of how many."""
    assert run.begun is not None
    if not run.begun.step:
        return "before its first evaluation" if run.state == RUNNING else "no step saved"
    return f"step {run.begun.step:,} of {run.begun.steps:,}" if run.begun.steps else run.begun.progress


def _curves(run: Standing, width: int, rows: int) -> Iterator[Line]:
    """Draws the curves of a run side by side: validation accuracy (or else validation loss), and training loss."""
    assert run.begun is not None
    curves = {column: points for column in CURVES if (points := points_of(run.begun.rows, column))}
    shown = [column for column in CURVES if column in curves and (column != "val_loss" or "val_accuracy" not in curves)]
    room = max(24, (width - 2) // max(1, len(shown)) - 2)
    rows = rows if any(len(curves[column]) > 1 for column in shown) else 1
    blocks = [_curve(column, curves[column], room, rows) for column in shown]
    for cells in zip(*blocks, strict=True):
        yield [("  " + "  ".join(cell.ljust(room) for cell in cells).rstrip(), "green")]


def points_of(rows: Sequence[Mapping[str, str]], column: str) -> list[tuple[int, float]]:
    """Returns the steps at which a column of metrics.csv has a finite number of usual size, and these numbers."""
    points = [(int(row["step"]), float(row.get(column) or "nan")) for row in rows]
    return [(step, value) for step, value in points if abs(value) < LARGEST]


def _curve(column: str, points: Sequence[tuple[int, float]], room: int, rows: int) -> list[str]:
    """Draws one curve as `rows` lines; where there are two or more, a last line names it."""

    def shown(value: float) -> str:
        return f"{100 * value:.1f} %" if column.endswith("accuracy") else f"{value:.4g}"

    values = [value for _, value in points]
    first, last = shown(values[0]), shown(values[-1])
    if len(points) == 1 and rows == 1:
        return [f"{CURVES[column]} {last}"]
    if rows == 1:
        name = f"{CURVES[column]} {first} "
        return [f"{name}{plot(points, room - len(name) - len(last) - 1, 1)[0]} {last}"]
    margin = max(len(shown(max(values))), len(shown(min(values))))
    labels = [shown(max(values)), *[""] * (rows - 2), shown(min(values))]
    drawn = plot(points, room - margin - 1, rows)
    lines = [f"{label:>{margin}} {row}" for label, row in zip(labels, drawn, strict=True)]
    name = f"{CURVES[column]} {first} → {last}"
    return [*lines, f"{'':{margin}} {name if len(name) < room - margin else f'{CURVES[column]} {last}'}"]


def plot(points: Sequence[tuple[int, float]], width: int, rows: int) -> list[str]:
    """Draws a curve from its first step to its last, in so many rows of letters."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, width = min(values), max(4, width)
    size = (max(values) - low) or 1.0
    heights = []
    for column in range(width):
        step = steps[0] + (steps[-1] - steps[0]) * column / (width - 1)
        after = min(bisect_right(steps, step), len(steps) - 1)
        before = max(0, after - 1)
        gap = steps[after] - steps[before]
        share = min(1.0, (step - steps[before]) / gap) if gap > 0 else 1.0
        value = (1 - share) * values[before] + share * values[after]
        heights.append(1 + round((value - low) / size * (8 * rows - 1)))
    return ["".join(BLOCKS[min(8, max(0, height - 8 * (rows - 1 - row)))] for height in heights) for row in range(rows)]


# ------------------------------------------------------------------------------------------------------- all the rest


def _reasons(snapshot: Snapshot, state: str, remedy: str, width: int, detail: Detail) -> Iterator[Line]:
    """Says what went wrong: each reason once, with the runs that it ended."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for run in snapshot.of(state):
        by_reason[" ".join(printable(run.told).split())].append(run.id)
    if by_reason:
        count = sum(map(len, by_reason.values()))
        yield [(f"{count:,} {state}", STYLES[state]), (f" ({printable(remedy)})" if remedy else "", "dim")]
    for reason, ids in [*by_reason.items()][: detail.others]:
        yield [(f"  {_more(ids, NAMED if detail != ALL else len(ids))}", "")]
        wrapped = textwrap.wrap(reason, max(24, width - 4), break_on_hyphens=False)
        cut = [*wrapped[: detail.others - 1], f"{' '.join(wrapped[detail.others - 1 :])[: width - 5]}…"]
        yield from ([(f"    {words}", STYLES[state])] for words in (wrapped if len(wrapped) <= detail.others else cut))
    if len(by_reason) > detail.others:
        yield [(f"  and {len(by_reason) - detail.others:,} more reasons", STYLES[state])]


def _interrupted(snapshot: Snapshot, detail: Detail) -> Iterator[Line]:
    runs = snapshot.of(INTERRUPTED)
    if runs:
        yield [(f"{len(runs):,} interrupted", STYLES[INTERRUPTED]), (" (repeat the command to continue)", "dim")]
    told = [[run.id, _step(run), _ago(run, snapshot), run.told] for run in runs]
    yield from _listed(told, detail, "yellow")


def _finished(snapshot: Snapshot, detail: Detail) -> Iterator[Line]:
    """Lists only the runs that finished last, because there can be thousands."""
    runs = snapshot.of(FINISHED)[: min(detail.others, 5)]
    if runs:
        yield [("finished last", STYLES[FINISHED])]
    told = [[run.id, run.told, f"{run.train_seconds or 0:.0f} s", _ago(run, snapshot)] for run in runs]
    yield from _listed(told, detail, "green")


def _listed(told: Sequence[Sequence[str]], detail: Detail, style: str) -> Iterator[Line]:
    shown = [[printable(cell) for cell in cells] for cells in told[: detail.others]]
    yield from ([(f"  {line}", "")] for line in (align(shown, 4) if shown else []))
    if len(told) > detail.others:
        yield [(f"  and {len(told) - detail.others:,} more", style)]


def _problems(snapshot: Snapshot, detail: Detail) -> Iterator[Line]:
    if snapshot.problems:
        yield [(plural(len(snapshot.problems), "problem"), "yellow")]
    for problem in snapshot.problems[: detail.others]:
        yield [(f"  ! {printable(problem)}", "yellow")]
    if len(snapshot.problems) > detail.others:
        yield [(f"  and {len(snapshot.problems) - detail.others:,} more", "yellow")]
