"""The choices of a command line, such as `model=vit pe=rope`: where settings hold them, and what tables call them.

A group of `conf/` that a run chooses from is one line of GROUPS here, and all who treat groups alike read it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from vitbench.menu import Choice


class Group(NamedTuple):
    """A group of `conf/`, of which each run chooses one member."""

    name_key: str  # the key of the settings that holds the name of the member
    menu: str | None = None  # the module whose MENU lists the members; None: presets, whose names decide no number
    is_open: bool = False  # a member's options are those of the class on the menu, and no schema lists them
    implied: str | None = None  # the member that settings without this group mean; ids and captions leave it unsaid
    label_key: str | None = None  # the key that tables show, where it is not the name
    brings: tuple[str, ...] = ()  # the groups that conf/ chooses from together with this one
    help: str = ""  # what is chosen, as a sentence for `--help`

    @property
    def is_decisive(self) -> bool:
        """Whether every id and every command line says the member, also where it is the usual one."""
        return self.menu is not None and self.implied is None

    @property
    def shown_key(self) -> str:
        """The key whose value stands in the column that is called like the group."""
        return self.label_key or self.name_key

    @property
    def options_prefix(self) -> str:
        """What the keys of a member's options begin with."""
        return self.name_key.removesuffix("name")


GROUPS: dict[str, Group] = {
    "model": Group(
        "model.name",
        "vitbench.models.menu",
        is_open=True,
        brings=("pe", "optim"),
        help="the network, which brings its recipe of training and, as a ViT, a position encoding",
    ),
    "pe": Group(
        "model.pe.name",
        "vitbench.pe.menu",
        is_open=True,
        help="the position encoding, which tells a ViT where patches lie",
    ),
    "data": Group(
        "data.source",
        "vitbench.data.menu",
        label_key="data.name",
        brings=("augment",),
        help="the images; imagefolder is a folder of your own, shapes are drawn here, others are public data sets",
    ),
    "augment": Group("augment.name", help="how training images are changed at random, as a preset"),
    "optim": Group("optim.name", help="the recipe of training: optimizer, learning rate, number of steps"),
    "objective": Group(
        "objective.name",
        "vitbench.objectives.menu",
        is_open=True,
        implied="classify",
        help="what is learned, classes or, without labels, features",
    ),
}
CONF_GROUPS = (*GROUPS, "probe")  # with the one that no run chooses from
MENU_GROUPS = {name: group for name, group in GROUPS.items() if group.menu is not None}
COLUMN_OF_CHOICE = {group.shown_key: name for name, group in GROUPS.items()}


@cache  # each record that is read asks for several
def menu_of(group: str) -> Mapping[str, Choice]:
    """The menu of one of MENU_GROUPS. Imports no torch."""
    module = MENU_GROUPS[group].menu
    assert module is not None
    menu: Mapping[str, Choice] = importlib.import_module(module).MENU
    return menu


# The encoding is a part of the model in settings, and a choice of its own where people type and read.
_IN_SETTINGS, _AS_TYPED = "model.pe.", "pe."


def typed_key(text: str) -> str:
    """A key of the settings as people type it, `model.pe.theta` -> `pe.theta`; also all keys within a line."""
    return text.replace(_IN_SETTINGS, _AS_TYPED)


def settings_key(typed: str) -> str:
    """A key as people type it (alone or before its value) as settings have it, `pe.theta` -> `model.pe.theta`."""
    return typed.replace(_AS_TYPED, _IN_SETTINGS, 1) if typed.startswith(_AS_TYPED) else typed


def column_of(key: str) -> str:
    """The column of tables that shows a setting: `data.name` -> `data`, `model.pe.theta` -> `pe.theta`."""
    return COLUMN_OF_CHOICE.get(key) or typed_key(key)
