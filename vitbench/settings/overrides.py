"""Words of a command line become what Hydra wants, and what Hydra refuses one line that names what was typed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from vitbench.errors import UserError, did_you_mean
from vitbench.menu import tunables
from vitbench.settings.choices import CONF_GROUPS, MENU_GROUPS, menu_of, settings_key, typed_key
from vitbench.settings.schema import SCHEMA_OF_SOURCE

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
INSTEAD_OF_EACH_OTHER = (("optim.steps", "optim.epochs"), ("optim.warmup", "optim.warmup_steps"))
# settings that may hold words, which Hydra takes in quotes alone
DESCRIBING = ("init", "teacher", "against", "whole", "bare")
# settings that hold paths, whose letters need no quotes on a command line
PATHS = ("data.root", "data.cache", "data.labels", "runs", "results", "out", "file", "images")
UNLIKE_A_WORD = r"[^\w./\\+$%*@?|:\- ]"  # what Hydra's grammar does not take without quotes
QUOTED = """'[^']*'|"[^"]*\""""


def words_of(line: str) -> list[str]:
    """The words of a line, each with its quotes; UserError for a quote that is not closed."""
    word = rf"""(?:[^\s'"]|{QUOTED})+"""
    if re.sub(word, "", line).strip():
        raise UserError(f"`{line}`: a quote that is not closed")
    return re.findall(word, line)


def prepare(argv: Iterable[str]) -> list[str]:
    """The flags, then the settings, because Hydra refuses `a=1 -m b=2`.

    Raises UserError for a flag that Hydra does not have, and for a setting that is typed twice, added or removed.
    """
    flags: list[str] = []
    settings: list[str] = []
    words = iter(argv)
    for word in words:
        if word.startswith("--experimental"):
            raise UserError(f"{word} is refused: it executes what a file says; repeat the command instead")
        if word.startswith("-"):
            flag, equals, value = word.partition("=")
            if flag not in {*FLAGS, *VALUE_FLAGS}:
                raise UserError(f"{word}: {did_you_mean(flag, [*FLAGS, *VALUE_FLAGS])}")
            flags.append(flag)
            if flag in VALUE_FLAGS:
                given = value if equals else next(words, "")
                allowed = VALUE_FLAGS[flag]
                if not given or (allowed and given not in allowed):
                    raise UserError(
                        f"{flag} {given}: " + (did_you_mean(given, allowed) if allowed else "needs a value")
                    )
                flags.append(given)
                if flag in ("--config-dir", "-cd"):
                    _read_all(Path(given))
        else:
            settings.append(setting(word))
    seen: dict[str, str] = {}
    for word in settings:
        key = word.split("=")[0].lstrip("+")
        if key in seen:
            raise UserError(as_typed(f"{key} is given twice: {seen[key]} and {word}; keep one"))
        seen[key] = word
    for pair in INSTEAD_OF_EACH_OTHER:
        both = [word for key, word in seen.items() if key in pair and not word.endswith("=null")]
        if len(both) == 2:
            raise UserError(f"{' and '.join(both)}: give one of them")
    return flags + settings


def _read_all(folder: Path) -> None:
    """Reads every yaml of a folder of one's own, so that a broken one is named before Hydra meets it."""
    from vitbench.settings.compose import read_yaml

    if not folder.is_dir():
        raise UserError(f"--config-dir {folder}: no such folder")
    for path in sorted(folder.rglob("*.yaml")):
        read_yaml(path)


def setting(word: str) -> str:
    """A setting as Hydra wants it; refuses what would silently mean nothing."""
    if "=" not in word and not word.startswith("~"):
        example = f"data.root={word}" if Path(word).is_dir() else "seed=1"
        raise UserError(f"{word}: settings are typed key=value, for example {example}")
    if word.startswith("where."):  # a filter can be any column, so that the schema cannot list them
        key, equals, value = word.partition("=")
        if key.removeprefix("where.") in CONF_GROUPS:
            key += ".name"  # so that where.data=x and where.data.fraction=1 can stand side by side
        return f"+{key}{equals}{_quoted(value)}"
    key, _, value = word.partition("=")
    if word == "pe=null":
        raise UserError("pe=null: pe=none is a ViT without encodings")
    if key in CONF_GROUPS and value in ("", "null"):
        raise UserError(f"{word}: a choice cannot be empty; `vitbench ls` lists what there is")
    if group := next((name for name, group in MENU_GROUPS.items() if group.name_key == key), None):
        raise UserError(f"{word}: type {group}={value}")
    if key == "size":
        return f"model.{word}"
    if key in DESCRIBING:
        return f"{key}={_quoted(value)}"
    if key in PATHS:
        return f"{key}={_quoted_paths(value)}"
    if word[0] in "+~" and not word.lstrip("+~").startswith("hydra"):
        bare = word.lstrip("+~")
        raise UserError(
            f"{word}: settings are neither added nor removed; type {bare if '=' in bare else f'{bare}=null'}"
        )
    return settings_key(word)


