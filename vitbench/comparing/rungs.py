"""Which networks of a study are rungs of a ladder, and from which reference: `whole=resnet`, `bare="vit pe=sincos2d"`.

A rung is one network at every number of images that it was trained on. All settings but those of `optim` and `data`
make it the network that it is, so a learning rate of its own does not part it from the reference. The reference is the
plainest network of those that were asked for: the one with the fewest settings that are not the defaults of its model.
With `whole=` every other rung is the reference with a bias taken away, and with `bare=` it has one more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitbench.comparing.differences import typed_settings
from vitbench.comparing.grouping import (
    ALONG,
    IMAGES_KEY,
    Group,
    groups_of,
    line_name,
    ordered_keys,
    sort_key,
    with_place,
)
from vitbench.comparing.select import Runs
from vitbench.errors import NothingChosen, UserError, did_you_mean
from vitbench.numbers.setting_words import in_words, setting_in_words
from vitbench.numbers.words import plural, shown_value, typed_value
from vitbench.runs.records import default_columns
from vitbench.settings.choices import column_of, settings_key
from vitbench.settings.filters import matches
from vitbench.settings.overrides import words_of

PLACE = "train_images"  # a ladder's curves lie along it
Settings = dict[str, Any]  # those that make a network what it is


@dataclass(frozen=True)
class Rung:
    """One network and its runs."""

    name: str  # such as sharing=false; that of the reference is its model's
    words: str  # such as "no shared weights", for figures
    own: Settings  # what it has where it differs from the reference; of another model the model alone
    instead_of: Settings  # what the reference has there
    groups: Mapping[int, Group]  # its runs by the number of training images, growing


@dataclass(frozen=True)
class Ladder:
    """A reference and the networks that have one bias less than it, or one more."""

    asked: str  # whole=resnet
    is_whole: bool  # the rungs lack what the reference has; otherwise they have what it lacks
    reference: Rung
    rungs: Sequence[Rung]  # without the reference
    keys: Sequence[str]  # the settings that tell all of them apart

    @property
    def all_rungs(self) -> list[Rung]:
        return [self.reference, *self.rungs]


def find_ladder(runs: Runs, setting: str, words: str) -> Ladder:
    """Finds the reference that was typed for `setting`, which is whole or bare, and all its rungs.

    Raises UserError where no network or several have these words, where runs of one network and one number of images
    differ in more than their seeds, and where runs are of several data sets.
    """
    asked = f"{setting}={words}"
    groups = groups_of(with_place(runs, PLACE))
    _check_one_data_set(groups, asked)
    keys = [key for key in ordered_keys(groups[0].settings) if _makes_a_network(key)]
    groups_of_network: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        groups_of_network.setdefault(tuple(group.settings[key] for key in keys), []).append(group)
    networks = [dict(zip(keys, values, strict=True)) for values in groups_of_network]
    reference = _find_reference(networks, words, asked)
    rungs = []
    for network, its_groups in zip(networks, groups_of_network.values(), strict=True):
        own = _differing(network, reference, networks)
        name = _rung_name(network, own, networks)
        words = _rung_words(network, own, networks)
        rungs.append(Rung(name, words, own, {key: reference[key] for key in own}, _by_images(its_groups, name, asked)))
    if len(rungs) == 1:
        raise NothingChosen(f"{asked}: there is no other network to compare with it")
    at = networks.index(reference)
    varying = [key for key in keys if _varies(key, networks)]
    order = sorted(
        (i for i in range(len(rungs)) if i != at), key=lambda i: sort_key({key: networks[i][key] for key in varying})
    )
    return Ladder(asked, setting == "whole", rungs[at], [rungs[i] for i in order], varying)


# -------------------------------------------------------------------------------------------------------- settings


def _makes_a_network(key: str) -> bool:
    return key.partition(".")[0] not in ("optim", "data") and key not in (PLACE, IMAGES_KEY)


def _unusual(network: Settings) -> list[str]:
    """The settings that are not the defaults of this network's model and encoding, without these two."""
    defaults = default_columns(network)
    return [
        key for key, value in network.items() if key not in ("model", "pe") and value not in (None, defaults.get(key))
    ]


def _varies(key: str, networks: Sequence[Settings]) -> bool:
    return len({network.get(key) for network in networks}) > 1


