"""Plans the runs of a study: expands its grid lines, composes each run's settings, and notes what sweeps asked for."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.errors import UserError, did_you_mean
from vitbench.machine.disk import read_json, storage, write
from vitbench.machine.locks import lock_errors
from vitbench.machine.redact import redacted
from vitbench.machine.seal import SEAL, is_whole, sealed
from vitbench.menu import check_ranges
from vitbench.numbers.words import RenamedValue, typed_value
from vitbench.runs.fields import fault_of
from vitbench.runs.records import settings_columns
from vitbench.runs.study import Study, words_of_line
from vitbench.settings.check import RANGES, check
from vitbench.settings.choices import CONF_GROUPS, column_of, settings_key
from vitbench.settings.compose import as_settings, completed, compose
from vitbench.settings.filters import filters, matches
from vitbench.settings.identity import run_id
from vitbench.settings.overrides import MOST_RUNS
from vitbench.settings.typed_text import number_of_values, parsed

CONFIRMED_FROM = 10_000  # a study of more runs needs confirm=true


def expand(study: Study, typed: Iterable[str] = ()) -> Iterator[list[str]]:
    """Yields the overrides of each run: every combination of the values of each grid line."""
    for line in _lines(study, typed):
        yield from (list(words) for words in itertools.product(*(_values(study, word) for word in line)))


def number_of_runs(study: Study, typed: Iterable[str] = ()) -> int:
    """Counts the runs that `expand` would give, without expanding long ranges."""
    return sum(math.prod(_number_of_values(study, word) for word in line) for line in _lines(study, typed))


def _number_of_values(study: Study, word: str) -> int:
    from hydra.errors import HydraException

    try:
        return number_of_values(word)
    except HydraException as error:
        raise UserError(f"study={study.name}: {word}: {str(error).splitlines()[0]}") from None


def _lines(study: Study, typed: Iterable[str]) -> Iterator[list[str]]:
    """Yields the words of each grid line. A typed word overrides the line's, and that overrides the study's `with:`.

    A line that chooses its own `data=` keeps it. A typed `data=`, and every `data.KEY=` typed with it, then apply only
    to the other lines.
    """
    typed = list(typed)
    for line in study.runs:
        line_words = words_of_line(study, line)
        keeps_data = _choose_data(line_words) and _choose_data(typed)
        applied = [word for word in typed if not (keeps_data and _of_data(word))]
        words = [*words_of_line(study, study.common), *line_words, *applied]
        yield list({word.partition("=")[0]: word for word in words}.values())


def _choose_data(words: Iterable[str]) -> bool:
    return any(word.startswith("data=") for word in words)


def _of_data(word: str) -> bool:
    return word.startswith(("data=", "data."))


def _values(study: Study, word: str) -> list[str]:
    """Splits a word with several values: seed=0,1 -> seed=0 and seed=1."""
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
    """Makes settings from lists of overrides. Hydra composes each choice of groups once; other keys are set on copies.

    What a word sets, given a choice of groups, is also found only once, because Hydra and OmegaConf take milliseconds
    for it. Where a setting can follow from another setting or from several words, OmegaConf sets each run anew.
    """

    def __init__(self) -> None:
        self._composed: dict[tuple[str, ...], Any] = {}  # by the choice of groups; never changed
        self._plain: dict[tuple[str, ...], str | None] = {}  # the same as JSON; None where a setting is a reference
        self._set: dict[tuple[tuple[str, ...], str], Any] = {}  # values, by the choice of groups and the word
        self._but_for_seed: dict[tuple[str, ...], dict[str, Any]] = {}  # checked settings, by all words except the seed

    def settings(self, overrides: Iterable[str]) -> dict[str, Any]:
        """Returns checked settings. Runs that differ only in their seeds share them, except for the seed."""
        words = [*overrides]
        seeds = [word for word in words if word.startswith("seed=")]
        seed = parsed(seeds[0]).value() if len(seeds) == 1 else None
        if type(seed) is not int or any("${" in word for word in words):
            return self._checked(words)
        others = tuple(word for word in words if word != seeds[0])
        if others not in self._but_for_seed:
            self._but_for_seed[others] = self._checked(words)
        check_ranges({"seed": seed}, {"seed": RANGES["seed"]})
        return {**self._but_for_seed[others], "seed": seed}

    def _checked(self, overrides: Iterable[str]) -> dict[str, Any]:
        groups: list[str] = []
        others: list[str] = []
        for word in overrides:
            (groups if word.partition("=")[0] in CONF_GROUPS else others).append(word)
        choice = tuple(groups)
        if choice not in self._composed:
            self._composed[choice] = compose(groups)
            self._plain[choice] = _without_references(self._composed[choice])
        content = self._content(choice, others)
        return check(as_settings(self._with(choice, others)) if content is None else completed(content))

    def _content(self, choice: tuple[str, ...], words: Sequence[str]) -> dict[str, Any] | None:
        """Returns a choice of groups with other words as nested dicts; None where only OmegaConf can combine them."""
        plain = self._plain[choice]
        keys = [parsed(word).key_or_group for word in words]
        if plain is None or not all(map(_sets_one_value, words)) or _meet(keys):
            return None
        content: dict[str, Any] = json.loads(plain)
        for key, word in zip(keys, words, strict=True):
            if (choice, word) not in self._set:
                self._set[choice, word] = _plain_value(self._with(choice, [word]), key)
            *path, last = key.split(".")
            place: Any = content
            for part in path:
                place = place.get(part)
                if not isinstance(place, dict):
                    return None
            place[last] = self._set[choice, word]
        return content

    def _with(self, choice: tuple[str, ...], words: Iterable[str]) -> Any:
        """Returns a copy of the configuration of a choice of groups, with other words set."""
        from omegaconf import OmegaConf

        config = self._composed[choice].copy()
        for override in map(parsed, words):
            OmegaConf.update(config, override.key_or_group, override.value())
        return config


def _without_references(config: Any) -> str | None:
    """Returns a configuration as JSON; None where one of its settings refers to another one or is missing."""
    from omegaconf import OmegaConf

    text = json.dumps(OmegaConf.to_container(config))
    return None if "${" in text or "???" in text else text


@cache
def _sets_one_value(word: str) -> bool:
    """Whether a word sets only its own key, to a value that refers to no other setting."""
    value = parsed(word).value()
    return not isinstance(value, dict) and "${" not in word


def _meet(keys: Iterable[str]) -> bool:
    """Whether a key lies within another one, or is given twice."""
    ordered = sorted(f"{key}." for key in keys)
    return any(after.startswith(before) for before, after in itertools.pairwise(ordered))


def _plain_value(config: Any, key: str) -> Any:
    """Returns a setting of a configuration as JSON would hold it."""
    from omegaconf import OmegaConf

    value = OmegaConf.select(config, key)
    return json.loads(json.dumps(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value))


@dataclass(frozen=True)
class Planned:
    """A run that a study asks for."""

    overrides: list[str]
    settings: dict[str, Any]
    id: str
    certifies: str | None = None  # id of the run of which this run is a certificate: the same with more samples


def plan(study: Study, typed: Iterable[str] = (), confirm: bool = False) -> list[Planned]:
    """Returns every run that the study asks for, in its order and each id once, and then their certificates.

    Raises UserError where there is no run, or one with wrong settings.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from vitbench.settings.overrides import explain

    typed = list(typed)
    runs = number_of_runs(study, typed)
    if runs == 0:
        words = dict.fromkeys(word for line in _lines(study, typed) for word in line if not _values(study, word))
        raise UserError(f"study={study.name} asks for no run, because {' and '.join(words)} has no value")
    if runs > MOST_RUNS:
        raise UserError(f"study={study.name} asks for {runs:,} runs; a study can have at most {MOST_RUNS:,}")
    if runs > CONFIRMED_FROM and not confirm:
        raise UserError(f"study={study.name} asks for {runs:,} runs; add confirm=true if you mean it")
    planner, planned = Planner(), {}
    for overrides in expand(study, typed):
        try:
            settings = planner.settings(overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise explain(error, "train", overrides) from None
        run = Planned(overrides, settings, run_id(settings))
        planned[run.id] = run
    certificates = list(_certificates(study, list(planned.values()), planner))
    narrowed = {column_of(settings_key(word.partition("=")[0])) for word in typed}
    if study.certify and not certificates and not narrowed & {*filters(study.certify["where"])}:
        raise UserError(f"study={study.name}: certify.where: matches none of {len(planned):,} runs")
    for run in certificates:
        planned.setdefault(run.id, run)
    return list(planned.values())


def _certificates(study: Study, planned: Iterable[Planned], planner: Planner) -> Iterator[Planned]:
    """Yields the runs that `certify:` asks for: those that its `where` matches, with `factor` times the samples."""
    wanted = filters(study.certify.get("where", {}))
    columns = {run.id: _renamed(study, settings_columns(run.settings)) for run in planned} if wanted else {}
    known = {key for its in columns.values() for key in its}
    for key in wanted:
        if key not in known:
            raise UserError(f"study={study.name}: certify.where.{key}: {did_you_mean(key, sorted(known))}")
    for run in planned:
        if wanted and all(matches(columns[run.id].get(key), value) for key, value in wanted.items()):
            longer = _longer(run.settings["optim"], study.certify.get("factor", 2))
            kept = [word for word in run.overrides if word.partition("=")[0] not in longer]
            overrides = [*kept, *(f"{key}={typed_value(value)}" for key, value in longer.items())]
            settings = planner.settings(overrides)
            if run_id(settings) == run.id:
                raise UserError(f"study={study.name}: certify.factor: too small to add a step to {run.id}")
            yield Planned(overrides, settings, run_id(settings), run.id)


def _longer(optim: Mapping[str, Any], factor: float) -> dict[str, float]:
    """Returns the settings of a training budget with `factor` times the samples."""
    if optim["epochs"] is None:
        return {"optim.steps": round(factor * optim["steps"])}
    least = {} if optim["min_steps"] is None else {"optim.min_steps": round(factor * optim["min_steps"])}
    return {"optim.epochs": factor * optim["epochs"], **least}


def _renamed(study: Study, columns: dict[str, Any]) -> dict[str, Any]:
    """Adds to the columns the words that the study has for their values, because `where` may use these words."""
    words = {key: words_of[columns[key]] for key, words_of in study.names.items() if columns.get(key) in words_of}
    return columns | {key: RenamedValue(columns[key], word) for key, word in words.items()}


def notes_path(study: Study, runs: Path) -> Path:
    """Returns the file in which sweeps of this study note their runs. Its name changes when the grid is edited."""
    grid = hashlib.sha256(json.dumps([study.common, study.runs]).encode()).hexdigest()[:8]
    return runs / ".plans" / f"{study.name}-{grid}.json"


def remember(
    study: Study, planned: Iterable[Planned], runs: Path, typed: Iterable[str] = (), evidence: Iterable[str] = ()
) -> None:
    """Adds what a sweep asked for to the notes of earlier sweeps of this study, in the folder `runs`.

    Words on a sweep's command line change ids (`data=imagefolder`). With these notes, `table study=` still finds the
    runs. `evidence` has the ids of the runs that the sweep took as done because their rows are in results/.
    """
    new = Noted(
        ids=[run.id for run in planned if run.certifies is None],
        typed=[redacted(shlex.join(typed))],
        evidence=[*evidence],
        certificates={run.id: run.certifies for run in planned if run.certifies},
    )
    add_notes(notes_path(study, runs), new)


def add_notes(path: Path, new: Noted) -> None:
    """Adds notes to those of earlier sweeps in a file."""
    from filelock import FileLock

    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock")
        with lock_errors(lock), FileLock(lock):  # another sweep of the study may be adding notes, too
            before = read_notes(path)
            after = Noted(
                ids=_united(before.ids, new.ids),
                typed=_united(before.typed, new.typed),
                evidence=_united(before.evidence, new.evidence),
                certificates=before.certificates | new.certificates,
            )
            write(path, json.dumps(sealed(after._asdict())).encode())


def _united(before: Iterable[str], new: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*before, *new]))


