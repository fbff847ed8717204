"""Draws one figure of runs: by default test accuracy against training images, a line per model, all seeds as points.

    vitbench plot study=quickstart file=figures/quickstart.svg
    vitbench plot where.data=cifar10 y=test_error fit=true lines=[model,pe] file=error.pdf

With `fit=true` the lines are fitted learning curves (vitbench/fitting/figure_fit.py). An x that is no number (`x=augment`) has
its values side by side, and so has a list of results its panels. What a probe measured along something (`y=shift.length.consistency`) is drawn against that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.comparing.panels import _abscissas, _figure, _numeric, _panel
from vitbench.comparing.select import Runs, select_runs
from vitbench.comparing.table import choose
from vitbench.errors import UserError
from vitbench.numbers import look
from vitbench.numbers.look import FIGURE_ENDINGS
from vitbench.numbers.words import column_label

if TYPE_CHECKING:
    pass

FIGURE_KEYS = ("x", "y", "lines", "log", "fit", "at", "layer")  # of a figure, in a study and on the command line
STUDY_FIGURE_KEYS = (*FIGURE_KEYS, "where")

PANELS = 4  # side by side, at most


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    from vitbench.machine.disk import write
    from vitbench.numbers.text import say
    from vitbench.runs.study import load_study

    asked: Any = OmegaConf.to_container(config, resolve=True)
    path = Path(asked["file"]).expanduser()
    if path.suffix.lower() not in FIGURE_ENDINGS:
        raise UserError(f"file={asked['file']}: the ending says the format; choices: {', '.join(FIGURE_ENDINGS)}")
    study = load_study(asked["study"]) if asked["study"] is not None else None
    layouts = choose(asked, study, "figures", FIGURE_KEYS, STUDY_FIGURE_KEYS)
    if len(layouts) > 1:
        raise UserError(f"study={asked['study']} has {len(layouts)} figures; choose with name=: {', '.join(layouts)}")
    runs = select_runs(asked["runs"], asked["where"], study)
    layout = next(iter(layouts.values()))
    if asked["y"] is not None:
        layout = _without_what_is_not_for(
            asked["y"], runs, layout, {key for key in FIGURE_KEYS if asked[key] is not None}
        )
    blob = draw_figure(
        runs,
        title=study.title if study else None,
        caveat=study.caveat if study else "",
        ending=path.suffix.lower(),
        **layout,
    )
    write(path, blob, folders=True)
    say(f"{path}\n")
    return 0


def _without_what_is_not_for(y: Any, runs: Runs, layout: dict[str, Any], typed: set[str]) -> dict[str, Any]:
    """A study's figure for another result: without its x where that is none for it, and its fit where there are several."""
    several = isinstance(y, list)
    usual, x = _numeric(runs) | {*runs.keys}, layout.get("x")
    fits = all(
        x in _abscissas(runs, str(one)) or (one in runs.numbers() and x in usual) for one in (y if several else [y])
    )
    left_out = ({"x", "log"} if x is not None and not fits else set()) | ({"fit"} if several else set())
    return {key: value for key, value in layout.items() if key in typed or key not in left_out}


def draw_figure(
    runs: Runs,
    *,
    x: str | None = None,
    y: Any = None,
    lines: Any = None,
    log: str | None = None,
    fit: Any = None,
    at: float | None = None,
    layer: str | None = None,
    where: Mapping[str, Any] | None = None,
    title: str | None = None,
    caveat: str = "",
    ending: str = ".svg",
) -> bytes:
    """The figure as a file's bytes; several results stand side by side."""
    if not isinstance(fit, bool | None):
        raise UserError(f"fit={fit}: choices: false, true")
    if isinstance(y, list) and (fit or not 0 < len(y) <= PANELS):
        raise UserError(
            f"y=[{','.join(map(str, y))}]: " + ("fit=true draws one result" if fit else f"1 to {PANELS} results")
        )
    runs = runs.filtered(where or {})
    panels = [
        _panel(runs, x, one and str(one), lines, log, fit, at, layer) for one in (y if isinstance(y, list) else [y])
    ]
    first = panels[0]
    if title is None:
        title = (
            first.y
            if first.swept
            else f"{column_label(first.y).split(',')[0].capitalize()} against {column_label(first.x)}"
        )
        title = title if len(panels) == 1 else f"Against {column_label(first.x)}"
    with look.figure_style():
        if fit:
            from vitbench.fitting import figure_fit

            wanted = runs.listed("lines", lines)
            made = figure_fit.make(runs, first.groups, first.lines, first.y, first.log, wanted, title, caveat)
        else:
            made = _figure(runs, panels, title, caveat)
        return look.save_figure(made, ending)


def results(figures: Iterable[Mapping[str, Any]]) -> set[str]:
    """What a study's figures draw."""
    return {str(one) for layout in figures for y in [layout.get("y")] for one in (y if isinstance(y, list) else [y])}


# ----------------------------------------------------------------------------------------------- what probes measured


# --------------------------------------------------------------------------------------------------------- drawing
