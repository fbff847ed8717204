"""What there is, as plain lines: `vitbench ls`, and `ls models | pe | data | objectives | probes | studies | runs`.

`ls runs runs=FOLDER` looks elsewhere. `ls models family=timm` or `family=torchvision` lists the networks of a library,
with `name=` those whose names fit, such as `name='*nano*'`; with `match=vit.nano` those that cost within 10 % of that,
for images of `image_size=32`: they are counted for `seconds=60`, and the same command goes on. `ls images
file=images.png` draws what the network of a run gets, and takes the words of the run: `vitbench ls images
file=images.png data=cifar10 augment=strong`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.errors import UserError, check_choice, did_you_mean
from vitbench.menu import Choice
from vitbench.numbers.text import align, say
from vitbench.numbers.words import printable, shown_number, shown_value

if TYPE_CHECKING:
    from vitbench.models.menu import Size


def main(words: Sequence[str]) -> int:
    kind, options = (words[0], words[1:]) if words else ("", [])
    if kind in ("-h", "--help"):
        say(__doc__)
        return 0
    if kind and kind not in KINDS:
        raise UserError(f"ls {kind}: {did_you_mean(kind, KINDS)}")
    if kind == "images":
        return _images(options)
    if kind == "models" and options:
        return _networks(options)
    folder = "runs"
    for option in options:
        key, _, value = option.partition("=")
        if kind != "runs" or key != "runs" or not value:
            raise UserError(f"ls {kind} {option}: " + ("takes runs=FOLDER" if kind == "runs" else "takes nothing more"))
        from vitbench.settings.typed_text import with_home

        folder = with_home("runs", value)
    lines = LISTS[kind](Path(folder).expanduser()) if kind else overview()
    say("".join(f"{line}\n" for line in lines))
    return 0


def _images(words: Sequence[str]) -> int:
    """Draws a picture of training images; this alone imports torch."""
    from vitbench.training import picture

    say(str(picture.__doc__) if {"-h", "--help"} & {*words} else f"{printable(str(picture.draw(words)))}\n")
    return 0


def _networks(words: Sequence[str]) -> int:
    """Lists networks of a library; with match= those of about the cost of one of ours, which imports torch."""
    from vitbench.models.families import LIBRARIES, matching, recipe_of

    given = {"family": "", "name": "*", "match": "", "image_size": "32", "seconds": "60"}
    for word in words:
        key, _, value = word.partition("=")
        if key not in given or not value:
            raise UserError(f"ls models {word}: {did_you_mean(key, given)}, each with its value")
        if key in ("image_size", "seconds") and (not value.isdecimal() or int(value) < 1):
            raise UserError(f"ls models {word}: must be a whole number, 1 or more")
        given[key] = value
        if key in ("image_size", "seconds") and not any(other.startswith("match=") for other in words):
            raise UserError(f"ls models {word}: goes with match=, for example match=vit.nano")
    library = check_choice("ls models family", given["family"], LIBRARIES)
    names = matching(library, given["name"])
    if not given["match"]:
        say("".join(f"{line}\n" for line in align([[name, f"optim={recipe_of(name)}"] for name in names], 2)))
        return 0
    from vitbench.models import alike
    from vitbench.settings.compose import cache_folder

    size, memory = int(given["image_size"]), Path(cache_folder(None))
    found = alike.find(library, given["match"], names, size, int(given["seconds"]), memory)
    rows = [["model.arch", "recipe", "parameters", "multiply-adds", f"to {given['match']}"]]
    for name, *costs in found.networks:
        shown = [shown_number(key, cost, 0) for key, cost in zip(("parameters", "multiply_adds"), costs, strict=True)]
        rows.append([name, recipe_of(name), *shown, f"{costs[1] / found.target:.2f}"])
    lines = [f"Networks of {library} within 10 % of {given['match']}, for images of {size} px and 10 classes:"]
    say("".join(f"{line}\n" for line in [*lines, *align(rows, 2)]))
    if found.counted < found.names:
        print(
            f"vitbench: {found.counted:,} of {found.names:,} networks are counted; the same command counts more, "
            "name='*nano*' and its like fewer",
            file=sys.stderr,
        )
    return 0


def overview() -> list[str]:
    """Lists what can be listed, with its names."""
    from vitbench.runs.study import study_names
    from vitbench.settings.compose import CONF_DIR

    def files_of(group: str) -> str:
        return "|".join(sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml")))

    contents = {
        "models": f"model={'|'.join(_menu('model'))} model.size={'|'.join(_sizes())}",
        "pe": " ".join(_menu("pe")),
        "data": " ".join(_menu("data")),
        "objectives": " ".join(_menu("objective")),
        "probes": " ".join(_menu("probe")),
        "studies": printable(" ".join(study_names())),
        "runs": "what has been trained, and what has not ended",
        "images": "a picture of what the network of a run gets: file=images.png data=cifar10 augment=strong",
    }
    return [
        *align([[f"vitbench ls {kind}", line] for kind, line in contents.items()], 2),
        "",
        f"optim={files_of('optim')} (the recipe; each model brings its own)",
        f"augment={files_of('augment')}",
    ]


def _menu(kind: str) -> Mapping[str, Choice]:
    from vitbench.probes.menu import MENU as PROBES
    from vitbench.settings.choices import menu_of

    return PROBES if kind == "probe" else menu_of(kind)


def _sizes() -> dict[str, Any]:
    from vitbench.models.menu import SIZES

    return SIZES


def _choices(kind: str) -> list[str]:
    return align([[name, choice.help] for name, choice in _menu(kind).items()], 2)


def models(_: Path) -> list[str]:
    """Lists the models, what each costs in each size for a 32 px image, and what the rungs of the ladders cost."""
    from vitbench.models.ladders import LADDERS

    def costs(model: Size) -> list[str]:
        return [shown_number(cost, getattr(model, cost), 0) for cost in ("parameters", "multiply_adds")]

    rows = [["size", "model", "options", "parameters", "multiply-adds", "to vit"]]
    for size, pair in _sizes().items():
        for name, model in pair.items():
            options = " ".join(f"{key}={value}" for key, value in model.options.items())
            rows.append([size, name, options, *costs(model), f"{model.multiply_adds / pair['vit'].multiply_adds:.2f}"])
    rungs = [["model", "rung", "parameters", "multiply-adds", "to the whole"]]
    for name, ladder in LADDERS.items():
        for rung in ladder.values():
            typed = " ".join(f"model.{key}={shown_value(value)}" for key, value in rung.options.items())
            ratio = f"{rung.multiply_adds / ladder[''].multiply_adds:.2f}"
            rungs.append([name, typed or "the whole", *costs(rung), ratio])
    return [
        *_choices("model"),
        "",
        "Pairs of equal cost, for images of 32 px, patches of 4 px and 10 classes:",
        *align(rows, 3),
        "",
        "Rungs of the ladders in size nano, for the same images; they can be combined (docs/explanation/ladders.md):",
        *align(rungs, 2),
    ]


def studies(_: Path) -> list[str]:
    """Lists the studies with their questions, or why one cannot be read; of the user's own it says where they lie."""
    from vitbench.runs.study import load_study, own_studies, study_names

    own, rows = own_studies(), []
    for name in study_names():
        try:
            where = f" (yours: {own[name]})" if name in own else ""
            rows.append([printable(name), printable(f"{load_study(name).question}{where}")])
        except UserError as error:
            rows.append([printable(name), f"cannot be read: {printable(str(error))}"])
    return align(rows, 2) if rows else []


