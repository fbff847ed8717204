"""Reads networks as they are typed in `models=[...]`: a run's id, timm:NAME[@FILE] or torchvision:NAME[@FILE]."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.errors import UserError
from vitbench.models.families import LIBRARIES, check_arch
from vitbench.settings.compose import as_settings, compose
from vitbench.settings.overrides import PRETRAINED
from vitbench.settings.typed_text import in_quotes, with_home


class NamedNetwork(NamedTuple):
    """A network that has weights, and the settings of a run that begins from them."""

    typed: str
    library: str | None  # None: a run trained the network
    name: str  # the run's id, or the library's name of the network
    file: str | None = None  # the file of the weights; None: those of the library

    @property
    def init(self) -> str:
        if self.library is None:
            return self.name
        return self.file or PRETRAINED

    @property
    def prefix(self) -> str:
        return f"models=[{self.typed}]"


def read_networks(typed: Any) -> list[NamedNetwork]:
    """Reads what was typed for `models=`, each network once. Raises UserError for what is no network."""
    if typed is None or typed == []:
        raise UserError("models= is missing, for example models=[timm:convnext_atto,timm:vit_tiny_patch16_224]")
    if not isinstance(typed, list | str):
        raise UserError(f"models={typed}: must be a list, such as models=[timm:convnext_atto,RUN_ID]")
    words = [typed] if isinstance(typed, str) else [str(word) for word in typed]
    return [_read(word) for word in dict.fromkeys(words)]


def _read(typed: str) -> NamedNetwork:
    named, at, file = typed.partition("@")
    library, colon, name = named.partition(":")
    if not colon and not at and "/" not in typed and not typed.endswith((".safetensors", ".pth", ".pt")):
        return NamedNetwork(typed, None, typed)
    if library not in LIBRARIES or not name or (at and not file):
        raise UserError(f"models=[{typed}]: must be a run's id, timm:NAME, torchvision:NAME, or these two with @FILE")
    check_arch(library, name, f"models=[{typed}]")
    path = Path(with_home("models", file)).expanduser()
    if file and not os.path.isfile(path):  # unlike Path.is_file, it takes a name of any length
        raise UserError(f"models=[{typed}]: {file}: no such file of weights")
    return NamedNetwork(typed, library, name, str(path) if file else None)


def settings_beside(network: NamedNetwork, data_words: list[str], config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the unchecked settings of a run that begins from a network and has the data that `data_words` say.

    `config` has the settings of the run that trained the network, if a run did. The new images then get the size of
    that run's.
    """
    own = config["model"] if config else {"name": network.library, "arch": network.name}
    words = [f"model={own['name']}", *([f"model.arch={in_quotes(str(own['arch']))}"] if "arch" in own else [])]
    settings = as_settings(compose([*words, *data_words], "train"))
    if config:
        settings["model"] = own
    return settings | {"init": network.init, "head": "new", "freeze": "backbone"}
