"""Draws one figure of runs: by default test accuracy against training images, a line per model, all seeds as points.

    vitbench plot study=quickstart file=figures/quickstart.svg
    vitbench plot where.data=cifar10 y=test_error log=xy lines=[model,pe] file=error.pdf

Colours are those of Okabe and Ito (2008, "Color Universal Design"), which people of any colour vision tell apart; each
line has a marker and a dash of its own too, for print in grey. The same runs give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench import compare
from vitbench.compare import Group, Runs, label, shown
from vitbench.errors import UserError
from vitbench.stats import mean_interval
from vitbench.table import choose

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vitbench.stats import Interval

ENDINGS = (".svg", ".png", ".pdf")
KEYS = ("x", "y", "lines", "log")  # of a figure, in a study and on the command line
LOG = {"x": "x", "y": "y", "xy": "xy", "none": ""}

# neighbours differ in lightness as well: blue, orange, green, vermillion, sky blue, purple, black
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2, 2, 2, 2, 2)))

# the settings that move a point along x and do not make another line
ALONG = {
    "train_images": ("data.fraction", "data.count", "data.train_images"),
    "steps": ("optim.steps", "optim.epochs"),
    "parameters": ("model.size", "model.width", "model.depth", "model.heads", "model.base_width"),
}
ALONG["multiply_adds"] = ALONG["parameters"]


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    from vitbench import study as studies
    from vitbench.formats import say
    from vitbench.run import storage, write

    asked: Any = OmegaConf.to_container(config, resolve=True)
    path = Path(asked["file"]).expanduser()
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"file={asked['file']}: the ending says the format; choices: {', '.join(ENDINGS)}")
    study = studies.load(asked["study"]) if asked["study"] is not None else None
    layouts = choose(asked, study, "figures", KEYS)
    if len(layouts) > 1:
        raise UserError(f"study={asked['study']} has {len(layouts)} figures; choose with name=: {', '.join(layouts)}")
    runs = compare.select(asked["runs"], asked["where"], study)
    caveat = study.notes.split(". ")[0].rstrip(".") + "." if study and study.notes else ""
    blob = draw(runs, title=study.title if study else None, caveat=caveat, ending=path.suffix.lower(),
                **next(iter(layouts.values())))  # fmt: skip
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write(path, blob)
    say(f"{path}\n")
    return 0


@dataclass(frozen=True)
class Line:
    label: str
    points: list[tuple[float, float]]  # a run each
    means: list[tuple[float, Interval]]  # a group each, by x


def draw(runs: Runs, *, x: str | None = None, y: str | None = None, lines: Any = None, log: str | None = None,
         title: str | None = None, caveat: str = "", ending: str = ".svg") -> bytes:  # fmt: skip
    """The figure as a file's bytes."""
    y = runs.check("y", y or "test_accuracy", runs.numbers())
    x = runs.check("x", x or "train_images", _numeric(runs))
    log = LOG[runs.check("log", log or "x", LOG)]
    wanted = runs.listed("lines", lines)
    groups = compare.groups(runs)
    drawn = _lines(groups, x, y, wanted)
    if not any(line.points for line in drawn):
        raise UserError(f"y={y}: none of {len(runs.rows)} runs has both {x} and {y}")
    if len(drawn) > len(COLOURS) * len(MARKERS):
        raise UserError(f"{len(drawn)} lines are too many to tell apart; choose some with where.KEY=VALUE")
    with _style() as new_figure:
        figure = new_figure(len(drawn))
        axes = figure.subplots()
        for i, line in enumerate(drawn):
            _draw_line(axes, line, i, 100 if compare.is_share(y) else 1)
        _axes(axes, drawn, x, y, log)
        _chance(axes, groups, y)
        axes.set_title(title or f"{label(y).split(',')[0].capitalize()} against {label(x)}", loc="left")
        if len(drawn) > 1 or drawn[0].label:
            figure.legend(loc="outside right upper", frameon=False)
        figure.supxlabel(_foot(runs, groups, y, caveat), x=0.01, ha="left", fontsize=6.5, color="0.35")
        return _save(figure, ending)


def _numeric(runs: Runs) -> set[str]:
    """Results and settings that are numbers."""
    numeric = {key for row in runs.rows for key, value in row.items()
               if isinstance(value, int | float) and not isinstance(value, bool)}  # fmt: skip
    return numeric - {*compare.SEEDS}


def _lines(groups: Sequence[Group], x: str, y: str, wanted: Sequence[str]) -> list[Line]:
    along = (x, *ALONG.get(x, ()))
    if len({group.settings.get("data.train_images") for group in groups}) > 1:
        along = (*along, compare.LAST)  # more images drawn are other images; the setting says so already
    keys = compare.telling(groups, wanted, without=along)
    by_line: dict[tuple[Any, ...], list[Group]] = {}
    for group in sorted(groups, key=lambda g: compare.sort_key({key: g.settings.get(key) for key in keys})):
        by_line.setdefault(tuple(group.settings.get(key) for key in keys), []).append(group)
    made = []
    for values, members in by_line.items():
        words = [shown(value) if key in ("model", "data") else f"{key}={shown(value)}"
                 for key, value in zip(keys, values, strict=True) if value is not None]  # fmt: skip
        points: list[tuple[float, float]] = []
        means: list[tuple[float, Interval]] = []
        for group in members:
            here = [(float(row[x]), float(row[y])) for row in group.rows if None not in (row.get(x), row.get(y))]
            if here:
                points += here
                means.append((mean_interval(at for at, _ in here).mean, mean_interval(value for _, value in here)))
        made.append(Line(" ".join(words), sorted(points), sorted(means, key=lambda pair: pair[0])))
    return made


