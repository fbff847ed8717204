"""A study file -> the runs it asks for. The file is data: it chooses among what exists and holds no code."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from vitbench.config import CONF_DIR, STUDY_DIR, compose, plain
from vitbench.disk import storage, write
from vitbench.errors import UserError, did_you_mean
from vitbench.overrides import setting, words_of

LARGE = 10_000  # runs that need confirm=true


@dataclass(frozen=True)
class Study:
    name: str
    title: str
    question: str
    runs: tuple[str, ...]  # lines of overrides in the command line's own syntax
    common: str = ""  # `with:` in the file
    expect: str = ""
    notes: str = ""  # what the study cannot show
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    names: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict
    )  # what values of settings are called in tables and figures
    probes: tuple[str, ...] = ()  # what `vitbench probe study=` measures, lines in the command line's own syntax

    def probe_words(self, keys: Iterable[str]) -> list[list[str]]:
        """The words of each line of `probes:`; one empty line where there is none. `keys` are allowed, and what is in them."""
        lines = [_words(self, line) for line in self.probes]
        for word in itertools.chain(*lines):
            if (key := word.lstrip("+").partition("=")[0]).partition(".")[0] not in keys:
                raise UserError(f"study={self.name}: probes: {key}: {did_you_mean(key, keys)}")
        return lines or [[]]

    @property
    def caveat(self) -> str:
        """The first sentence of the notes, for the foot of a figure."""
        return self.notes.split(". ")[0].rstrip(".") + "." if self.notes else ""


FIELDS = {"title": str, "question": str, "expect": str, "notes": str, "with": str, "runs": list, "tables": dict,
          "figures": dict, "names": dict, "probes": list}  # fmt: skip
RESERVED = {"runs", "probes", "fit"}  # NAME.csv beside the tables in results/
# what the keys of a table or a figure hold; which keys there are is for those who draw it
LAYOUT: dict[str, Any] = {"rows": str | list, "columns": str, "value": str | list, "show": str, "against": str, "x": str,
                          "y": str | list, "lines": str | list, "log": str, "fit": bool, "at": int | float, "layer": str,
                          "where": dict}  # fmt: skip


def names() -> list[str]:
    return sorted(path.stem for path in STUDY_DIR.glob("*.yaml"))


def find(name: str) -> Path:
    """The file of a study: a name in experiments/, or the path of a yaml file of one's own."""
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else STUDY_DIR / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"study={name}: {did_you_mean(name, names())}, or the path of a .yaml file")
    return path


def load(name: str) -> Study:
    path = find(name)
    content = read_yaml(path)
    for key, value in content.items():
        if key not in FIELDS:
            raise UserError(f"{path}: {key}: {did_you_mean(str(key), FIELDS)}")
        if not isinstance(value, FIELDS[key]):
            raise UserError(f"{path}: {key} must be a {FIELDS[key].__name__}")
    _check_layouts(path, content)
    lines = content.get("runs") or []
    if not lines or not all(isinstance(line, str) for line in lines):
        raise UserError(f"{path}: runs must list lines such as `model=vit pe=none,rope seed=range(3)`")
    return Study(
        path.stem, content.get("title", path.stem), content.get("question", ""), tuple(lines), content.get("with", ""),
        content.get("expect", ""), content.get("notes", ""), content.get("tables", {}), content.get("figures", {}),
        content.get("names", {}), tuple(str(line) for line in content.get("probes", [])),
    )  # fmt: skip


def _check_layouts(path: Path, content: Mapping[str, Any]) -> None:
    """Tables, figures and names: what is no name of a file, or of another type than its key has, is one line."""
    for kind in ("tables", "figures"):
        for name, layout in content.get(kind, {}).items():
            if not re.fullmatch(r"[\w-]+", str(name)) or not isinstance(name, str):
                raise UserError(f"{path}: {kind}.{name}: becomes a file; letters, digits, _ and - make a name")
            if not isinstance(layout, dict):
                raise UserError(f"{path}: {kind}.{name} must hold settings, such as value: test_accuracy")
            for key, value in layout.items():
                if key in LAYOUT and not isinstance(value, LAYOUT[key]):
                    raise UserError(f"{path}: {kind}.{name}.{key}: {value}: must be {_kinds(LAYOUT[key])}")
    for name in RESERVED & {*content.get("tables", {})}:
        raise UserError(f"{path}: tables.{name}: is the name of a file that every report writes; call it otherwise")
    for key, its in content.get("names", {}).items():
        if not isinstance(its, dict) or not all(isinstance(word, str) for word in [*its, *its.values()]):
            raise UserError(f"{path}: names.{key} must map values of {key}, as they are typed, to words")
        for value in its:
            if not _is_word(value):
                raise UserError(f"{path}: names.{key}: {value}: only words can have another name")
        if len({*its.values()}) < len(its):
            raise UserError(f"{path}: names.{key}: two values have one name, and would look like one")


