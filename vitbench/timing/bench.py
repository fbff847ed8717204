"""How fast vitbench is, as ratios measured in one run: against the bare step, and against how most people train.

CPU figures are seconds of the process on one thread, so that a shared machine does not disturb them; GPU figures are
seconds as they pass. What is compared alternates in windows; a figure is their median, with the least and the greatest.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vitbench.comparing.formats import Table, print_rich, render_tables
from vitbench.errors import UserError, did_you_mean
from vitbench.machine.disk import write
from vitbench.machine.progress import progress
from vitbench.machine.provenance import commit, now
from vitbench.menu import look_up
from vitbench.models.menu import MENU as MODELS
from vitbench.models.menu import SIZES
from vitbench.numbers.text import say
from vitbench.timing.menu import MENU

BENCH_SCHEMA = 1
BENCH_HEAD = ["row", "what", "median", "least", "greatest", "unit", "goal", "met"]


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    asked: Any = OmegaConf.to_container(config, resolve=True)
    rows = list(MENU) if asked["rows"] is None else _among("rows", asked["rows"], MENU)
    models = _among("models", asked["models"], MODELS)
    sizes = _among("sizes", asked["sizes"], SIZES)
    for key, least in (("windows", 1), ("seconds", 0)):
        if not (asked[key] >= least if least else asked[key] > 0):
            raise UserError(f"{key}={asked[key]}: must be {'1 or more' if key == 'windows' else 'above 0'}")
    for key, choices in (("format", ("text", "json")), ("device", ("auto", "cpu", "cuda"))):
        if asked[key] not in choices:
            raise UserError(f"{key}={asked[key]}: {did_you_mean(asked[key], choices)}")
    if asked["timm"] is not None and not Path(asked["timm"]).expanduser().is_file():
        raise UserError(f"timm={asked['timm']}: no such file; it is the train.py of a checkout of pytorch-image-models")
    file = Path(asked["file"]).expanduser() if asked["file"] else None
    if file is not None and file.suffix != ".json":
        raise UserError(f"file={asked['file']}: must end in .json; `vitbench report` makes the page from it")
    kept = read_bench(file) if file is not None and file.exists() else None
    report = _measure(rows, models, sizes, asked, kept)
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    if file is not None:
        write(file, text.encode(), folders=True)
    if asked["format"] == "json":
        print(text, end="")
        return 0
    table = page(report)
    if sys.stdout.isatty():
        print_rich([table], "", notes(report))
    else:
        say(render_tables("text", [table], "", notes(report)))
    return 0


def _among(key: str, value: Any, menu: Iterable[str]) -> list[str]:
    names = [str(name) for name in (value if isinstance(value, list) else [] if value is None else [value])]
    if not names:
        raise UserError(f"{key}={'null' if value is None else '[]'}: {did_you_mean('', menu)}")
    for name in names:
        if name not in menu:
            raise UserError(f"{key}={name}: {did_you_mean(name, menu)}")
    return names


def _measure(
    rows: list[str], models: list[str], sizes: list[str], asked: Mapping[str, Any], kept: dict[str, Any] | None
) -> dict[str, Any]:
    import torch

    from vitbench.machine.hardware import Machine
    from vitbench.timing.rows import Bench

    machine = Machine.of(device=asked["device"], precision="auto", compile=None, threads=None)
    about = machine.described()
    if kept is not None and kept["hardware"]["name"] != about["hardware"]["name"]:
        raise UserError(
            f"file={asked['file']}: was measured on {kept['hardware']['name']}, this is {about['hardware']['name']};"
            " choose another file"
        )
    figures: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="vitbench-bench-") as folder,
        progress("bench", len(rows), "rows") as display,
    ):
        bench = Bench(
            models,
            sizes,
            asked["windows"],
            asked["seconds"],
            machine.device.type,
            Path(folder).resolve(),
            display.say,
            str(Path(asked["timm"]).expanduser().resolve()) if asked["timm"] else None,
        )
        for done, row in enumerate(rows):
            display.update(done, row)
            about_row = {"created": now(), "commit": commit(), "torch": torch.__version__}
            for one in look_up("rows", row, MENU)(bench):
                figures.append(one.described() | about_row)
                display.say(" ".join(cell for cell in _line(figures[-1]) if cell))
    if kept is not None:  # rows that were not asked for now
        figures = [one for one in kept["figures"] if one["row"] not in rows] + figures
    order = list(MENU)
    figures.sort(key=lambda one: order.index(one["row"]) if one["row"] in order else len(order))
    hardware = {key: value for key, value in about["hardware"].items() if key in ("device", "name")}
    return {"schema": BENCH_SCHEMA, "hardware": hardware, "figures": figures}


def read_bench(path: Path) -> dict[str, Any]:
    """What `vitbench bench file=` wrote; UserError where it is something else."""
    try:
        report = json.loads(path.read_bytes())
    except (OSError, ValueError):
        report = None
    if (
        not isinstance(report, dict)
        or report.get("schema") != BENCH_SCHEMA
        or not isinstance(report.get("figures"), list)
    ):
        raise UserError(f"{path} is no result of `vitbench bench`")
    return report


def page(report: Mapping[str, Any]) -> Table:
    lines = [_line(one) for one in report["figures"]]
    return Table("bench", f"Speed on {report['hardware']['name']}", BENCH_HEAD, lines, 2, [], [], [], [])


def markdown(report: Mapping[str, Any]) -> str:
    """The page of a result, as `vitbench report` writes it."""
    return render_tables("md", [page(report)], "", notes(report))


def notes(report: Mapping[str, Any]) -> list[str]:
    several = {key: sorted({str(one.get(key)) for one in report["figures"]}) for key in ("commit", "torch")}
    days = sorted({one["created"][:10] for one in report["figures"]})
    shared = "CPU time of one thread" if report["hardware"]["device"] == "cpu" else "seconds as they pass"
    return [
        f"{shared}, unless a line says otherwise; windows alternate; commit {', '.join(several['commit'])}, "
        f"torch {', '.join(several['torch'])}, {days[0]}{'' if len(days) == 1 else f' to {days[-1]}'}"
    ]


def _line(one: Mapping[str, Any]) -> list[str]:
    least, most = (None if one[key] is None else f"{one[key]:g}" for key in ("at_least", "at_most"))
    goal = f"{least} to {most}" if least and most else f"<= {most}" if most else f">= {least}" if least else ""
    met = {None: "", True: "yes", False: "NO"}[one["met"]]
    what = f"{one['what']} ({one['note']})" if one["note"] and one["value"] is not None else one["what"]
    if one["value"] is None:
        return [one["row"], what, one["note"], "", "", one["unit"], goal, met]
    spread = ["", ""] if one["low"] is None else [_shown(one["low"]), _shown(one["high"])]
    return [one["row"], what, _shown(one["value"]), *spread, one["unit"], goal, met]


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