# --------------------------------------------------------------------------------------------------------- drawing


@contextmanager
def _style() -> Iterator[Any]:
    """Small print for a column of a paper, text that is never read as mathematics, and ids that do not change."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {
        "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "legend.fontsize": 8.5,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "0.9",
        "grid.linewidth": 0.6, "axes.axisbelow": True, "text.parse_math": False, "svg.hashsalt": "vitbench",
        "pdf.fonttype": 42, "figure.dpi": 200,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        yield lambda lines: Figure(figsize=(6.4, max(3.7, 0.8 + 0.19 * lines)), layout="constrained")


def _draw_line(axes: Axes, line: Line, i: int, scale: int) -> None:
    look: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "zorder": 3}
    axes.plot([at for at, _ in line.means], [scale * mean.mean for _, mean in line.means], label=line.label,
              linestyle=DASHES[i % len(DASHES)], marker=MARKERS[i % len(MARKERS)], markersize=5.5, linewidth=1.4,
              markerfacecolor="white", markeredgewidth=1.2, **look)  # fmt: skip
    axes.scatter([at for at, _ in line.points], [scale * value for _, value in line.points], s=4, linewidths=0, **look)
    banded = [(at, mean) for at, mean in line.means if mean.why is None]
    if banded:
        low, high = [scale * mean.low for _, mean in banded], [scale * mean.high for _, mean in banded]
        axes.fill_between([at for at, _ in banded], low, high, color=look["color"], alpha=0.13, linewidth=0)


def _axes(axes: Axes, lines: Sequence[Line], x: str, y: str, log: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for name, column, axis in (("x", x, axes.xaxis), ("y", y, axes.yaxis)):
        values = [point[name == "y"] for line in lines for point in line.points]
        if name in log:
            if min(values) <= 0:
                raise UserError(f"log={log}: {column} is {min(values):g} in a run, which has no place on such an axis")
            getattr(axes, f"set_{name}scale")("log")
            spread = max(values) / min(values)
            subs = (1, 2, 3, 4, 5, 7) if spread < 5 else (1, 2, 5) if spread < 200 else (1,)
            axis.set_major_locator(LogLocator(10, subs=subs))
            axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.set_xlabel(label(x))
    axes.set_ylabel(label(y))
    axes.set_ylim(*_limits(lines, y, "y" in log))


def _limits(lines: Sequence[Line], y: str, log: bool) -> tuple[float, float]:
    """Room for all points, and for bands within reason: over two seeds they can be very wide."""
    scale = 100 if compare.is_share(y) else 1
    values = [scale * value for line in lines for _, value in line.points]
    means = [mean for line in lines for _, mean in line.means if mean.why is None]
    bands = [scale * end for mean in means for end in (mean.low, mean.high)]
    low, high = min(values), max(values)
    if log:
        return max(min([low, *bands]), low / 1.6) / 1.05, min(max([high, *bands]), high * 1.6) * 1.05
    room = (high - low) or abs(high) or 1.0
    bottom = max(min([low, *bands]), low - 0.25 * room) - 0.04 * room
    top = min(max([high, *bands]), high + 0.25 * room) + 0.04 * room
    return (max(bottom, 0.0), min(top, 100.0)) if compare.is_share(y) else (bottom, top)


def tick(value: float) -> str:
    """100, 1k, 2.5k, 1M: numbers as one says them."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


def _chance(axes: Axes, groups: Sequence[Group], y: str) -> None:
    """Where guessing lands, if all runs have as many classes."""
    classes = {len(row["classes"]) for group in groups for row in group.rows if row.get("classes")}
    if not compare.is_share(y) or len(classes) != 1:
        return
    share = 100 / classes.pop()
    above = y.endswith("_accuracy")  # where the word stands: on the side where the lines are
    level = share if above else 100 - share
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, level * 0.9), max(high, min(level * 1.05, 100.0)))
    axes.axhline(level, color="0.45", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.annotate("chance", (1, level), xycoords=("axes fraction", "data"), textcoords="offset points",
                  xytext=(-2, 2 if above else -2), ha="right", va="bottom" if above else "top", fontsize=7,
                  color="0.35")  # fmt: skip


def _foot(runs: Runs, groups: Sequence[Group], y: str, caveat: str) -> str:
    """What a reader must know to trust the figure, in small print: seeds, hardware, settings, caveats."""
    import textwrap

    ns = sorted({n for group in groups if (n := group.interval(y).n)})
    seeds = f"{ns[0]}" if len(ns) == 1 else f"{ns[0]} to {ns[-1]}"
    band = f"mean and 95 % t interval over {seeds} seeds" if ns[-1] > 1 else "one seed, no interval"
    machines = sorted({" ".join(str(row.get(f"hardware.{key}") or "?") for key in ("name", "precision"))
                       for group in groups for row in group.rows})  # fmt: skip
    hardware = machines[0] if len(machines) == 1 else f"{len(machines)} kinds of hardware or precision"
    what = f"{band}; small points: single runs; {compare.common(groups)}; {hardware}"
    lines = [what, *compare.warnings(groups), *runs.notes, caveat]
    return "\n".join(part for line in lines for part in textwrap.wrap(compare.plain(line), 125))


def _save(figure: Figure, ending: str) -> bytes:
    stamp: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
    out = io.BytesIO()
    figure.savefig(out, format=ending[1:], metadata=stamp[ending])
    return out.getvalue()