def _is_word(typed: str) -> bool:
    """Whether what is typed stands for itself, and not for null, a number, true, false or a list."""
    try:
        json.loads(typed)
    except ValueError:
        return True
    return False


def _kinds(kinds: Any) -> str:
    words = {str: "a word", list: "a list", dict: "settings (KEY: VALUE)", bool: "true or false", int: "a number"}
    return " or ".join(words[kind] for kind in getattr(kinds, "__args__", (kinds,)) if kind in words)


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a yaml file made by anyone: no aliases, no tags, no key twice, at most 1 MB."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases (*name) are not read")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            if len(set(keys)) < len(keys):
                raise yaml.YAMLError(f"{Counter(keys).most_common(1)[0][0]} is given twice")
            return super().construct_mapping(node, deep)

    try:
        blob = path.read_bytes()
        if len(blob) > 1_000_000:
            raise UserError(f"{path} has {len(blob):,} bytes; a configuration has at most 1,000,000")
        content = yaml.load(blob.decode("utf-8-sig"), Loader)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} must hold settings (key: value), not {type(content).__name__}")
    return content


# ------------------------------------------------------------------------------------------------------- expanding


def expand(study: Study, typed: Iterable[str] = ()) -> Iterator[list[str]]:
    """The override list of each run: the product of each grid line."""
    for line in _lines(study, typed):
        yield from (list(choice) for choice in itertools.product(*(_values(study, word) for word in line)))


def count(study: Study, typed: Iterable[str] = ()) -> int:
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
        own = _words(study, line)
        kept = (
            typed if not (_choose_data(own) and _choose_data(typed)) else [word for word in typed if not _of_data(word)]
        )
        words = [*_words(study, study.common), *own, *kept]
        yield list({word.partition("=")[0]: word for word in words}.values())


def _choose_data(words: Iterable[str]) -> bool:
    return any(word.startswith("data=") for word in words)


def _of_data(word: str) -> bool:
    return word.startswith(("data=", "data."))


def _words(study: Study, line: str) -> list[str]:
    try:
        words = words_of(line)
    except UserError as error:
        raise UserError(f"study={study.name}: {error}") from None
    for word in words:
        key = word.partition("=")[0]
        if "=" not in word or not key or key[0] in "+~-" or key == "hydra" or key.startswith(("hydra.", "hydra/")):
            raise UserError(f"study={study.name}: {word} is no setting of a run; settings are key=value")
    return [setting(word) for word in words]


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


@cache
def parsed(word: str) -> Any:
    """A grid has few words, each in many runs."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(word)


class Planner:
    """Override lists -> settings. Hydra composes once for each choice of groups; other settings are set on that."""

    def __init__(self) -> None:
        self._chosen: dict[tuple[str, ...], Any] = {}  # by what was chosen of groups, never changed
        self._composed: dict[tuple[str, ...], Any] = {}  # a copy for runs that set the same keys

    def settings(self, overrides: Iterable[str]) -> dict[str, Any]:
        from omegaconf import OmegaConf

        from vitbench.check import check

        groups: list[str] = []
        values: list[str] = []
        for word in overrides:
            (groups if (CONF_DIR / word.partition("=")[0]).is_dir() else values).append(word)
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
        return check(plain(config))


@dataclass(frozen=True)
class Planned:
    overrides: list[str]
    settings: dict[str, Any]
    id: str


def plan(study: Study, typed: Iterable[str] = (), confirm: bool = False) -> list[Planned]:
    """Every run of a study, in order, each id once."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from vitbench.identity import run_id
    from vitbench.overrides import explain

    typed = list(typed)
    runs = count(study, typed)
    if runs == 0:
        words = dict.fromkeys(word for line in _lines(study, typed) for word in line if not _values(study, word))
        raise UserError(f"study={study.name} asks for no run; {' and '.join(words)}: an empty range")
    if runs > LARGE and not confirm:
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
