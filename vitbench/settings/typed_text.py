"""Makes sure that Hydra takes text as it was typed, letter by letter.

A setting holds text where the schema says `str`. Hydra would read `2024_10` as a number, and `a=b` and `(` as its own
grammar; OmegaConf would read `${x}` as a reference. Where one command has several runs (`sweep`, `-m`, the lines of a
study), a comma separates values; otherwise it is an ordinary letter of paths and names. Quotes around the whole text
are taken off.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from typing import Any, get_type_hints

from vitbench.errors import UserError
from vitbench.settings.command_schemas import SCHEMAS
from vitbench.settings.schema import SCHEMA_OF_SOURCE

# settings that hold paths, in which ~ means a home folder
PATHS = frozenset(
    ("data.root", "data.cache", "data.labels", "runs", "apart", "results", "out", "file", "images", "weights", "timm")
) | {"study"}
# Settings that hold words about runs, names that people choose, or paths: their values cannot be listed, and a comma in
# them is an ordinary letter.
ABOUT_RUNS = frozenset(("init", "teacher", "against", "whole", "bare"))  # init='data.fraction=1'
FREE_TEXT = PATHS | ABOUT_RUNS | {"data.name", "title", "xlabel", "ylabel"}

QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_SWEEP = re.compile(r"(choice|range|glob|interval|sort|shuffle|tag)\(.*\)", re.DOTALL)
_PLAIN = re.compile(r"\.{0,2}[A-Za-z_/][\w./@%+|:-]*", re.ASCII)  # Hydra reads this as text without quotes
_READ_OTHERWISE = {"null", "true", "false", "nan", "inf"}


@cache
def text_settings() -> frozenset[str]:
    """Returns the settings that hold text in every command that has them, and `images`, as they are typed."""
    of_text = (str, str | None)
    # `images` is a number in `probe` and a folder in `predict`
    return frozenset({"images"}.union(key for key, kinds in _kinds_of_settings().items() if kinds <= {*of_text}))


@cache
def list_settings() -> frozenset[str]:
    """Returns the settings for which a command takes a list."""
    settings = _kinds_of_settings().items()
    return frozenset(key for key, kinds in settings if any(re.search("Any|list|tuple", str(kind)) for kind in kinds))


@cache
def _kinds_of_settings() -> dict[str, set[Any]]:
    """Returns the types that commands have for each setting."""
    parts = ("data", "folder", "shapes", "optim", "augment")
    commands = (_kinds(schema) for name, schema in SCHEMAS.items() if name not in parts)
    of_sources = (_kinds(schema, "data.") for schema in SCHEMA_OF_SOURCE.values())
    kinds: dict[str, set[Any]] = {}
    for key, kind in itertools.chain(*commands, *of_sources):
        kinds.setdefault(key, set()).add(kind)
    return kinds


def _kinds(schema: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, kind in get_type_hints(schema).items():
        if is_dataclass(kind):
            yield from _kinds(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def quoted_text(key: str, value: str, several: bool) -> str:
    """Returns the text that was typed for a setting in a form that Hydra reads as this text.

    `several` says whether commas separate the values of several runs.
    """
    if several and _SWEEP.fullmatch(value):
        return value
    separates = several if key in FREE_TEXT else True
    if key in ABOUT_RUNS and "=" in re.sub(QUOTED, "", value):
        separates = False  # it is one description of a run, whose quotes the shell has taken off
    if several and key in PATHS and os.path.lexists(os.path.expanduser(value)):
        separates = False  # a folder with a comma in its name exists, so the comma does not separate two folders
    return ",".join(_quoted(with_home(key, unquoted(text)), text) for text in (_parts(value) if separates else [value]))


def _parts(value: str) -> list[str]:
    """Splits a value at its commas; commas within quotes do not count."""
    part, parts, begin = re.compile(rf"(?:{QUOTED})(?=,|$)|[^,]*", re.DOTALL), [], 0
    while found := part.match(value, begin):
        parts.append(found[0])
        if found.end() == len(value):
            break
        begin = found.end() + 1
    return parts


def unquoted(typed: str) -> str:
    """Returns a text without the quotes around it."""
    if not re.fullmatch(QUOTED, typed, re.DOTALL):
        return typed
    text = str(parsed(f"x={typed}").value())
    return re.sub(r"(\\*)\\\$\{", lambda found: found[1][: len(found[1]) // 2] + "${", text)


def in_quotes(text: str) -> str:
    """Quotes a text so that Hydra and OmegaConf read it as the same text."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(unresolved(text), Quote.double if "'" in text else Quote.single).with_quotes()