def planned_ids(study: Study, runs: Path) -> list[str]:
    """Returns the ids of the runs that sweeps of this study asked for, or those in its file where there was none."""
    return planned_ids_and_certificates(study, runs)[0]


def planned_ids_and_certificates(study: Study, runs: Path) -> tuple[list[str], dict[str, str]]:
    """Returns the planned ids, and for each certificate among them the id of the run that it certifies."""
    noted = noted_by_sweeps(study, runs)
    if noted.ids or noted.certificates:  # a certificate that another sweep planned as an ordinary run counts as a run
        asked = {*noted.ids}
        certificates = {run_id: its for run_id, its in noted.certificates.items() if run_id not in asked}
        return _united(noted.ids, noted.certificates), certificates
    planned = plan(study, confirm=True)
    return [run.id for run in planned], {run.id: run.certifies for run in planned if run.certifies}


def typed_words(study: Study, runs: Path) -> list[str]:
    """Returns what was typed after `study=NAME` in each sweep of this study in `runs`."""
    return noted_by_sweeps(study, runs).typed


def ids_in_evidence(study: Study, runs: Path) -> list[str]:
    """Returns the ids of the runs that sweeps of this study left out, because their rows are in results/."""
    return noted_by_sweeps(study, runs).evidence


class Noted(NamedTuple):
    """What sweeps of a study noted."""

    ids: list[str]
    typed: list[str]  # what was typed after `study=NAME`, a line for each sweep
    evidence: list[str]  # ids of runs whose rows are in results/
    certificates: dict[str, str]  # by the id of a certificate, the id of the run that it certifies


def noted_by_sweeps(study: Study, runs: Path) -> Noted:
    """Returns what the sweeps of this study in `runs` noted; empty notes where there was none."""
    return read_notes(notes_path(study, runs))


def read_notes(path: Path) -> Noted:
    """Reads what sweeps noted; empty notes where the file is missing or damaged. Old notes have no checksum."""
    try:
        noted = read_json(path)
    except (OSError, ValueError):
        return Noted([], [], [], {})
    fields = {"evidence": [], "certificates": {}, **noted}
    if (SEAL in noted and not is_whole(noted)) or fault_of(Noted, fields):
        return Noted([], [], [], {})
    return Noted(**{key: fields[key] for key in Noted._fields})
