"""The choices of a command line, such as `model=vit pe=rope`: where settings hold them, and what tables call them.

Each group of `conf/` from which a run chooses is one line of GROUPS. Code that treats all groups alike reads it there.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from vitbench.menu import Choice


class Group(NamedTuple):
    """A group of `conf/`, from which each run chooses one member."""

    name_key: str  # the key of the settings that holds the name of the member
    menu: str | None = None  # the module whose MENU lists the members; None: presets, whose names decide no number
    is_open: bool = False  # whether a member's options are those of its class on the menu, and no schema lists them
    implied: str | None = None  # the member that is meant where settings lack this group; ids and captions omit it
    label_key: str | None = None  # the key that tables show, where it is not the name
    brings: tuple[str, ...] = ()  # the groups that conf/ chooses from together with this one
    help: str = ""  # the sentence that `--help` shows for the group

    @property
    def is_decisive(self) -> bool:
        """Whether every id and every command line names the member, even if it is the usual one."""
        return self.menu is not None and self.implied is None

    @property
    def shown_key(self) -> str:
        """The key whose value is in the column that has the group's name."""
        return self.label_key or self.name_key

    @property
    def options_prefix(self) -> str:
        """The prefix of the keys of a member's options."""
        return self.name_key.removesuffix("name")


GROUPS: dict[str, Group] = {
    "model": Group(
        "model.name",
        "vitbench.models.menu",
        is_open=True,
        brings=("pe", "optim"),
        help="the network; it brings its recipe of training and, if it is a ViT, a position encoding",
    ),
    "pe": Group(
        "model.pe.name",
        "vitbench.pe.menu",
        is_open=True,
        help="the position encoding, which tells a ViT where in the image its patches are",
    ),
    "data": Group(
        "data.source",
        "vitbench.data.menu",
        label_key="data.name",
        brings=("augment",),
        help="the images: imagefolder is your own folder, shapes are drawn by vitbench, others are public data sets",
    ),
    "augment": Group("augment.name", help="a preset that says how training images are changed at random"),
    "optim": Group("optim.name", help="the recipe of training: optimizer, learning rate, number of steps"),
    "objective": Group(
        "objective.name",
        "vitbench.objectives.menu",
        is_open=True,
        implied="classify",
        help="what the network learns: classes or, without labels, features",
    ),
}
CONF_GROUPS = (*GROUPS, "probe")  # a run does not choose from `probe`
MENU_GROUPS = {name: group for name, group in GROUPS.items() if group.menu is not None}
COLUMN_OF_CHOICE = {group.shown_key: name for name, group in GROUPS.items()}


@cache  # reading a record asks for several menus
def menu_of(group: str) -> Mapping[str, Choice]:
    """Returns the menu of one of MENU_GROUPS. Imports no torch."""
    module = MENU_GROUPS[group].menu
    assert module is not None
    menu: Mapping[str, Choice] = importlib.import_module(module).MENU
    return menu


# In settings, the encoding is a part of the model. For people who type and read, it is a choice of its own.
_IN_SETTINGS, _AS_TYPED = "model.pe.", "pe."


def typed_key(text: str) -> str:
    """Turns a key of the settings, or all keys in a line, into what people type: `model.pe.theta` -> `pe.theta`."""
    return text.replace(_IN_SETTINGS, _AS_TYPED)


def settings_key(typed: str) -> str:
    """Turns a typed key, alone or before its value, into that of the settings: `pe.theta` -> `model.pe.theta`."""
    return typed.replace(_AS_TYPED, _IN_SETTINGS, 1) if typed.startswith(_AS_TYPED) else typed


def column_of(key: str) -> str:
    """Returns the column of tables that shows a setting: `data.name` -> `data`, `model.pe.theta` -> `pe.theta`."""
    return COLUMN_OF_CHOICE.get(key) or typed_key(key)
