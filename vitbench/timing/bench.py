"""`vitbench bench`: compares the speed of vitbench with the bare training step, and with the usual way to train.

Figures of a CPU are CPU seconds of one thread, which other processes on the machine do not disturb. Figures of a GPU
are wall-clock seconds. The contestants of a comparison are timed in turn, window by window. A figure is the median of
its windows, with the smallest and the largest.
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
            f"timm={options['timm']}: no such file; type the path of train.py in a checkout of pytorch-image-models"
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
    """Returns one choice or a list of choices as a list. UserError if one is not on the menu, or there is none."""
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
    """Measures the rows and returns the report. Rows of the last report that are not measured now stay in it.

    After each row, `keep` gets the report so far, in which the rows that are not measured yet are those of the last
    one.
    """
    import torch

    from vitbench.machine.hardware import Machine
    from vitbench.timing.rows import Bench

    machine = Machine.of(device=options["device"], precision="auto", compile=None, threads=None)
    hardware = {key: value for key, value in machine.described()["hardware"].items() if key in ("device", "name")}
    if last is not None and last["hardware"]["name"] != hardware["name"]:
        raise UserError(
            f"file={options['file']}: was measured on {last['hardware']['name']}, and this machine is "
            f"{hardware['name']}; type another file"
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
    """Returns the figures in the order of the menu; those of rows that it no longer has come last."""
    order = list(MENU)
    return sorted(figures, key=lambda one: order.index(one["row"]) if one["row"] in order else len(order))


def read_bench(path: Path) -> dict[str, Any]:
    """Reads a file that `vitbench bench file=` wrote. Raises UserError for any other file."""
    try:
        report = read_json(path)
        if report.get("schema") == BENCH_SCHEMA:
            markdown(report)  # a report that cannot be printed is refused, too
            return report
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        pass
    raise UserError(f"{path} is not a result of `vitbench bench`; type another name, or replace=true to replace it")


def page(report: Mapping[str, Any]) -> Table:
    """Returns the table of a report."""
    lines = [_line(figure) for figure in report["figures"]]
    return Table("bench", f"Speed on {report['hardware']['name']}", BENCH_HEAD, lines, 2, [], [], [], [])


def markdown(report: Mapping[str, Any]) -> str:
    """Returns the page of a report, as `vitbench report` writes it."""
    return render_tables("md", [page(report)], "", notes(report))


def notes(report: Mapping[str, Any]) -> list[str]:
    """Returns the line below the table, about the clock, the commits, the versions of torch and the days."""
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
    """Returns the line of a figure in the table, with a cell for each word of BENCH_HEAD."""
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
