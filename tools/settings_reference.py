"""Writes docs/reference/settings.md and commands.md: what `--help` says of commands, settings and choices.

    python tools/settings_reference.py            # writes the pages; `make reference` does the same

A test fails where a page is not what the sentences beside the settings say.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from vitbench import completion, ls
from vitbench.cli import COMMANDS
from vitbench.explaining.comments import sentences_of_schema
from vitbench.explaining.explained import Setting, menu_of_group, options_of, sentence_of_member, settings_of_command
from vitbench.numbers.words import typed_value
from vitbench.settings.choices import GROUPS
from vitbench.settings.command_schemas import CHOSEN_BY_ADVISE, SCHEMAS
from vitbench.settings.compose import CONF_DIR, read_yaml
from vitbench.settings.schema import SWEEP_KEYS, DataConfig, SweepConfig

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
MADE = "<!-- Made by `make reference` from the comments beside the settings and from `conf/`. Change those. -->"
SETTINGS_HEAD = f"""\
# Every setting of a run

{MADE}

A run of `vitbench train`, and each run of `vitbench sweep`, takes these settings. `vitbench train --help` says the same
of the choices that you type. The settings of other commands are on the page of [commands](commands.md). How numbers,
text and lists are typed is on the page about [typing settings](typing.md).

Each line shows a setting with its default, as it would be typed. In italics stands what can be typed. `null` means that
the setting is not set; the sentence says what holds then.

"""
COMMANDS_HEAD = f"""\
# Every command

{MADE}

A command is typed `vitbench COMMAND key=value ...`. `vitbench COMMAND --help` prints what this page says of it. How
numbers, text and lists are typed is on the page about [typing settings](typing.md); what the exit codes mean is on the
page about [exit codes and environment variables](exit-codes.md).