def word_of(key: str, value: Any) -> str:
    """Writes a setting that Python code gives as a word of a command line, which is read as this value.

    Text is quoted, so that it stays text: a comma does not separate values, and "3", "null" and "[a]" do not become a
    number, null or a list. Raises UserError for a value that no command line can express.
    """
    return f"{key}={_written(key, value)}"


def _written(key: str, value: Any) -> str:
    if hasattr(value, "tolist"):  # a number or an array of NumPy, pandas or torch
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, str):
        return _as_text(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(_written(key, each) for each in value)}]"
    raise UserError(f"{key}={value!r}: must be text, a number, True, False, None, or a list of these")


def unresolved(value: Any) -> Any:
    """Returns a value, or a list or mapping of values, in which OmegaConf reads `${x}` as text, not as a reference."""
    if isinstance(value, list):
        return [unresolved(each) for each in value]
    if isinstance(value, dict):
        return {key: unresolved(each) for key, each in value.items()}
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def _quoted(text: str, typed: str) -> str:
    """Puts text into quotes if Hydra would read it as anything else. `null` without quotes stays null."""
    if typed.lower() == "null" or not text:
        return typed
    return _as_text(text)


def _as_text(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text.lower() not in _READ_OTHERWISE else in_quotes(text)


def with_home(key: str, text: str) -> str:
    """Returns what was typed for a setting. Raises UserError for a path with ~ whose home folder is not known."""
    if key in {*PATHS, "init", "models", "from"} and text.startswith("~") and os.path.expanduser(text) == text:
        home = text.partition("/")[0]
        why = "HOME is not set" if home == "~" else f"there is no user {home[1:]}"
        raise UserError(
            f"{key}={text}: no home folder is known for {home}, because {why}; type the whole path, or ./{text} for a "
            "folder of this name"
        )
    return os.path.expanduser(text) if key == "runs" else text  # with -m, Hydra makes the folder just as it gets it


def quoted_filter(value: str) -> str:
    """Returns what was typed for `where.KEY=`: numbers and lists as Hydra reads them, and everything else as text."""
    is_text = "," not in value and (not _is_read(value) or isinstance(parsed(f"x={value}").value(), str))
    return _quoted(unquoted(value), value) if is_text else quoted_value(value)


def quoted_value(value: str) -> str:
    """Returns what was typed for any other setting, in quotes where Hydra's grammar cannot read it.

    Each word of a list is quoted by itself: models=[timm:NAME@my weights (2).safetensors].
    """
    if re.fullmatch(r"[\w./+-]*", value, re.ASCII) or _is_read(value):
        return value
    if re.fullmatch(r"\[.*\]", value, re.DOTALL):
        words = ",".join(_quoted(unquoted(word), word) for word in value[1:-1].split(","))
        if _is_read(f"[{words}]"):
            return f"[{words}]"
    return in_quotes(unquoted(value))


def _is_read(value: str) -> bool:
    from hydra.errors import HydraException

    try:
        parsed(f"x={value}")
    except (HydraException, ValueError):
        return False
    return True


def number_of_values(word: str) -> int:
    """Counts the runs that a word of a sweep stands for, without listing the values of a range.

    Raises UserError for a range that does not end.
    """
    from hydra.core.override_parser.types import RangeSweep

    override = parsed(word)
    if not override.is_sweep_override():
        return 1
    if not isinstance(swept := override.value(), RangeSweep):
        return sum(1 for _ in override.sweep_string_iterator())
    assert swept.start is not None and swept.stop is not None
    try:
        return max(0, math.ceil((swept.stop - swept.start) / swept.step))
    except (ArithmeticError, ValueError, TypeError):  # infinity, nan or a step of 0
        raise UserError(f"{word}: must be a range that ends, such as range(5) or range(0,1,0.1)") from None


@cache  # a grid has few words, and each is in many runs
def parsed(word: str) -> Any:
    """Reads a word with Hydra's own parser."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(word)
