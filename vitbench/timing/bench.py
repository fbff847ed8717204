"""`vitbench bench`: how fast vitbench is against the bare step, and against how most people train.

CPU figures are CPU seconds of the process on one thread, which others on the machine do not disturb; GPU figures are
seconds as they pass. The sides of a comparison take turns, window by window. A figure is the median of its windows,
with the least and the greatest.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from vitbench.comparing.formats import Table, print_rich, render_tables
from vitbench.errors import UserError, did_you_mean
from vitbench.machine.disk import read_json, write
from vitbench.machine.outputs import check_output
from vitbench.machine.progress import progress
from vitbench.machine.provenance import commit, now
from vitbench.machine.redact import redacted
from vitbench.menu import ABOVE_0, FROM_1, check_ranges, look_up
from vitbench.models.menu import SIZES
from vitbench.numbers.text import say
from vitbench.timing.menu import MENU

BENCH_SCHEMA = 1
BENCH_HEAD = ["row", "what", "median", "least", "greatest", "unit", "goal", "met"]


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    options: Any = OmegaConf.to_container(config, resolve=True)
    rows = list(MENU) if options["rows"] is None else _choices("rows", options["rows"], MENU)
    models = _choices("models", options["models"], SIZES["nano"])
    sizes = _choices("sizes", options["sizes"], SIZES)
    check_ranges(options, {"windows": FROM_1.up_to(1_000), "seconds": ABOVE_0.up_to(3_600)})
    for key, choices in (("format", ("text", "json")), ("device", ("auto", "cpu", "cuda"))):
        if options[key] not in choices:
            raise UserError(f"{key}={options[key]}: {did_you_mean(options[key], choices)}")
    timm = Path(options["timm"]).expanduser() if options["timm"] is not None else None
    if timm is not None and not timm.is_file():
        raise UserError(
            f"timm={options['timm']}: no such file; it is the train.py of a checkout of pytorch-image-models"
        )
    file = Path(options["file"]).expanduser() if options["file"] else None
    if file is not None and file.suffix != ".json":
        raise UserError(f"file={options['file']}: must end in .json; `vitbench report` makes the page from it")
    last = read_bench(file) if file is not None and file.exists() and not options["replace"] else None
    if file is not None and last is None:
        check_output(file, replace=options["replace"])

    def keep(report: dict[str, Any]) -> None:
        if file is not None:
            write(file, _text(report).encode(), folders=True)

    report = _measure(rows, models, sizes, options, last, keep)
    if options["format"] == "json":
        print(_text(report), end="")
        return 0
    table = page(report)
    if sys.stdout.isatty():
        print_rich([table], "", notes(report))
    else:
        say(render_tables("text", [table], "", notes(report)))
    return 0


def _choices(key: str, typed: Any, menu: Iterable[str]) -> list[str]:
    """One choice or a list of them, each on the menu; UserError where one is not, or there is none."""
    choices = [str(choice) for choice in (typed if isinstance(typed, list) else [] if typed is None else [typed])]
    if not choices:
        raise UserError(f"{key}={'null' if typed is None else '[]'}: {did_you_mean('', menu)}")
    for choice in choices:
        if choice not in menu:
            raise UserError(f"{key}={choice}: {did_you_mean(choice, menu)}")
    return choices


def _text(report: Mapping[str, Any]) -> str:
    return json.dumps(redacted(report), indent=1, allow_nan=False) + "\n"


def _measure(
    rows: list[str],
    models: list[str],
    sizes: list[str],
    options: Mapping[str, Any],
    last: dict[str, Any] | None,
    keep: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Measures the rows and makes the report, with those of the last report that are not measured now.

    After each row `keep` gets the report so far, in which a row that is still to be measured is as it was.
    """
    import torch

    from vitbench.machine.hardware import Machine
    from vitbench.timing.rows import Bench

    machine = Machine.of(device=options["device"], precision="auto", compile=None, threads=None)
    hardware = {key: value for key, value in machine.described()["hardware"].items() if key in ("device", "name")}
    if last is not None and last["hardware"]["name"] != hardware["name"]:
        raise UserError(
            f"file={options['file']}: was measured on {last['hardware']['name']}, this is {hardware['name']};"
            " choose another file"
        )
    timm = str(Path(options["timm"]).expanduser().resolve()) if options["timm"] else None
    windows, seconds, device = options["windows"], options["seconds"], machine.device.type
    report: dict[str, Any] = {"schema": BENCH_SCHEMA, "hardware": hardware, "figures": last["figures"] if last else []}
    with (
        tempfile.TemporaryDirectory(prefix="vitbench-bench-") as folder,
        progress("bench", len(rows), "rows") as display,
    ):
        bench = Bench(models, sizes, windows, seconds, device, Path(folder).resolve(), timm)
        for done, row in enumerate(rows):
            display.update(done, row)
            measured_by = {"created": now(), "commit": commit(), "torch": torch.__version__}
            figures = []
            for figure in look_up("rows", row, MENU)(bench):
                figures.append(figure.described() | measured_by)
                display.say(" ".join(cell for cell in _line(figures[-1]) if cell))
            others = [figure for figure in report["figures"] if figure["row"] != row]
            report["figures"] = _in_order([*others, *figures])
            keep(report)
    return report


