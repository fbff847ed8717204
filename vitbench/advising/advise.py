"""`vitbench advise data.root=FOLDER`: says which network suits these photographs, and what else would help.

It looks at the folder, plans a study that fits into the minutes, does its runs, and puts the results into words.
"""

from __future__ import annotations

import math
import re
import shlex
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.advising.asked import Asked, checked, command_again
from vitbench.advising.planning import old_plan, planned
from vitbench.data.menu import forget, open_dataset
from vitbench.data.sizes import count_train_images
from vitbench.errors import DataError, TryAgain, UserError
from vitbench.inspect import Inspected, inspect
from vitbench.machine.disk import storage, write
from vitbench.machine.interrupt import Stopped
from vitbench.machine.outputs import check_output
from vitbench.numbers.text import say
from vitbench.numbers.words import plural, printable
from vitbench.settings.share import source_options

if TYPE_CHECKING:
    from vitbench.data.split import Dataset

FINDINGS = 8  # so many findings are printed; `vitbench inspect` prints all
LONGER = 4  # the final training has so many times the steps of a trial, where the network has more to learn


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    options: Any = OmegaConf.to_container(config, resolve=True)
    asked = checked(options)
    try:
        return _advise(asked)
    except Stopped as stopped:
        raise Stopped(f"{stopped}: {command_again()}", stopped.number) from None
    except KeyboardInterrupt:
        raise Stopped(f"stopped, and what was done is kept; to continue: {command_again()}", signal.SIGINT) from None


def _advise(asked: Asked) -> int:
    forget()
    count_train_images(**source_options(asked.data))  # raises DataError for a folder that cannot be used
    advice = asked.out / "advice.html"
    if not asked.study.exists():  # where there is a plan, the page belongs to it and may be replaced
        check_output(advice, "out", asked.replace)
    with storage(asked.out):
        asked.out.mkdir(parents=True, exist_ok=True)
    inspected = inspect(asked.data)
    for line in _found(inspected, asked):
        _tell(line)
    _refuse_images(inspected, asked.data)
    old = old_plan(asked) if asked.study.exists() else None
    if old:
        _tell(f"advise continues the plan in {asked.study}; remove that file to get a new plan")
    if old and not old.lacks_models and (not old.is_done or asked.minutes <= old.minutes):
        dataset = _opened(asked, old.image_size)
    else:
        _tell("measuring how long training takes here ...")
        made = planned(asked, inspected, old)
        for line in made.lines:
            _tell(line)
        dataset = _opened(asked, made.image_size)
        if old and math.isinf(old.minutes):  # a plan that names no minutes was not written by advise
            check_output(asked.study, "out", asked.replace)
        write(asked.study, made.text.encode())
    return _do_and_tell(asked, dataset)


def _tell(line: str) -> None:
    say(f"{printable(line)}\n")
    sys.stdout.flush()


def _found(inspected: Inspected, asked: Asked) -> list[str]:
    """Says in a few lines how many images there are, and what is suspicious about them."""
    images = inspected.images
    counts = Counter(images.classes)
    (most, _), (least, _) = counts.most_common()[0], counts.most_common()[-1]
    each = f"{counts[most]:,}"
    if counts[least] != counts[most]:
        each = f"{counts[least]:,} ({least}) to {each} ({most})"
    lines = [f"{inspected.what}: {plural(len(images.names), 'image')} in {len(counts):,} classes, {each} images each"]
    found = [f"{one.what} ({len(one.suspects):,})" for one in inspected.findings]
    if found:
        more = f", and {len(found) - FINDINGS} other findings" if len(found) > FINDINGS else ""
        lines.append(f"these images look suspicious: {'; '.join(found[:FINDINGS])}{more}")
        lines.append(f"`vitbench inspect {shlex.join(_typed_data(asked))} file=suspects.png` shows all of them")
    return lines


def _refuse_images(inspected: Inspected, data: dict[str, Any]) -> None:
    """Raises DataError for images at which training would stop, before any time is spent on measuring."""
    images = inspected.images
    damaged = [name for name, facts in zip(images.names, images.facts, strict=True) if facts.error is not None]
    if damaged and not data["skip_broken"]:
        raise DataError(
            f"{plural(len(damaged), 'damaged file')}, the first is {printable(damaged[0])}; repair or remove them, or"
            " type data.skip_broken=true to leave them out"
        )
    lone = [name for name, number in Counter(images.classes).items() if number == 1]
    if lone and not any(images.splits):
        raise DataError(
            f"class {printable(lone[0])} has only one image, and needs one for training and another for the test; add"
            " images or remove the class"
        )


def _typed_data(asked: Asked) -> list[str]:
    return [f"data.root={asked.data['root']}"] + (
        [f"data.labels={asked.data['labels']}"] if asked.data["labels"] else []
    )


