"""The sentences that shell completion shows beside the words it offers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from vitbench.explaining.comments import sentences_of_schema
from vitbench.explaining.explained import sentence_of_member, settings_of_command
from vitbench.probes.menu import MENU as PROBES
from vitbench.settings.choices import CONF_GROUPS, GROUPS, typed_key
from vitbench.settings.command_schemas import SCHEMAS
from vitbench.settings.schema import SCHEMA_OF_SOURCE


def descriptions(command: str, typed: Sequence[str], fitting: Iterable[str]) -> dict[str, str]:
    """Returns the sentences of the fitting words that have one, after a command and the words typed so far."""
    if command not in SCHEMAS:
        return {}
    said = {f"{section}.": sentence for section, sentence in sentences_of_schema(SCHEMAS[command]).items()}
    said |= {f"{group}{end}": its.help for group, its in GROUPS.items() for end in "=."}
    if command == "probe":
        said["probe="] = said["probe."]
    said |= _of_settings(command, dict(word.split("=", 1) for word in typed if "=" in word))
    for word in fitting:
        group, _, member = word.partition("=")
        if member and group in CONF_GROUPS:
            said[word] = sentence_of_member(group, member)
    return {word: said[key] for word in fitting if said.get(key := typed_key(word))}


def _of_settings(command: str, typed: dict[str, str]) -> dict[str, str]:
    """Returns the sentences of all settings of a command, for the typed choices and the usual ones."""
    chosen: dict[str, Any] = {"model": "vit", "pe": "rope", "objective": "classify"} | typed
    probes = typed.get("probe", "all")
    chosen["probe"] = list(PROBES) if probes == "all" else probes.strip("[]").split(",")
    said = {}
    for source in (*SCHEMA_OF_SOURCE, typed.get("data")):
        for key, its in settings_of_command(command, chosen | {"data": source}).items():
            said[f"{key}="] = f"{its.sentence} ({words})" if (words := its.values_words()) else its.sentence
    return said