def _in_order(figures: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures in the order of the menu, and behind them those of rows that it no longer has."""
    order = list(MENU)
    return sorted(figures, key=lambda one: order.index(one["row"]) if one["row"] in order else len(order))


def read_bench(path: Path) -> dict[str, Any]:
    """Reads what `vitbench bench file=` wrote; UserError where it is something else."""
    try:
        report = read_json(path)
        if report.get("schema") == BENCH_SCHEMA:
            markdown(report)  # whatever it cannot print is no result either
            return report
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        pass
    raise UserError(f"{path} is no result of `vitbench bench`; type another name, or replace=true to lose it")


def page(report: Mapping[str, Any]) -> Table:
    """The table of a report."""
    lines = [_line(figure) for figure in report["figures"]]
    return Table("bench", f"Speed on {report['hardware']['name']}", BENCH_HEAD, lines, 2, [], [], [], [])


def markdown(report: Mapping[str, Any]) -> str:
    """The page of a report, as `vitbench report` writes it."""
    return render_tables("md", [page(report)], "", notes(report))


def notes(report: Mapping[str, Any]) -> list[str]:
    """The line below the table: which clock, which commits and versions of torch, and which days."""
    commits, versions = (
        ", ".join(sorted({str(figure.get(key)) for figure in report["figures"]})) for key in ("commit", "torch")
    )
    days = sorted({figure["created"][:10] for figure in report["figures"]})
    clock = "CPU time of one thread" if report["hardware"]["device"] == "cpu" else "seconds as they pass"
    return [
        f"{clock}, unless a line says otherwise; windows alternate; commit {commits}, "
        f"torch {versions}, {days[0]}{'' if len(days) == 1 else f' to {days[-1]}'}"
    ]


def _line(figure: Mapping[str, Any]) -> list[str]:
    """The line of a figure in the table, a cell for each word of BENCH_HEAD."""
    row, what, note, unit, value = (figure[key] for key in ("row", "what", "note", "unit", "value"))
    least, most = (None if figure[key] is None else f"{figure[key]:g}" for key in ("at_least", "at_most"))
    goal = f"{least} to {most}" if least and most else f"<= {most}" if most else f">= {least}" if least else ""
    met = {None: "", True: "yes", False: "NO"}[figure["met"]]
    if value is None:
        return [row, what, note, "", "", unit, goal, met]
    spread = ["", ""] if figure["low"] is None else [_three_digits(figure["low"]), _three_digits(figure["high"])]
    return [row, f"{what} ({note})" if note else what, _three_digits(value), *spread, unit, goal, met]


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
