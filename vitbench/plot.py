"""Draws figures of runs: by default test accuracy by training images, with a line for each network.

    vitbench plot study=quickstart file=figures/quickstart.svg
    vitbench plot where.data=cifar10 y=test_error fit=true lines=[model,pe] file=error.pdf

With `fit=true` the lines are fitted learning curves (vitbench/fitting/figure_fit.py). If x is no number (`x=augment`)
its values stand side by side, and if y is a list of results their panels do. With `whole=resnet` or `bare=vit` the
networks of a ladder do (vitbench/comparing/ladder_figure.py). What a probe measured along something
(`y=shift.length.consistency`) is drawn against that. `per=confusion` draws which class one network takes for which
(vitbench/comparing/confusion_figure.py). Of a study with several figures all are drawn into a folder. A figure has the
name that the study gives it, or that of the result that was typed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.comparing.confusion_figure import draw_confusion
from vitbench.comparing.draw_panels import draw_panels
from vitbench.comparing.evidence import asker_of, choose_runs, refuse_table
from vitbench.comparing.frame import check_room
from vitbench.comparing.ladder_figure import draw_ladder
from vitbench.comparing.panels import Panel, build_panel, numeric_columns, swept_abscissas
from vitbench.comparing.select import Runs
from vitbench.comparing.table import LADDER_KEYS, choose_ladder, choose_layouts
from vitbench.comparing.wording import WORDING_KEYS, wording_of
from vitbench.errors import UserError, check_choice
from vitbench.numbers import look
from vitbench.numbers.setting_words import axis_label, without_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vitbench.runs.study import Study

USUAL_KEYS = ("x", "y", "lines", "log", "fit", "at", "layer", "degenerate", *LADDER_KEYS)
FIGURE_KEYS = (*USUAL_KEYS, *WORDING_KEYS)  # these lay out a figure
DRAWN_KEYS = ("x", "y", "at", "layer", *LADDER_KEYS)  # these say what a figure draws, and so what its title can say
MOST_PANELS = 4
FOLDER, USUAL_NAME = Path("figures"), "accuracy"  # where a figure goes if no file was typed, and its name without one


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    from vitbench.machine.outputs import check_output, write_output
    from vitbench.numbers.text import say
    from vitbench.runs.study import load_study

    asked: Any = OmegaConf.to_container(config, resolve=True)
    style = check_choice("style", asked["style"], look.STYLES)
    wording_of(asked)  # a slip is told before runs are read
    per, replaces = asked["per"], asked["replace"]
    study = load_study(asked["study"]) if asked["study"] is not None else None
    asker = asker_of(asked["runs"], study)
    is_other, caveat = asker is not study, asker.caveat if asker else ""
    layouts = {"confusion": {}} if per else _layouts_to_draw(asked, study)
    names = [*layouts] if asked["y"] is None else [_file_name(asked["y"])] * len(layouts)
    paths = _paths_of(asked["file"], names)
    for path in paths:
        check_output(path, replace=replaces)
    if per:
        refuse_table(asked["runs"], per)
    runs = choose_runs(asked["runs"], asked["where"], study)
    blobs = []  # all are drawn before one is written
    for path, (name, layout) in zip(paths, layouts.items(), strict=True):
        ending = path.suffix.lower()
        if per:
            others = {key: asked[key] for key in ("name", *USUAL_KEYS)}
            wording = wording_of(asked, is_typed=True)
            blob = draw_confusion(
                runs, asked["runs"], per=per, others=others, wording=wording, caveat=caveat, ending=ending, style=style
            )
        else:
            if asked["y"] is not None:
                typed = {key for key in FIGURE_KEYS if asked[key] is not None}
                layout = _without_unfit_keys(layout, typed, runs, asked["y"])
            layout = _with_fitting_words(layout, study.figures.get(name, {}) if study else {}, asked, is_other)
            is_typed = asked["labels"] is not None
            blob = draw_figure(runs, caveat=caveat, ending=ending, style=style, is_typed=is_typed, **layout)
        blobs.append(blob)
    for path, blob in zip(paths, blobs, strict=True):
        write_output(path, blob, replace=replaces)
        say(f"{path}\n")
    return 0


def _layouts_to_draw(asked: Mapping[str, Any], study: Study | None) -> dict[str, dict[str, Any]]:
    """Returns the layouts of the figures that were asked for, by name.

    Where a study has several figures and a result was typed without `name=`, it is the first one of this result, or
    else one of usual layout.
    """
    layouts = choose_layouts(asked, study, "figures", FIGURE_KEYS)
    if len(layouts) < 2 or asked["y"] is None or study is None:
        return layouts
    drawn = [name for name, layout in study.figures.items() if layout.get("y") == asked["y"]]
    as_typed = [name for name in drawn if asked["x"] in (None, study.figures[name].get("x"))]
    if as_typed:
        return {as_typed[0]: layouts[as_typed[0]]}
    return {"": {key: asked[key] for key in FIGURE_KEYS if asked[key] is not None}}


def _file_name(y: Any) -> str:
    """Names a file after the results that were typed."""
    return re.sub(r"[^\w.-]+", "_", "-".join(map(str, y if isinstance(y, list) else [y])))[:150]


def _paths_of(file: str | None, names: Sequence[str]) -> list[Path]:
    """Returns the path of each figure, by the names of their layouts; several go into a folder.

    Raises UserError where the ending of a file says no format, and where several figures have one file.
    """
    path = Path(file).expanduser() if file is not None else FOLDER
    is_folder = file is None or (not path.suffix and (len(names) > 1 or file.endswith("/") or path.is_dir()))
    if is_folder:
        return [path / f"{name or USUAL_NAME}.svg" for name in names]
    if path.suffix.lower() not in look.FIGURE_ENDINGS:
        raise UserError(f"file={file}: the ending says the format; choices: {', '.join(look.FIGURE_ENDINGS)}")
    if len(names) > 1:
        raise UserError(
            f"file={file}: the study has {len(names)} figures; choose one with name= ({', '.join(names)}), or type a "
            "folder for all, file=figures/"
        )
    return [path]


def _without_unfit_keys(layout: dict[str, Any], typed: set[str], runs: Runs, y: Any) -> dict[str, Any]:
    """Adapts a study's figure to another y: drops its x if y does not lie along it, and its fit if y are several."""
    x, results = layout.get("x"), y if isinstance(y, list) else [y]
    x_is_usual = x in numeric_columns(runs) | {*runs.keys}
    fits = all(
        x in swept_abscissas(runs, str(result)) or (x_is_usual and result in runs.numbers()) for result in results
    )
    unfit = ({"x", "log", "xlabel"} if x is not None and not fits else set()) | (
        {"fit"} if isinstance(y, list) else set()
    )
    return {key: value for key, value in layout.items() if key in typed or key not in unfit}


