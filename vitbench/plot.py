"""Draws one figure of runs: by default test accuracy against training images, a line per model, all seeds as points.

    vitbench plot study=quickstart file=figures/quickstart.svg
    vitbench plot where.data=cifar10 y=test_error fit=true lines=[model,pe] file=error.pdf

With `fit=true` the lines are fitted learning curves (vitbench/fitting/figure_fit.py). If x is no number (`x=augment`)
its values stand side by side, and if y is a list of results their panels do. With `whole=resnet` or `bare=vit` the
networks of a ladder do (vitbench/comparing/ladder_figure.py). What a probe measured along something
(`y=shift.length.consistency`) is drawn against that. `per=confusion` draws which class one network takes for which
(vitbench/comparing/confusion_figure.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.comparing.confusion_figure import draw_confusion
from vitbench.comparing.evidence import choose_runs, refuse_table
from vitbench.comparing.ladder_figure import draw_ladder
from vitbench.comparing.panels import Panel, build_panel, draw_panels, numeric_columns, swept_abscissas
from vitbench.comparing.select import Runs
from vitbench.comparing.table import LADDER_KEYS, choose_ladder, choose_layouts
from vitbench.errors import UserError
from vitbench.numbers import look
from vitbench.numbers.words import column_label
from vitbench.settings.command_schemas import PlotConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_KEYS = ("x", "y", "lines", "log", "fit", "at", "layer", "degenerate", *LADDER_KEYS)  # these lay out a figure
MOST_PANELS = 4
PER_FILE = "figures/confusion.svg"  # of per=confusion, where no file was typed


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    from vitbench.machine.outputs import check_output, write_output
    from vitbench.numbers.text import say
    from vitbench.runs.study import load_study

    asked: Any = OmegaConf.to_container(config, resolve=True)
    per = asked["per"]
    if per and asked["file"] == PlotConfig.file:
        asked["file"] = PER_FILE
    path = Path(asked["file"]).expanduser()
    ending = path.suffix.lower()
    if ending not in look.FIGURE_ENDINGS:
        raise UserError(f"file={asked['file']}: the ending says the format; choices: {', '.join(look.FIGURE_ENDINGS)}")
    check_output(path, replace=asked["replace"])
    study = load_study(asked["study"]) if asked["study"] is not None else None
    title, caveat = (study.title, study.caveat) if study else (None, "")
    if per:
        refuse_table(asked["runs"], per)
        runs = choose_runs(asked["runs"], asked["where"], study)
        others = {key: asked[key] for key in ("name", *FIGURE_KEYS)}
        blob = draw_confusion(runs, asked["runs"], per=per, others=others, title=title, caveat=caveat, ending=ending)
        write_output(path, blob, replace=asked["replace"])
        say(f"{path}\n")
        return 0
    layouts = choose_layouts(asked, study, "figures", FIGURE_KEYS)
    if len(layouts) > 1:
        raise UserError(f"study={asked['study']} has {len(layouts)} figures; choose with name=: {', '.join(layouts)}")
    runs = choose_runs(asked["runs"], asked["where"], study)
    layout = next(iter(layouts.values()))
    if asked["y"] is not None:
        layout = _without_unfit_keys(layout, {key for key in FIGURE_KEYS if asked[key] is not None}, runs, asked["y"])
    blob = draw_figure(runs, title=title, caveat=caveat, ending=ending, **layout)
    write_output(path, blob, replace=asked["replace"])
    say(f"{path}\n")
    return 0


def _without_unfit_keys(layout: dict[str, Any], typed: set[str], runs: Runs, y: Any) -> dict[str, Any]:
    """Adapts a study's figure to another y: drops its x if y does not lie along it, and its fit if y are several."""
    x, results = layout.get("x"), y if isinstance(y, list) else [y]
    x_is_usual = x in numeric_columns(runs) | {*runs.keys}
    fits = all(
        x in swept_abscissas(runs, str(result)) or (x_is_usual and result in runs.numbers()) for result in results
    )
    unfit = ({"x", "log"} if x is not None and not fits else set()) | ({"fit"} if isinstance(y, list) else set())
    return {key: value for key, value in layout.items() if key in typed or key not in unfit}


def draw_figure(
    runs: Runs, *, title: str | None = None, caveat: str = "", ending: str = ".svg", **layout: Any
) -> bytes:
    """Draws a figure and returns the bytes of its file."""
    with look.figure_style():
        return look.save_figure(build_figure(runs, title=title, caveat=caveat, **layout), ending)


def build_figure(
    runs: Runs,
    *,
    x: str | None = None,
    y: Any = None,
    lines: Any = None,
    log: str | None = None,
    fit: Any = None,
    at: float | None = None,
    layer: str | None = None,
    degenerate: bool | None = None,
    whole: str | None = None,
    bare: str | None = None,
    where: Mapping[str, Any] | None = None,
    title: str | None = None,
    caveat: str = "",
) -> Figure:
    """Draws a figure within `look.figure_style`; if `y` is a list of results, each has a panel."""
    others = {"x": x, "lines": lines, "log": log, "fit": fit, "at": at, "layer": layer, "degenerate": degenerate}
    if ladder := choose_ladder({"whole": whole, "bare": bare}, others, y, result="y"):
        return draw_ladder(runs.filtered(where or {}), *ladder, y=y, title=title, caveat=caveat)
    if not isinstance(fit, bool | None):
        raise UserError(f"fit={fit}: choices: false, true")
    if isinstance(y, list) and (fit or not 0 < len(y) <= MOST_PANELS):
        why = "fit=true draws one result" if fit else f"1 to {MOST_PANELS} results"
        raise UserError(f"y=[{','.join(map(str, y))}]: {why}")
    runs = runs.filtered(where or {})
    if fit:
        from vitbench.fitting.references import without_references
    shown = without_references(runs) if fit and (x or "train_images") == "train_images" else runs
    panels = [
        build_panel(
            shown,
            x=x,
            y=result and str(result),
            lines=lines,
            log=log,
            fit=fit,
            at=at,
            layer=layer,
            degenerate=bool(degenerate),
        )
        for result in (y if isinstance(y, list) else [y])
    ]
    title = _title_of(panels) if title is None else title
    if fit:
        from vitbench.fitting.figure_fit import draw_fit

        return draw_fit(runs, panels[0], runs.listed("lines", lines), title, caveat)
    return draw_panels(runs, panels, title, caveat)


def _title_of(panels: list[Panel]) -> str:
    """Names a figure by its axes; what a probe measured has a long name, which the y axis alone says."""
    first, x = panels[0], column_label(panels[0].x).removesuffix(", %")
    if first.swept and len(panels) == 1:
        return first.y
    if len(panels) > 1 or "." in first.y:
        return f"Against {x}"
    return f"{column_label(first.y).split(',')[0].capitalize()} against {x}"


def drawn_results(figures: Iterable[Mapping[str, Any]]) -> set[str]:
    """Collects the results that a study's figures draw."""
    ys = [layout.get("y") for layout in figures]
    return {str(result) for y in ys for result in (y if isinstance(y, list) else [y])}