def _differing(network: Settings, reference: Settings, networks: Sequence[Settings]) -> Settings:
    """The settings in which a network differs from the reference, without those that follow from a choice.

    Another encoding or objective brings its options along, which are named where they tell two networks apart.
    """
    if network["model"] != reference["model"]:
        return {"model": network["model"]}
    differing = [key for key, value in network.items() if value != reference[key]]

    def follows(key: str) -> bool:
        choice = key.partition(".")[0]
        alike = [other for other in networks if other.get(choice) == network.get(choice)]
        return choice != key and choice in differing and not _varies(key, alike)

    return {key: network[key] for key in differing if not follows(key)}


# ----------------------------------------------------------------------------------------------------------- names


def setting_word(key: str, value: Any) -> str:
    """Writes a setting as one types it, with the word that a study has for its value."""
    return f"{key}={'null' if value is None else shown_value(value)}"


def _plain_name(network: Settings, networks: Sequence[Settings]) -> str:
    """Names a network by its plain settings, as one types them."""
    return line_name(_plain_settings(network, networks))


def _plain_settings(network: Settings, networks: Sequence[Settings]) -> Settings:
    """A network's model, its encoding where that varies, and what tells it from others of its model."""
    own = [other for other in networks if other["model"] == network["model"]]
    keys = ["pe"] if _varies("pe", networks) else []
    keys += [key for key in _unusual(network) if _varies(key, own)]
    return {key: network.get(key) for key in ["model", *keys]}


def _rung_name(network: Settings, own: Settings, networks: Sequence[Settings]) -> str:
    """Names a rung by what it has where it differs, sharing=false, and the reference and other models as all lines."""
    if not own or "model" in own:
        return _plain_name(network, networks).replace(" model.", " ")
    return " ".join(setting_word(key.removeprefix("model."), value) for key, value in own.items())


def _rung_words(network: Settings, own: Settings, networks: Sequence[Settings]) -> str:
    """Names a rung as `_rung_name` does, in words."""
    if not own or "model" in own:
        return in_words(_plain_settings(network, networks))
    return ", ".join(
        setting_word(key.removeprefix("model."), value) if value is None else setting_in_words(key, value)
        for key, value in own.items()
    )


# ----------------------------------------------------------------------------------------- the reference and its runs


def _find_reference(networks: Sequence[Settings], words: str, asked: str) -> Settings:
    """Finds the plainest network that has the words that were typed: a model's name, settings, or both."""
    typed = typed_settings([word if "=" in word else f"model={word}" for word in words_of(words)])
    wanted = {column_of(settings_key(key)): value for key, value in typed.items()}
    names = [_plain_name(network, networks) for network in networks]

    def has_words(network: Settings) -> bool:
        return all(key in network and matches(network[key], value) for key, value in wanted.items())

    found = [network for network in networks if wanted and has_words(network)]
    if not found:
        raise UserError(f"{asked}: no network has these settings; {did_you_mean(words, dict.fromkeys(names))}")
    fewest = min(len(_unusual(network)) for network in found)
    plainest = [network for network in found if len(_unusual(network)) == fewest]
    if len(plainest) > 1:
        some = ", ".join(names[networks.index(network)] for network in plainest[:6])
        raise UserError(f"{asked}: could be {plural(len(plainest), 'network')}, say which with its settings: {some}")
    return plainest[0]


def _check_one_data_set(groups: Sequence[Group], asked: str) -> None:
    """Refuses runs of several data sets, or of images that were changed in several ways."""
    for key in groups[0].settings:
        values = {group.settings[key] for group in groups}
        if key.partition(".")[0] == "data" and key not in ALONG[PLACE] and len(values) > 1:
            some = ", ".join(sorted(map(typed_value, values)))
            raise UserError(f"{asked}: the runs have several values of {key} ({some}); choose one with where.{key}=")


def _by_images(groups: Sequence[Group], name: str, asked: str) -> dict[int, Group]:
    """The groups of one network by the number of images; refuses two of one number."""
    found: dict[int, Group] = {}
    for group in sorted(groups, key=lambda group: group.settings[PLACE]):
        images = group.settings[PLACE]
        other = found.setdefault(images, group)
        if other is not group:
            keys = [key for key, value in group.settings.items() if value != other.settings[key]]
            ways = " and ".join(f"{keys[0]}={typed_value(each.settings[keys[0]])}" for each in (other, group))
            raise UserError(f"{asked}: {name} at {images:,} images has runs of {ways}; choose with where.{keys[0]}=")
    return found