def _quoted(value: str) -> str:
    """A value with the quotes that Hydra wants around an `=`, which the shell has taken off."""
    if not re.search("[=~]", re.sub(QUOTED, "", value)):
        return value
    quote = '"' if "'" in value else "'"
    return f"{quote}{value}{quote}"


def _quoted_paths(value: str) -> str:
    """Paths in quotes if they have letters that Hydra would take for its own grammar, as `~/pets` and `pets (2024)`."""
    if re.search(r"""['"]|^\[.*\]$|^\$\{|^(choice|range|glob|interval|sort|shuffle)\(""", value):
        return value  # it is quoted, or Hydra's grammar is meant
    paths = value.split(",")
    return ",".join(f'"{path}"' if re.search(UNLIKE_A_WORD, path, re.ASCII) else path for path in paths)


def as_typed(line: str) -> str:
    """A line about settings with the keys that people type in place of those that Hydra is given."""
    return re.sub(r"(?<![\w.])outside=", "model=", typed_key(line))


def _owners(key: str) -> str:
    """The choices that have a setting which those that were made lack: `model=resnet` of model.sharing."""
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
    """One line for what Hydra or OmegaConf refused."""
    return UserError(as_typed(_explained(error, command, arguments)))


def _explained(error: Exception, command: str, arguments: Iterable[str]) -> str:
    import yaml
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, yaml.YAMLError | UnicodeDecodeError):
        return f"a configuration file is no valid YAML: {' '.join(str(error).split())}"
    typed = [word for word in arguments if not word.startswith("-")]
    if isinstance(error, OverrideParseException):
        return f"{(error.override or '').removeprefix('+')}: {_first_line(error)}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        if group == "hydra/launcher" and option in ("submitit_slurm", "submitit_local"):
            return f"{group}={option} comes with an extra: pip install 'vitbench[slurm]'"
        options = [name for name in error.options if name != "schema"]
        return f"{group}={option}: {did_you_mean(option, options)}"
    cause: Any = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        key = str(cause.full_key or cause.key or "")
        keys = {w: w.lstrip("+").split("=")[0] for w in typed}
        word = next((w for w in typed if keys[w] == key or keys[w].startswith(f"{key}.")), None)
        if isinstance(cause, AttributeError | KeyError) and cause.parent_node is not None and word is not None:
            settings = ["model" if k == "outside" else str(k) for k in cause.parent_node]
            prefix = key.rpartition(".")[0]
            names = [f"{prefix}.{k}" if prefix else k for k in settings if k != "hydra"]
            hint = f"it is a setting of {owners}" if (owners := _owners(keys[word])) else did_you_mean(key, names)
            return f"{word}: no such setting of `vitbench {command}`; {hint}"
        return f"{(word or key).removeprefix('+')}: {_plainly(_first_line(cause))}"
    message = _first_line(error)
    missing = re.match(r"Could not override '([^']*)'", message)
    if missing:
        word = next((w for w in typed if w.split("=")[0] == missing[1]), missing[1])
        return f"{word}: no such choice or setting of `vitbench {command}`; {did_you_mean(missing[1], CONF_GROUPS)}"
    if message.startswith("Ambiguous value for argument"):
        word = next((w for w in typed if f"'{w}'" in message), "")
        if word.startswith("outside="):
            return f"{word}: several values; model= is one network"
        all_of_them = "-m runs them all, " if command in ("train", "sweep") else ""
        return f"{word}: several values; {all_of_them}a list is typed {word.replace('=', '=[')}]"
    return message


def _plainly(line: str) -> str:
    """What OmegaConf says of a value of the wrong kind, in the words of other refusals."""
    kinds = {"Float": "a number", "Integer": "a whole number", "Boolean": "true or false"}
    refused = re.match(r"Value .* could not be converted to (\w+)", line)
    return f"must be {kinds[refused[1]]}" if refused and refused[1] in kinds else line


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


@cache  # a grid has few words, each in many runs
def parsed(word: str) -> Any:
    """A word as Hydra's own parser reads it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(word)


PRETRAINED = "pretrained"  # init=pretrained: the library's own weights of a network of timm or torchvision
_WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")  # .pth.tar: timm's training script


def is_file_of_weights(value: str) -> bool:
    """Whether what was typed for init ends as a file of weights does."""
    return value.endswith(_WEIGHTS) and "=" not in value


def is_words(value: str) -> bool:
    """Whether a value describes a run and does not name one."""
    return "=" in value
