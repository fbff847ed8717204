"""`vitbench COMMAND --help`: commands to copy, what can be chosen, and each setting with its value and its sentence.

The values are those that the typed words set. Settings that the chosen model, encoding, images or probes do not have
are left out.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vitbench.explaining.comments import sentences_of_schema
from vitbench.explaining.explained import (
    RENAMED,
    VALUES,
    Setting,
    menu_of_group,
    sentence_of_member,
    settings_of_command,
)
from vitbench.numbers.words import typed_value
from vitbench.settings.choices import CONF_GROUPS, GROUPS, settings_key
from vitbench.settings.command_schemas import SCHEMAS
from vitbench.settings.compose import compose, flatten

NARROW, WIDE = 60, 120  # the page is at least and at most so many columns wide
FOOT = (
    "Settings are typed as key=value. null means not set; the sentence says what holds then. Brackets at its end say"
    " what can be typed.",
    "--cfg job prints only the settings; --info defaults says where they come from; --config-dir names a folder of your"
    " own options.",
    "docs/reference/typing.md says how text and lists are typed; docs/reference/settings.md has all settings of all"
    " choices.",
)


def help_text(command: str, config: Any, typed: Sequence[str]) -> str:
    """Writes the page of a command, within Hydra's main function. `config` is what the typed words composed."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    flat = _flat(config)
    chosen = {name: flat.get(group.name_key) for name, group in GROUPS.items()}
    if command == "probe":
        chosen |= {"probe": list(config.probe), "data": hydra.runtime.choices.get("data")}
    settings = settings_of_command(command, chosen)
    width = min(max(shutil.get_terminal_size((100, 24)).columns, NARROW), WIDE)
    lines = [hydra.help.header.rstrip(), ""]
    if choices := _choices(command, hydra.runtime.choices, chosen):
        lines += ["Choices (name=option); each sets many settings at once:", "", *_table(choices, width), ""]
    lines.append("Settings, with their values:")
    sets_values = any(_key(word) not in CONF_GROUPS for word in typed)
    usual = _flat(compose([word for word in typed if _key(word) in CONF_GROUPS], command)) if sets_values else flat
    for section, keys in _sections(settings).items():
        lines += ["", *textwrap.wrap(_heading(command, section, chosen), width)] if section else [""]
        lines += _table(_rows(keys, settings, flat, usual, command), width)
    foot = [line for sentence in FOOT for line in textwrap.wrap(sentence, width, break_on_hyphens=False)]
    return "\n".join([*lines, "", *foot]) + "\n"


def _flat(config: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    settings: Any = OmegaConf.to_container(config, resolve=True)
    return flatten(settings)


def _key(word: str) -> str:
    return word.lstrip("+").partition("=")[0]


def _choices(command: str, made: Mapping[str, str], chosen: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lists what is chosen in each group of the command, and what else can be chosen."""
    from hydra.core.global_hydra import GlobalHydra

    def said(sentence: str, group: str) -> str:
        return f"{sentence} ({', '.join(GlobalHydra.instance().config_loader().get_group_options(group))})"

    groups = [group for group in GROUPS if made.get(group) or (group == "data" and group in made)]
    groups = [group for group in groups if len(VALUES.get(f"{command} {group}", ())) != 1]  # one value is no choice
    rows = [(f"{group}={made[group] or 'null'}", said(GROUPS[group].help, group)) for group in groups]
    if "probe" in chosen:
        sentence = sentences_of_schema(SCHEMAS[command])["probe"]
        probes = typed_value(chosen["probe"]) if len(chosen["probe"]) > 1 else "".join(chosen["probe"])
        every = len(chosen["probe"]) == len(menu_of_group("probe"))
        rows.insert(0, (f"probe={'all' if every else probes}", said(sentence, "probe")))
    return rows


def _sections(settings: Iterable[str]) -> dict[str, list[str]]:
    """Groups the keys by their first part, in their order: `data.test.x` is in `data`. Each probe has its own group."""
    sections: dict[str, list[str]] = {}
    for key in settings:
        section = key.rpartition(".")[0] if key.startswith("probe.") else key.partition(".")[0] if "." in key else ""
        sections.setdefault(section, []).append(key)
    return sections


def _heading(command: str, section: str, chosen: Mapping[str, Any]) -> str:
    """Returns the heading of a section: the sentence of its choice, or that of its field."""
    group, _, member = section.partition(".")
    member = member or chosen.get(group) or ""
    if group in CONF_GROUPS and member:
        return f"{group}={member}: {sentence_of_member(group, member) or GROUPS[group].help}"
    sentence = sentences_of_schema(SCHEMAS[command]).get(section, "")
    return f"{section}: {sentence}" if sentence else section


def _rows(
    keys: Iterable[str],
    settings: Mapping[str, Setting],
    flat: Mapping[str, Any],
    usual: Mapping[str, Any],
    command: str,
) -> Iterator[tuple[str, str]]:
    """Yields each setting as it is typed, and its sentence."""
    for key in keys:
        its = settings[key]
        if key == "where":
            typed = [name for name in flat if name.startswith("where.")]
            filters = " ".join(f"{name.removesuffix('.name')}={typed_value(flat[name])}" for name in typed)
            yield filters or "where.KEY=VALUE", its.sentence
            continue
        inside = RENAMED.get(command, {}).get(key) or settings_key(key)
        value = flat.get(inside, its.default)
        brackets = [its.values_words()]
        if usual.get(inside, value) != value:
            brackets.append(f"{typed_value(usual[inside])} where it is not typed")
        said = "; ".join(filter(None, brackets))
        yield f"{key}={typed_value(value)}", f"{its.sentence} ({said})" if said else its.sentence


def _table(rows: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Lays out two columns: what is typed, and its sentence, wrapped. A long word gets a line of its own."""
    left = width * 3 // 10
    lines = []
    for word, sentence in rows:
        said = textwrap.wrap(sentence, width - left, break_long_words=False, break_on_hyphens=False) or [""]
        if len(word) + 4 <= left:
            lines.append(f"  {word:<{left - 2}}{said.pop(0)}".rstrip())
        else:
            lines.append(f"  {word}")
        lines += [" " * left + line for line in said]
    return lines
