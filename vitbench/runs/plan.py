"""The runs that a study asks for: its grid lines expanded, each run with its settings and id, and what sweeps asked for before."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitbench.errors import UserError
from vitbench.machine.disk import storage, write
from vitbench.runs.study import Study, words_of_line
from vitbench.settings.choices import CONF_GROUPS
from vitbench.settings.compose import as_settings, compose
from vitbench.settings.overrides import parsed

CONFIRMED_FROM = 10_000  # runs that need confirm=true


def expand(study: Study, typed: Iterable[str] = ()) -> Iterator[list[str]]:
    """The override list of each run: the product of each grid line."""
    for line in _lines(study, typed):
        yield from (list(choice) for choice in itertools.product(*(_values(study, word) for word in line)))


def number_of_runs(study: Study, typed: Iterable[str] = ()) -> int:
    """How many runs, without building them."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import RangeSweep

    def values(word: str) -> int:
        swept = OverridesParser.create().parse_override(word).value() if "range(" in word else None
        if isinstance(swept, RangeSweep):
            assert swept.start is not None and swept.stop is not None
            return max(0, math.ceil((swept.stop - swept.start) / swept.step))
        return len(_values(study, word))

    return sum(math.prod(values(word) for word in line) for line in _lines(study, typed))


def _lines(study: Study, typed: Iterable[str]) -> Iterator[list[str]]:
    """The words of each grid line with the common settings before and the typed ones after, later ones winning.

    A line that chooses its own `data=` keeps it: a typed `data=`, and the `data.KEY=` that go with it, are for the others.
    """
    typed = list(typed)
    for line in study.runs:
        own = words_of_line(study, line)
        kept = (
            typed if not (_choose_data(own) and _choose_data(typed)) else [word for word in typed if not _of_data(word)]
        )
        words = [*words_of_line(study, study.common), *own, *kept]
        yield list({word.partition("=")[0]: word for word in words}.values())


def _choose_data(words: Iterable[str]) -> bool:
    return any(word.startswith("data=") for word in words)


def _of_data(word: str) -> bool:
    return word.startswith(("data=", "data."))


def _values(study: Study, word: str) -> list[str]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(word)
        if not override.is_sweep_override():
            return [word]
        return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    except HydraException as error:
        raise UserError(f"study={study.name}: {word}: {str(error).splitlines()[0]}") from None


class Planner:
    """Override lists -> settings. Hydra composes once for each choice of groups; other settings are set on that."""

    def __init__(self) -> None:
        self._chosen: dict[tuple[str, ...], Any] = {}  # by what was chosen of groups, never changed
        self._composed: dict[tuple[str, ...], Any] = {}  # a copy for runs that set the same keys

    def settings(self, overrides: Iterable[str]) -> dict[str, Any]:
        from omegaconf import OmegaConf

        from vitbench.settings.check import check

        groups: list[str] = []
        values: list[str] = []
        for word in overrides:
            (groups if word.partition("=")[0] in CONF_GROUPS else values).append(word)
        typed = [(override.key_or_group, override.value()) for override in map(parsed, values)]
        key = (*groups, *(name for name, _ in typed))  # runs that set the same keys leave nothing of each other
        if key not in self._composed:
            if (choice := tuple(groups)) not in self._chosen:
                self._chosen[choice] = compose(groups)
            self._composed[key] = self._chosen[choice].copy()
        config = self._composed[key]
        if any(isinstance(value, dict) for _, value in typed):  # but a mapping, which is merged
            config = config.copy()
        for name, value in typed:
            OmegaConf.update(config, name, value)
        return check(as_settings(config))


@dataclass(frozen=True)
class Planned:
    overrides: list[str]
    settings: dict[str, Any]
    id: str


def plan(study: Study, typed: Iterable[str] = (), confirm: bool = False) -> list[Planned]:
    """Every run of a study, in order, each id once."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from vitbench.settings.identity import run_id
    from vitbench.settings.overrides import explain

    typed = list(typed)
    runs = number_of_runs(study, typed)
    if runs == 0:
        words = dict.fromkeys(word for line in _lines(study, typed) for word in line if not _values(study, word))
        raise UserError(f"study={study.name} asks for no run; {' and '.join(words)}: an empty range")
    if runs > CONFIRMED_FROM and not confirm:
        raise UserError(f"study={study.name} asks for {runs:,} runs; add confirm=true if you mean it")
    planner, planned = Planner(), {}
    for overrides in expand(study, typed):
        try:
            settings = planner.settings(overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise explain(error, "train", overrides) from None
        one = Planned(overrides, settings, run_id(settings))
        planned[one.id] = one
    return list(planned.values())


def _plans(study: Study, runs: Path) -> Path:
    """Where sweeps of this study note their runs; another name when the grid is edited."""
    grid = hashlib.sha256(json.dumps([study.common, study.runs]).encode()).hexdigest()[:8]
    return runs / ".plans" / f"{study.name}-{grid}.json"


def remember(study: Study, planned: Iterable[Planned], runs: Path, typed: Iterable[str] = ()) -> None:
    """Notes in the folder of runs what a sweep asked for, beside what sweeps of this study asked for before.

    Words typed on a sweep's command line change ids (`data=imagefolder`), and `table study=` should still find the runs.
    """
    from filelock import FileLock

    path = _plans(study, runs)
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # another sweep of the study may note its own
            ids, commands = _noted(path)
            ids = list(dict.fromkeys([*ids, *(one.id for one in planned)]))
            if (words := shlex.join(typed)) not in commands:
                commands.append(words)
            write(path, json.dumps({"ids": ids, "typed": commands}).encode())


def planned_ids(study: Study, runs: Path) -> list[str]:
    """The runs that sweeps of this study in `runs` asked for; where there was none, those of its file."""
    return _noted(_plans(study, runs))[0] or [one.id for one in plan(study, confirm=True)]


def typed_words(study: Study, runs: Path) -> list[str]:
    """What was typed after `study=NAME` in each sweep of this study in `runs`."""
    return _noted(_plans(study, runs))[1]


def _noted(path: Path) -> tuple[list[str], list[str]]:
    try:
        noted = json.loads(path.read_bytes())
        return [str(name) for name in noted["ids"]], [str(words) for words in noted["typed"]]
    except (OSError, ValueError, TypeError, KeyError):
        return [], []
