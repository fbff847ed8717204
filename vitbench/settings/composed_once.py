"""Makes Hydra compose each set of choices only once in a process.

Left alone, Hydra reads and merges 25 files twice for each command and once more for each run of a sweep, and copies all
schemas for each group that --help lists. The runs of a sweep differ mostly in values, which are set after all files
have been merged.
"""

from __future__ import annotations

import pickle
from functools import cache, wraps
from pathlib import Path
from typing import Any


@cache
def remember_compositions(conf: Path) -> None:
    """Makes Hydra keep what it has read from its own files and the folder `conf`. Other files are read each time."""
    import hydra._internal.config_loader_impl as loader
    from hydra._internal.defaults_list import DefaultsList
    from hydra.core.config_store import ConfigStore

    shipped = {("pkg", "hydra.conf"), ("file", str(conf)), ("structured", "")}
    merging: Any = loader.ConfigLoaderImpl
    store: Any = ConfigStore
    list_defaults, merge = loader.create_defaults_list, merging._compose_config_from_defaults_list
    lists: dict[Any, DefaultsList] = {}
    merged: dict[Any, bytes] = {}

    def is_shipped(repo: Any) -> bool:
        return {(source.scheme(), source.path) for source in repo.get_sources()} <= shipped

    @wraps(list_defaults)
    def create_defaults_list(
        repo: Any, config_name: Any, overrides_list: list[Any], prepend_hydra: bool, skip_missing: bool
    ) -> DefaultsList:
        """Lists the files that make a configuration, in their order, and the words that set values in it."""
        if not is_shipped(repo):
            return list_defaults(repo, config_name, overrides_list, prepend_hydra, skip_missing)
        words = [word for word in overrides_list if not word.is_sweep_override()]
        is_choice = [repo.group_exists(word.key_or_group) and not isinstance(word.value(), dict) for word in words]
        choices = tuple(word.input_line for word, chooses in zip(words, is_choice, strict=True) if chooses)
        key = (config_name, choices, prepend_hydra, skip_missing)
        if key not in lists:
            lists[key] = list_defaults(repo, config_name, overrides_list, prepend_hydra, skip_missing)
        known = lists[key]
        values = [word for word, chooses in zip(words, is_choice, strict=True) if not chooses]
        return DefaultsList(known.defaults, known.defaults_tree, values, known.overrides)

    @wraps(merge)
    def compose_from_defaults(self: Any, defaults: list[Any], repo: Any) -> Any:
        """Merges the files of a list."""
        if not is_shipped(repo):
            return merge(self, defaults, repo)
        key = repr(defaults)
        if key not in merged:
            merged[key] = pickle.dumps(merge(self, defaults, repo))
        return pickle.loads(merged[key])  # this copies in a quarter of the time of copy.deepcopy

    loader.create_defaults_list = create_defaults_list
    merging._compose_config_from_defaults_list = compose_from_defaults
    store.__deepcopy__ = lambda its, memo: its  # the store need not be copied, because it hands out copies