def runs(folder: Path) -> list[str]:
    """Lists the ids of runs, how each stands, and its accuracy."""
    from vitbench.runs.records import folders_kept_apart, run_folders

    rows = [[printable(path.name), *_standing(path)] for path in run_folders(folder)]
    if not rows:
        print(f"vitbench: no runs in {folder}; `vitbench train` makes one", file=sys.stderr)
    for apart in folders_kept_apart(folder):
        print(f"vitbench: runs on images that changed since are in {printable(str(apart))}", file=sys.stderr)
    return align(rows, 2) if rows else []


def _standing(folder: Path) -> tuple[str, str]:
    """Says how a run stands, and its test accuracy if it has one."""
    from vitbench.runs.standing import FAILED, INTERRUPTED, RUNNING, UNREADABLE, standing_of

    run = standing_of(folder)
    told = {
        FAILED: f"failed: {printable(run.told)[:120]}",
        UNREADABLE: f"unreadable: {printable(run.told)}",
        RUNNING: f"running: {run.begun and run.begun.progress}",
        INTERRUPTED: f"unfinished: {run.begun and run.begun.progress}",
    }
    return told.get(run.state, run.state), "" if run.accuracy is None else f"{100 * run.accuracy:.2f} %"


LISTS: dict[str, Callable[[Path], list[str]]] = {
    "models": models,
    "pe": lambda _: _choices("pe"),
    "data": lambda _: _choices("data"),
    "objectives": lambda _: _choices("objective"),
    "probes": lambda _: _choices("probe"),
    "studies": studies,
    "runs": runs,
}
KINDS = (*LISTS, "images")