"""


def main() -> int:
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print((FOLDER / name).relative_to(ROOT))
    return 0


def pages() -> dict[str, str]:
    """The text of each page by the name of its file."""
    parts = {"settings.md": [SETTINGS_HEAD, _of_training(), _of_choices()], "commands.md": [COMMANDS_HEAD, _menu()]}
    parts["commands.md"] += map(_of_command, COMMANDS)
    return {name: "".join(texts).rstrip("\n") + "\n" for name, texts in parts.items()}


def _of_training() -> str:
    """The settings of a run that no choice of model, encoding or objective brings."""
    found = settings_of_command("sweep", {})
    own = {key: its for key, its in found.items() if "." not in key and key not in SWEEP_KEYS}
    text = "## The run itself\n\n" + _table(own, anchored=True)
    sentences = sentences_of_schema(SweepConfig)
    for part in ("data", "optim", "augment", "distill", "machine"):
        sentence = GROUPS[part].help if part in GROUPS else sentences[part]
        text += f"## {part}\n\n{_sentence(sentence)}\n\n{_members(part)}"
        text += _table({key: its for key, its in found.items() if key.startswith(f"{part}.")}, anchored=True)
    for source in ("imagefolder", "shapes"):
        more = settings_of_command("sweep", {"data": source})
        text += f"### data={source}\n\n`data={source}` has besides:\n\n"
        own = {key: its for key, its in more.items() if key.startswith("data.") and key not in found}
        text += _table(own, anchored=True)
    return text


def _members(group: str) -> str:
    """Returns a line for each data set, and for each preset with its settings."""
    lines = []
    if group == "data":
        lines = [f"- `data={name}`: {_text(choice.help)}" for name, choice in menu_of_group(group).items()]
    for path in sorted((CONF_DIR / group).glob("*.yaml")) if group in ("optim", "augment") else []:
        values = {key: value for key, value in read_yaml(path).items() if key not in ("defaults", "name")}
        own = {key: value for key, value in values.items() if "$" not in str(value)}
        words = " ".join(f"{group}.{key}={typed_value(value)}" for key, value in own.items())
        sets = f"; it sets `{words}`" if words else ""
        lines.append(f"- `{group}={path.stem}`: {sentence_of_member(group, path.stem)}{sets}")
    return "\n".join(lines) + "\n\n" if lines else ""


def _of_choices() -> str:
    """Returns a table of the options of each model, encoding, objective and probe."""
    text = ""
    for group in ("model", "pe", "objective", "probe"):
        about = GROUPS[group].help if group in GROUPS else "what `vitbench probe` measures"
        text += f"## {group}=\n\n{_sentence(about)}\n\n"
        for name, choice in menu_of_group(group).items():
            text += f"### {group}={name}\n\n{_sentence(choice.help)}\n\n" + _table(
                options_of(group, name), anchored=True, choice=f"{group}={name}-"
            )
    return text


def _menu() -> str:
    """A line for each command, with a link to what is said of it below."""
    return "".join(f"- [{name}](#{name}): {_text(its.help)}\n" for name, its in COMMANDS.items()) + "\n"


def _of_command(command: str) -> str:
    """What `--help` says of a command: its examples, what it does, and the settings that are its own."""
    text = f"## {command}\n\n{_opening(command)}"
    if command not in SCHEMAS:
        return text
    found = settings_of_command(command, {})
    if command in ("train", "sweep"):
        rest = "Its settings are those of [a run](settings.md).\n\n"
        own = {key: its for key, its in found.items() if key in SWEEP_KEYS}
        return text + (rest if command == "train" else _table(own) + rest.replace("Its", "Its other"))
    takes_images = SCHEMAS[command].__annotations__.get("data") == DataConfig.__name__
    text += _table({key: its for key, its in found.items() if not (takes_images and key.startswith("data."))})
    if command == "advise":
        but = ", ".join(f"`{key}`" for key in CHOSEN_BY_ADVISE)
        return text + f"`data=imagefolder` and its settings are those of [a run](settings.md#data), but for {but}.\n\n"
    return text + ("`data=` and its settings are those of [a run](settings.md#data).\n\n" if takes_images else "")


def _opening(command: str) -> str:
    """The commands to copy and the words that a help page opens with."""
    if command in SCHEMAS:
        header = read_yaml(CONF_DIR / f"{command}.yaml")["hydra"]["help"]["header"]
    else:
        header = str({"ls": ls, "completion": completion}[command].__doc__)
    examples, _, words = header.partition("\n\n")
    return f"{textwrap.indent(textwrap.dedent(examples), ' ' * 4)}\n\n{_text(words)}\n\n"


def _table(settings: Mapping[str, Setting], *, anchored: bool = False, choice: str = "") -> str:
    """Returns a table of settings, or nothing if there are none. Other pages can link to lines of an anchored table."""
    if not settings:
        return ""
    rows = [["setting", "what it is"], ["---"] * 2]
    for key, its in settings.items():
        typed = "where.KEY=VALUE" if key == "where" else f"{key}={typed_value(its.default)}"
        anchor = f'<a id="{choice}{key}"></a>' if anchored else ""
        rows.append([f"{anchor}`{typed}`", f"{_cell(its.sentence)}. *Takes {_cell(_what_can_be_typed(its))}.*"])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"


def _what_can_be_typed(its: Setting) -> str:
    """Returns the choices or the range of a setting, or else the values of its type."""
    null = " or null" if its.kind.endswith("or null") else ""
    if its.values:
        *others, last = its.values
        return f"{', '.join(others)} or {last}{null}" if others else last + null
    return f"{its.kind.removesuffix(' or null')}, {its.range}{',' * bool(null)}{null}" if its.range else its.kind


def _sentence(words: str) -> str:
    return _text(words[0].upper() + words[1:] + ".")


def _cell(words: str) -> str:
    """Words that do not end a cell of a table."""
    return _text(words).replace("|", "\\|")


def _text(words: str) -> str:
    """Words that begin neither a tag nor an emphasis, with links to the other pages; code between backticks stays."""
    parts = re.split("(`[^`]*`)", words)
    parts[::2] = [with_links(part.replace("<", "&lt;").replace("*", "\\*")) for part in parts[::2]]
    return "".join(parts)


def with_links(words: str) -> str:
    """Words in which the names of other pages, docs/how-to/gpu.md, are links to them."""
    return re.sub(r"docs/([\w-]+/([\w-]+)\.md)", r"[\2](../\1)", words)


if __name__ == "__main__":
    sys.exit(main())