def _opened(asked: Asked, image_size: int) -> Dataset:
    options = source_options(asked.data) | {"image_size": image_size}
    dataset = open_dataset(**options, progress=asked.machine["progress"] is not False)
    for line in dataset.warnings[:3]:
        _tell(line)
    return dataset


def _do_and_tell(asked: Asked, dataset: Dataset) -> int:
    """Does the runs that are missing, prints the advice and writes the page. Returns the exit code."""
    import numpy as np

    from vitbench.advising.doing import do_runs, launcher_of
    from vitbench.advising.page import page
    from vitbench.advising.results import read_results
    from vitbench.advising.words import knows_by_heart, little_is_left, sections
    from vitbench.comparing.select import select_runs
    from vitbench.runs.images import done
    from vitbench.runs.plan import plan
    from vitbench.runs.run import Run
    from vitbench.runs.study import load_study
    from vitbench.sweeping.status import MEASURING

    study = load_study(str(asked.study))
    folder = Path(asked.runs).expanduser()
    of_study = plan(study, asked.sweep_words)
    failed: list[str] = []
    todo = [one.id for one in of_study if done(Run(folder / one.id, one.settings)) is None]
    if todo:
        _tell(f"{len(of_study) - len(todo)} of {plural(len(of_study), 'run')} are done; the others begin now")
        end = time.time() + 60 * asked.minutes + MEASURING  # the sweep first measures steps for so many seconds
        unfinished = do_runs(asked.study, asked.sweep_words, launcher_of(asked.machine["device"])[0], end)
        late = [line for line in unfinished if "the time is over" in line]
        if late:
            left = plural(len(late), "run")
            _tell(f"the minutes are used up before {left} could start; to continue: {command_again()}")
        failed = [line for line in unfinished if line not in late]
        for line in failed:
            print(f"vitbench: {line}", file=sys.stderr)
    try:
        runs = select_runs(asked.runs, {}, study)
    except UserError:
        if todo:
            raise TryAgain(f"no run finished in minutes={asked.minutes:g}; to continue: {command_again()}") from None
        raise
    if others := [row["id"] for row in runs.rows if row["data_fingerprint"] != dataset.fingerprint]:
        raise DataError(
            f"data.root={asked.data['root']}: the images have changed since {plural(len(others), 'run')} finished;"
            " repeat the command to train again"
        )
    results = read_results(runs, folder, np.bincount(dataset.train.labels).tolist(), len(of_study))
    told = sections(results)
    best = results.networks[0]
    longer = LONGER if best.trained and not (little_is_left(best) or knows_by_heart(best)) else 1
    steps = f", with {longer} times the steps, which was not tried" if longer > 1 else ""
    heading = f"To train {best.name}, the most accurate here, also on the validation images{steps}, and to use it"
    commands = _commands(asked, best.row, longer)
    lines = []
    for section in told:
        lines += ["", section.title, *(f"  {sentence}" for sentence in section.sentences)]
    say("\n".join([*lines, "", heading, *(f"  {each}" for each in commands), ""]))
    file = asked.out / "advice.html"
    write(file, page(asked.name, results, told, heading, commands, dataset.test).encode())
    say(f"\n{file}\n")
    return 1 if failed else 0


def _commands(asked: Asked, row: dict[str, Any], longer: int) -> list[str]:
    """Returns the command that trains a network on all but the test images, with `longer` times the steps, and the
    command that classifies images by it."""
    from vitbench.advising.plan import setting_word
    from vitbench.runs.plan import Planner
    from vitbench.settings.identity import run_id

    model = [setting_word("model", row["model"])]
    keys = ("model.arch", "model.size", "model.patch_size", "pe", "init", "head", "freeze", "data.image_size")
    usual = {"pe": "learned", "head": "keep", "freeze": "none"}
    chosen = [key for key in keys if row.get(key) is not None and row[key] != usual.get(key)]
    data = [word for word in asked.words if word != setting_word("data.name", Path(asked.data["root"]).resolve().name)]
    words = [*data, *model, *(setting_word(key, row[key]) for key in chosen)]
    if row.get("init"):
        words.append(f"optim.lr={row['optim.lr']:g}")
    words += [f"optim.steps={longer * row['steps']}", "data.val_fraction=0"]
    made = run_id(Planner().settings(words))
    runs = [] if asked.runs == "runs" else [f"runs={asked.runs}"]
    return [
        " ".join(map(_in_shell, ["vitbench", "train", *words, *runs])),
        " ".join(map(_in_shell, ["vitbench", "predict", f"run={made}", "images=FOLDER", *runs])),
    ]


def _in_shell(word: str) -> str:
    """Quotes a word for a shell; a word with single quotes of its own gets double quotes around it."""
    if "'" in word and not re.search(r'["$`\\!]', word):
        return f'"{word}"'
    return shlex.quote(word)
