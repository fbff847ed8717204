"""Which networks are degenerate: at chance, or giving nearly all images one class.

Such a network answers all images alike, so probes find it the steadiest of all. Tables mark its results, and figures
leave them out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from vitbench.comparing.select import Row, Runs
from vitbench.errors import UserError
from vitbench.numbers.intervals import is_at_chance
from vitbench.numbers.words import is_number, is_share, plural

MARK = "†"
FLAG = ".degenerate"  # the last part of the name of a flag that a probe gives (vitbench/probes/shift.py)
NOT_PROBED = ("hardware.", "versions.", "init.kept_parameters", "init.new_parameters", "cost.")
CONTROLS = (".accuracy", ".chance", FLAG)  # results that themselves say how good or how constant a network is


def is_degenerate(row: Row, column: str) -> bool:
    """Says whether a run's result is what a probe measured of a degenerate network.

    A network is degenerate if it is at chance, or if a probe flags it. Before training every network is at chance, so
    there (`init.`) only the flags of the probe that measured the result count.
    """
    if not _is_probed(column):
        return False
    flagged = any(row[flag] == 1 for flag in _flags(row, column))
    return flagged or (not column.startswith("init.") and run_is_at_chance(row))


def _is_probed(column: str) -> bool:
    """Says whether a probe measured a result that depends on what the network says or computes."""
    is_control = column.endswith(CONTROLS) or is_share(column)
    return "." in column and not column.startswith(NOT_PROBED) and not is_control


def _flags(columns: Collection[str], column: str) -> list[str]:
    """Chooses the flags of the checkpoint that a result is of: that of its own protocol, or else all there are."""
    own, is_untrained = column.rpartition(".")[0] + FLAG, column.startswith("init.")
    if own in columns:
        return [own]
    probe = ".".join(column.split(".")[:2]) + "." if is_untrained else ""
    flags = [name for name in columns if name.endswith(FLAG) and name.startswith("init.") == is_untrained]
    return [flag for flag in flags if flag.startswith(probe)]


def run_is_at_chance(row: Row) -> bool:
    """Whether a run gets no more test images right than guessing may, by the exact 95 % binomial interval."""
    accuracy, images = row.get("test_accuracy"), row.get("test_images") or 0
    if accuracy is None or images == 0:
        return False
    return is_at_chance(round(accuracy * images), images, len(row.get("classes") or ()))


def without_degenerate(runs: Runs, column: str, what_to_type: str = "") -> tuple[Runs, list[str]]:
    """Leaves out the runs, and the kept checkpoints, of which a probe measured a degenerate network.

    Also returns a note on how many they are; raises UserError where none is left. Both end with `what_to_type`.
    """
    measured = [
        row for row in runs.rows if is_number(row.get(column)) or _has_column(runs.swept.get(row["id"]), column)
    ]
    left_out = {row["id"] for row in measured if is_degenerate(row, column)}
    rows = [row for row in runs.rows if row["id"] not in left_out]
    swept = {row["id"]: _without_flagged_steps(runs.swept.get(row["id"], []), column) for row in rows}
    steps = sum(len(runs.swept.get(run_id, ())) - len(kept) for run_id, kept in swept.items())
    if not left_out and not steps:
        return runs, []
    why = f"at chance, or giving nearly all images one class{what_to_type}"
    if len(left_out) == len(measured):
        raise UserError(f"{column}: every run is {why}")
    counts = [f"{len(left_out)} of {plural(len(measured), 'run')}"] if left_out else []
    counts += [plural(steps, "checkpoint")] if steps else []
    return replace(runs, rows=rows, swept=swept), [f"left out: {' and '.join(counts)}, {why}"]


def _has_column(swept: Iterable[Row] | None, column: str) -> bool:
    return any(row["column"] == column for row in swept or ())


def _without_flagged_steps(swept: Sequence[Row], column: str) -> list[Row]:
    """Leaves out the rows of a column at the steps of training at which a probe flags the network."""
    at_steps = [row for row in swept if row.get("at_unit") == "step"]
    flags = _flags({row["column"] for row in at_steps}, column) if _is_probed(column) else []
    flagged = {row["at"] for row in at_steps if row["column"] in flags and row["value"] == 1}
    return [row for row in swept if row["column"] != column or row.get("at_unit") != "step" or row["at"] not in flagged]


def mark_note(count: int, runs: int) -> str:
    """Explains the mark below a table."""
    one = count == 1
    are, give, them = ("is", "gives", "it") if one else ("are", "give", "them")
    return (
        f"{MARK} {count} of {plural(runs, 'run')} {are} at chance, or {give} nearly all images one class: what a probe"
        f" measures of {them} is the steadiness of a constant"
    )
