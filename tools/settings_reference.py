"""Writes docs/reference/settings.md: the sentences of `--help` about every setting of every command and every choice.

    python tools/settings_reference.py            # writes the page; `make reference` does the same

A test fails if the page does not agree with the sentences beside the settings.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from vitbench.cli import COMMANDS
from vitbench.explaining.comments import sentences_of_schema
from vitbench.explaining.explained import Setting, menu_of_group, options_of, sentence_of_member, settings_of_command
from vitbench.numbers.words import typed_value
from vitbench.settings.choices import GROUPS
from vitbench.settings.command_schemas import CHOSEN_BY_ADVISE, SCHEMAS
from vitbench.settings.compose import CONF_DIR, read_yaml
from vitbench.settings.schema import SWEEP_KEYS, DataConfig, SweepConfig

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "settings.md"
HEAD = """\
# Every setting

Made by `make reference` from the comments beside the settings, which are the place to change it. `vitbench COMMAND
--help` says the same of the choices that are typed, with their values. How they are typed: [settings.md](settings.md).

"""


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
    return 0


def page() -> str:
    """Returns the text of the page."""
    commands = [name for name in COMMANDS if name in SCHEMAS and name not in ("train", "sweep")]
    parts = [HEAD, _of_training(), _of_choices()]
    for command in commands:
        parts += [f"## {command}\n\n`vitbench {command}`: {_cell(COMMANDS[command].help)}.\n\n", _of_command(command)]
    return "".join(parts).rstrip("\n") + "\n"


def _of_training() -> str:
    """Returns the tables of settings of `train` and `sweep`, without those of models, encodings and objectives."""
    found = settings_of_command("sweep", {})
    text = "## train and sweep\n\n" + _table(
        {k: v for k, v in found.items() if "." not in k and k not in SWEEP_KEYS}, anchored=True
    )
    text += "`sweep` has besides:\n\n" + _table({key: its for key, its in found.items() if key in SWEEP_KEYS})
    sentences = sentences_of_schema(SweepConfig)
    for part in ("data", "optim", "augment", "distill", "machine"):
        sentence = GROUPS[part].help if part in GROUPS else sentences[part]
        text += f"### {part}\n\n{_sentence(sentence)}\n\n{_members(part)}"
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
        lines = [f"- `data={name}`: {_cell(choice.help)}" for name, choice in menu_of_group(group).items()]
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
            text += f"**`{group}={name}`** {_cell(choice.help)}\n\n" + _table(
                options_of(group, name), anchored=True, choice=f"{group}={name}-"
            )
    return text


def _of_command(command: str) -> str:
    """Returns the table of a command's settings, without those of images and probes, which have their own tables."""
    takes_images = SCHEMAS[command].__annotations__.get("data") == DataConfig.__name__
    found = settings_of_command(command, {})
    text = _table({key: its for key, its in found.items() if not (takes_images and key.startswith("data."))})
    if command == "advise":
        but = ", ".join(f"`{key}`" for key in CHOSEN_BY_ADVISE)
        return text + f"`data=imagefolder` and its settings are those of [train](#data), but for {but}.\n\n"
    return text + ("`data=` and its settings are those of [train](#data).\n\n" if takes_images else "")


def _table(settings: Mapping[str, Setting], *, anchored: bool = False, choice: str = "") -> str:
    """Returns a table of settings, or nothing if there are none. Other pages can link to lines of an anchored table."""
    if not settings:
        return ""
    rows = [["setting", "default", "what can be typed", "what it is"], ["---"] * 4]
    for key, its in settings.items():
        key, default = ("where.KEY", "") if key == "where" else (key, f"`{typed_value(its.default)}`")
        anchor = f'<a id="{choice}{key}"></a>' if anchored else ""
        rows.append([f"{anchor}`{key}`", default, _cell(_what_can_be_typed(its)), _cell(its.sentence)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"


def _what_can_be_typed(its: Setting) -> str:
    """Returns the choices or the range of a setting, or else the values of its type."""
    null = " or null" if its.kind.endswith("or null") else ""
    if its.values:
        return ", ".join(its.values) + null
    return f"{its.kind.removesuffix(' or null')}, {its.range}{null}" if its.range else its.kind


def _sentence(words: str) -> str:
    return _cell(words[0].upper() + words[1:] + ".")


def _cell(words: str) -> str:
    """Escapes words so that they neither end a cell nor begin a tag, and links them to the other pages."""
    words = words.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", words)


if __name__ == "__main__":
    sys.exit(main())
