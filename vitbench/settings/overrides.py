"""Turns the words of a command line into what Hydra wants, and Hydra's errors into lines that name what was typed."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.errors import UserError, did_you_mean
from vitbench.menu import tunables
from vitbench.settings.choices import CONF_GROUPS, MENU_GROUPS, menu_of, settings_key, typed_key
from vitbench.settings.compose import CONF_DIR, check_name_of_choice, flatten
from vitbench.settings.config_folder import check_config_folder
from vitbench.settings.schema import SCHEMA_OF_SOURCE
from vitbench.settings.typed_text import (
    QUOTED,
    list_settings,
    number_of_values,
    quoted_filter,
    quoted_text,
    quoted_value,
    text_settings,
    unquoted,
)

if TYPE_CHECKING:
    from hydra.errors import MissingConfigException

_ASKING = ("--help", "-h", "--hydra-help", "--version", "--resolve", "--shell-completion", "-sc")
FLAGS = (*_ASKING, "--run", "-r", "--multirun", "-m")
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
VALUE_FLAGS: dict[str, tuple[str, ...]] = {  # the flags that take a value, with the values; an empty tuple takes any
    "--cfg": ("job", "hydra", "all"),
    "-c": ("job", "hydra", "all"),
    "--info": _INFO,
    "-i": _INFO,
    "--package": (),
    "-p": (),
    "--config-dir": (),
    "-cd": (),
    "--config-name": (),
    "-cn": (),
}
MOST_RUNS = 1_000_000  # one command can have so many runs, because Hydra makes a list of all
LONGEST_NUMBER = 300  # digits; a longer number cannot become a float
# By command: what people type, and the name of the setting, which cannot have that word in Hydra or Python.
TYPED_FOR = {
    "probe": {"model": "outside", "model.arch": "arch", "init": "weights"},
    "merge": {"from": "archives"},
    "report": {"from": "archives"},
}
INSTEAD_OF_EACH_OTHER = (("optim.steps", "optim.epochs"), ("optim.warmup", "optim.warmup_steps"))


def words_of(line: str) -> list[str]:
    """Splits a line into words, each with its quotes. Raises UserError for a quote that is not closed."""
    word = rf"""(?:[^\s'"]|{QUOTED})+"""
    if re.sub(word, "", line).strip():
        raise UserError(f"`{line}`: a quote is not closed")
    return re.findall(word, line)


def prepare(argv: Iterable[str], several: bool = False) -> list[str]:
    """Returns the flags and then the settings, because Hydra refuses `a=1 -m b=2`.

    `several` says whether the command has several runs without -m. Raises UserError for an unknown flag, and for a
    setting that is typed twice, added or removed.
    """
    flags: list[str] = []
    settings: list[str] = []
    words = iter(argv)
    for word in words:
        if word.startswith("-"):
            flags += _flag(word, words)
        else:
            settings.append(word)
    several |= bool({"-m", "--multirun"} & {*flags})
    settings = [setting(word, several) for word in settings]
    if several and (runs := math.prod(map(_number_of_values, settings))) > MOST_RUNS:
        swept = " ".join(word for word in settings if number_of_values(word) > 1)
        raise UserError(f"{swept}: {runs:,} runs are too many; a command can have {MOST_RUNS:,}")
    seen: dict[str, str] = {}
    for word in settings:
        key = word.split("=")[0].lstrip("+")
        if key in seen:
            raise UserError(as_typed(f"{key} is given twice: {shown(seen[key])} and {shown(word)}; keep one"))
        seen[key] = word
    for pair in INSTEAD_OF_EACH_OTHER:
        both = [word for key, word in seen.items() if key in pair and not word.endswith("=null")]
        if len(both) == 2:
            raise UserError(f"{' and '.join(both)}: give one of them")
    return flags + settings


def _number_of_values(word: str) -> int:
    from hydra.errors import HydraException

    try:
        return number_of_values(word)
    except HydraException as error:
        raise UserError(f"{_shown(word)}: {_first_line(error)}") from None


def _flag(word: str, following: Iterator[str]) -> list[str]:
    """Returns a flag and, if it takes a value, its value, which may be the following word."""
    if word.startswith("--experimental"):
        raise UserError(f"{word} is refused: it executes what a file says; repeat the command instead")
    flag, equals, value = word.partition("=")
    if flag not in {*FLAGS, *VALUE_FLAGS}:
        raise UserError(f"{word}: {did_you_mean(flag, [*FLAGS, *VALUE_FLAGS])}")
    if flag not in VALUE_FLAGS:
        return [flag]
    given = value if equals else next(following, "")
    allowed = VALUE_FLAGS[flag]
    if not given or (allowed and given not in allowed):
        raise UserError(f"{flag} {given}: " + (did_you_mean(given, allowed) if allowed else "needs a value"))
    if flag in ("--config-dir", "-cd"):
        check_config_folder(Path(given))
    if flag in ("--config-name", "-cn") and not re.fullmatch(r"[\w-]+", given):
        raise UserError(f"{flag} {given}: must be the name of a file in --config-dir, without its folder and ending")
    return [flag, given]


def setting(word: str, several: bool = False) -> str:
    """Returns a setting as Hydra wants it. Raises UserError for what Hydra would silently misunderstand.

    `several` says whether a comma separates the values of several runs.
    """
    if re.search(r"[\x00-\x1f\x7f]", word):
        raise UserError(f"{word!r}: a setting can have no line breaks and no other control characters")
    key, equals, value = word.partition("=")
    if not equals and not word.startswith("~"):
        example = f"data.root={word}" if os.path.isdir(word) else "seed=1"
        raise UserError(f"{word}: settings are typed key=value, for example {example}")
    if key.startswith("where."):  # a filter can name any column, so the schema cannot list filters
        if not re.fullmatch(r"where(\.[\w/@-]+)+", key, re.ASCII):
            raise UserError(f"{word}: a filter is typed where.KEY=VALUE, for example where.model=vit")
        if key.removeprefix("where.") in CONF_GROUPS:
            key += ".name"  # so that where.data=x and where.data.fraction=1 can be typed together
        return f"+{key}={quoted_filter(value)}"
    if word == "pe=null":
        raise UserError("pe=null: type pe=none for a ViT without a position encoding")
    if key in CONF_GROUPS and value in ("", "null"):
        raise UserError(f"{word}: a choice cannot be empty; `vitbench ls` lists what there is")
    check_name_of_choice(key, value)
    if group := next((name for name, its in MENU_GROUPS.items() if its.name_key in (key, settings_key(key))), None):
        raise UserError(f"{word}: type {group}={value}")
    if key == "size":
        return f"model.{word}"
    bare = key.lstrip("+~")
    if re.fullmatch(r"hydra([./@].*)?", bare):
        return word
    if bare != key:
        instead = f"type {bare}={value}" if equals else f"drop it, and {bare} has its usual value"
        raise UserError(f"{word}: settings cannot be added or removed; {instead}")
    if not re.fullmatch(r"[A-Za-z_][\w.]*", key, re.ASCII):
        raise UserError(f"{word}: settings are typed key=value, for example seed=1; {key or 'nothing'} is no key")
    if key in text_settings():
        return f"{key}={quoted_text(key, value, several)}"
    if digits := re.search(rf"\d{{{LONGEST_NUMBER},}}", value):
        raise UserError(f"{key}={digits[0][:8]}...: must be a number of fewer than {LONGEST_NUMBER} digits")
    return settings_key(f"{key}={quoted_value(value)}")


def shown(word: str) -> str:
    """Returns a setting without the quotes that were put around its text for Hydra."""
    key, equals, value = word.partition("=")
    return f"{key}{equals}{unquoted(value)}"


def as_typed(line: str) -> str:
    """Replaces the keys that Hydra knows in a line by the keys that people type."""
    return re.sub(r"(?<![\w.])archives=", "from=", re.sub(r"(?<![\w.])outside=", "model=", typed_key(line)))


def _owners(key: str) -> str:
    """Names the choices that have a setting: `model=resnet` for model.sharing. "" where there is none."""
    group, _, option = settings_key(key).rpartition(".")
    group = group.rpartition(".")[2]
    if group == "data":
        has = {name: option in {field.name for field in fields(schema)} for name, schema in SCHEMA_OF_SOURCE.items()}
    elif group in MENU_GROUPS:
        has = {name: option in tunables(choice.target) for name, choice in menu_of(group).items()}
    else:
        return ""
    return ", ".join(f"{group}={name}" for name in has if has[name])


def explain(error: Exception, command: str, arguments: Iterable[str]) -> UserError:
    """Says in one line what Hydra or OmegaConf refused."""
    return UserError(as_typed(_explained(error, command, arguments)))


def _explained(error: Exception, command: str, arguments: Iterable[str]) -> str:
    import yaml
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, yaml.YAMLError | UnicodeDecodeError):
        return f"a configuration file is not valid YAML: {' '.join(str(error).split())}"
    typed = [word for word in arguments if not word.startswith("-")]
    if isinstance(error, OverrideParseException):
        return f"{(error.override or '').removeprefix('+')}: {_first_line(error)}"
    if isinstance(error, MissingConfigException) and (options := _options_beside(error)):
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        if group == "hydra/launcher" and option in ("submitit_slurm", "submitit_local"):
            return f"{group}={option} comes with an extra: pip install 'vitbench[slurm]'"
        return f"{group}={option}: {did_you_mean(option, [name for name in options if name not in _BROUGHT])}"
    cause: Any = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        key = str(cause.full_key or cause.key or "")
        keys = {w: w.lstrip("+").split("=")[0] for w in typed}
        word = next((w for w in typed if keys[w] == key or keys[w].startswith(f"{key}.")), None)
        if isinstance(cause, AttributeError | KeyError) and cause.parent_node is not None and word is not None:
            hint = f"it is a setting of {owners}" if (owners := _owners(keys[word])) else _nearest(keys[word], cause)
            return f"{_shown(word)}: no such setting of `vitbench {command}`; {hint}"
        if "'model.arch' not found" in str(cause):
            return "optim=family: goes with model=timm or model=torchvision; type optim=vit or optim=resnet"
        return f"{_shown(word or key)}: {_plainly(_first_line(cause))}"
    message = _first_line(error)
    missing = re.match(r"Could not override '([^']*)'", message)
    if missing:
        word = _shown(next((w for w in typed if w.split("=")[0] == missing[1]), missing[1]))
        return f"{word}: no such choice or setting of `vitbench {command}`; {did_you_mean(missing[1], CONF_GROUPS)}"
    if message.startswith("Ambiguous value for argument"):
        word = next((w for w in typed if f"'{w}'" in message), "")
        if word.startswith("outside="):
            return f"{word}: has several values; model= takes one network"
        ways = ["-m runs them all"] if command == "train" else []
        key = word.lstrip("+").partition("=")[0]
        if key in list_settings() or key.startswith(("where.", "model.", "probe")):
            ways.append(f"a list is typed {_shown(word).replace('=', '=[', 1)}]")
        return f"{_shown(word)}: several values; {', '.join(ways) or 'it takes one'}"
    return message


_BROUGHT = ("schema", "family")  # files in groups of conf/ that nobody types, because other choices bring them


def _options_beside(error: MissingConfigException) -> Sequence[str]:
    """The choices that a missing one could have been. Hydra names none where the missing one stands in a list."""
    folder = CONF_DIR / (error.missing_cfg_file or "").rpartition("/")[0]
    return error.options or [path.stem for path in folder.glob("*.yaml") if folder != CONF_DIR]


def _shown(word: str) -> str:
    return shown(word).removeprefix("+")


def _nearest(typed: str, cause: Any) -> str:
    """Writes the end of an error line: those settings of the command that are most like the unknown key."""
    from omegaconf import OmegaConf

    root: Any = OmegaConf.to_container(cause.parent_node._get_root(), resolve=False)
    nodes = {str(key): value for key, value in root.items() if key != "hydra"}
    refused = {group.name_key for group in MENU_GROUPS.values()} | {"model.pe", "outside", *CONF_GROUPS}
    choices = [group for group in CONF_GROUPS if group in nodes] + ["pe"] * isinstance(nodes.get("model"), dict)
    keys = ["from" if key == "archives" else typed_key(key) for key in flatten(nodes) if key not in refused]
    keys += choices + ["model"] * ("outside" in nodes)
    last = typed.rpartition(".")[2]
    if same := [key for key in keys if key.rpartition(".")[2] == last]:
        return f"did you mean {' or '.join(same[:3])}?"
    as_deep = [key for key in keys if ("." in key) == ("." in typed)]
    if near := get_close_matches(typed_key(typed), as_deep, 2) or get_close_matches(typed_key(typed), keys, 2):
        return f"did you mean {' or '.join(near)}?"
    siblings = [key for key in keys if key.rpartition(".")[0] == typed_key(typed).rpartition(".")[0]]
    return did_you_mean(typed, siblings or keys)


def _plainly(line: str) -> str:
    """Says what OmegaConf says about a value of the wrong type, in our words."""
    kinds = {"Float": "a number", "Integer": "a whole number", "Boolean": "true or false", "bool": "true or false"}
    refused = re.match(r"Value .* (?:could not be converted to|is not a valid) (\w+)", line)
    return f"must be {kinds[refused[1]]}" if refused and refused[1] in kinds else line


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


PRETRAINED = "pretrained"  # init=pretrained means the weights that timm or torchvision has for a network
_WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")  # timm's training script writes .pth.tar


def is_file_of_weights(value: str) -> bool:
    """Whether what was typed for init ends like a file of weights."""
    return value.endswith(_WEIGHTS) and "=" not in value


def is_words(value: str) -> bool:
    """Whether a value describes a run instead of naming one."""
    return "=" in value