def _with_fitting_words(
    layout: dict[str, Any], own: Mapping[str, Any], asked: Mapping[str, Any], is_other: bool
) -> dict[str, Any]:
    """Drops the words of a study's figure that do not fit what was typed; `own` is its layout in the study.

    Typed words always stay. Typed labels come after those of the study. `is_other`: the runs are of another study.
    """
    usual = {"x": "train_images", "y": "test_error" if own.get("fit") else "test_accuracy"}
    changed = {key for key in ("lines", *DRAWN_KEYS) if asked[key] not in (None, own.get(key, usual.get(key)))}
    unfit = {f"{axis}label" for axis in changed & {"x", "y"}}
    if changed.intersection(DRAWN_KEYS):
        unfit.add("title")
    if "y" in changed and "x" not in own:
        unfit.add("xlabel")  # each result can have an x of its own
    if changed and isinstance(own.get("labels"), list):
        unfit.add("labels")
    if is_other:
        unfit = {*WORDING_KEYS} - {"inches"}
    kept = {key: value for key, value in layout.items() if asked.get(key) is not None or key not in unfit}
    has_both = asked["labels"] is not None and "labels" in own and "labels" not in unfit
    return kept | ({"study_labels": own["labels"]} if has_both else {})


def draw_figure(runs: Runs, *, caveat: str = "", ending: str = ".svg", style: str = "paper", **layout: Any) -> bytes:
    """Draws a figure and returns the bytes of its file."""
    with look.figure_style(style):
        drawn = build_figure(runs, caveat=caveat, **layout)
        check_room(drawn, layout.get("inches"))
        return look.save_figure(drawn, ending)


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
    caveat: str = "",
    is_typed: bool = False,
    **words: Any,
) -> Figure:
    """Draws a figure within `look.figure_style`; if `y` is a list of results, each has a panel.

    `words` are the settings of WORDING_KEYS, and the `study_labels` that typed labels extend. `is_typed` says whether
    its labels come from a command line.
    """
    wording = wording_of(words, is_typed)
    others = {"x": x, "lines": lines, "log": log, "fit": fit, "at": at, "layer": layer, "degenerate": degenerate}
    if ladder := choose_ladder({"whole": whole, "bare": bare}, others, y, result="y"):
        return draw_ladder(runs.filtered(where or {}), *ladder, y=y, wording=wording, caveat=caveat)
    if not isinstance(fit, bool | None):
        raise UserError(f"fit={fit}: choices: false, true")
    if isinstance(y, list) and (fit or not 0 < len(y) <= MOST_PANELS):
        why = "fit=true draws one result" if fit else f"1 to {MOST_PANELS} results"
        raise UserError(f"y=[{','.join(map(str, y))}]: {why}")
    if isinstance(y, list) and len(y) > 1 and wording.ylabel is not None:
        raise UserError(f"ylabel={wording.ylabel}: each panel of several results has a label of its own; leave it out")
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
    title = _title_of(panels)
    if fit:
        from vitbench.fitting.figure_fit import draw_fit

        return draw_fit(runs, panels[0], runs.listed("lines", lines), title, caveat, wording)
    return draw_panels(runs, panels, title, caveat, wording)


def _title_of(panels: Sequence[Panel]) -> str:
    """Names a figure by its axes: what is drawn, and what it is drawn against; panels can have no x in common."""
    x, *others = dict.fromkeys(without_unit(panel.x_label or axis_label(panel.x)) for panel in panels)
    if len(panels) > 1:
        return "" if others else f"By {x}"
    y = without_unit(axis_label(panels[0].y))
    return f"{y[:1].upper()}{y[1:]} by {x}"


def drawn_results(figures: Iterable[Mapping[str, Any]]) -> set[str]:
    """Collects the results that a study's figures draw."""
    ys = [layout.get("y") for layout in figures]
    return {str(result) for y in ys for result in (y if isinstance(y, list) else [y])}
