"""Lets Hydra compose `conf/` with the words that were typed, and turns its configuration into nested dicts."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vitbench.errors import UserError
from vitbench.machine.disk import read_file
from vitbench.models.families import recipe_of
from vitbench.settings.choices import CONF_GROUPS
from vitbench.settings.command_schemas import register_schemas
from vitbench.settings.composed_once import remember_compositions
from vitbench.settings.schema import SWEEP_KEYS

PACKAGE = Path(__file__).resolve().parents[1]


def _shipped(folder: str) -> Path:
    """Returns a folder that is beside the package in a checkout, and inside it in an installed wheel."""
    return next(path for path in (PACKAGE / folder, PACKAGE.parent / folder) if path.is_dir())


CONF_DIR = _shipped("conf")
STUDY_DIR = _shipped("experiments")


def compose(overrides: list[str], command: str = "train") -> Any:
    """Returns the configuration that `vitbench COMMAND OVERRIDES` gets, not yet checked.

    It may also be called while Hydra runs a command.
    """
    for word in overrides:
        check_name_of_choice(*word.partition("=")[::2])
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register()
    if GlobalHydra.instance().is_initialized():
        return hydra_compose(command, overrides)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return hydra_compose(command, overrides)


def check_name_of_choice(group: str, name: str) -> None:
    """Raises UserError for a choice that names a file, because Hydra would read that file: `model=../../x`."""
    if group in CONF_GROUPS and re.search(r"[./\\~$]", name):
        remedy = f"data=imagefolder data.root={name}" if group == "data" else "`vitbench ls` lists what there is"
        raise UserError(f"{group}={name}: a choice is a name, not a file; {remedy}")


def register() -> None:
    """Makes our dataclasses known to Hydra, and the word that picks a recipe by family (conf/optim/family.yaml)."""
    from omegaconf import OmegaConf

    register_schemas()
    remember_compositions(CONF_DIR)
    OmegaConf.register_new_resolver("recipe", _of_recipe, replace=True)


@cache
def _of_recipe(arch: str, key: str) -> Any:
    """Returns a setting of the recipe with which a library's network of this name is trained; None if it has none."""
    return read_yaml(CONF_DIR / "optim" / f"{recipe_of(str(arch))}.yaml").get(key)


def as_settings(config: Any) -> dict[str, Any]:
    """Returns a composed configuration as nested dicts, with every interpolation resolved."""
    from omegaconf import OmegaConf

    register()  # a process of a launcher has composed the configuration without us
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    return completed(json.loads(json.dumps(container)))  # tuples become lists, as they will be in the record


def completed(settings: dict[str, Any]) -> dict[str, Any]:
    """Fills in, in place, what follows from the typed settings, and returns them without those of a sweep.

    `settings` are composed settings as JSON holds them.
    """
    if settings["optim"]["epochs"] is not None:
        settings["optim"]["steps"] = None  # epochs replace the default of steps
    if settings["optim"]["warmup_steps"] is not None:
        settings["optim"]["warmup"] = None
    settings["data"]["root"] = os.path.expanduser(settings["data"]["root"])
    settings["data"]["cache"] = cache_folder(settings["data"]["cache"])
    if settings["data"]["name"] is None:
        data = settings["data"]
        folder = Path(data["root"]).resolve().name
        data["name"] = (folder or data["source"]) if data["source"] == "imagefolder" else data["source"]
    return {key: value for key, value in settings.items() if key not in SWEEP_KEYS}


def cache_folder(typed: str | None) -> str:
    """Returns the folder of decoded images for `data.cache` as it was typed. Where no home folder is known, ~ stays."""
    return os.path.expanduser(typed or os.environ.get("VITBENCH_CACHE") or "~/.cache/vitbench")


# types that are no mapping, because asking isinstance(..., Mapping) takes long
PLAIN = frozenset((str, bool, int, float, list, tuple, type(None)))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"data": {"fraction": 0.1}} -> {"data.fraction": 0.1}"""
    flat: dict[str, Any] = {}
    _flatten_into(flat, settings, prefix)
    return flat


def _flatten_into(flat: dict[str, Any], settings: Mapping[str, Any], prefix: str) -> None:
    for key, value in settings.items():
        kind = type(value)
        if kind is dict or (kind not in PLAIN and isinstance(value, Mapping)):
            _flatten_into(flat, value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value


MOST_YAML = 1_000_000  # bytes


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads the mapping in a yaml file that anyone can have made.

    Raises UserError for a file that cannot be read, is no mapping, has more than 1 MB, or has an alias, a tag or a key
    that is given twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases (*name) are not read")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            if len(set(keys)) < len(keys):
                raise yaml.YAMLError(f"{Counter(keys).most_common(1)[0][0]} is given twice")
            return super().construct_mapping(node, deep)

    try:
        content = yaml.load(read_file(path, MOST_YAML).decode("utf-8-sig"), Loader)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None
    except (yaml.YAMLError, RecursionError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict) or not content:
        held = "holds a list" if isinstance(content, list) else "holds no key" if content else "is empty"
        raise UserError(f"{path} {held}; it must hold settings (key: value)")
    return content
