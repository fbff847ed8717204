"""Which lines are compared with which, where nobody says: `fit`, and `table matched=`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Protocol, TypeVar

from vitbench.models import families
from vitbench.settings.choices import GROUPS

START_KEYS = ("init", "head", "freeze", "optim.layer_decay")  # these say how a run begins


class Line(Protocol):
    """A group of runs, or a learning curve."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those that tell it from others."""


Some = TypeVar("Some", bound=Line)


def usual_pairs(lines: Sequence[Some]) -> list[tuple[Some, Some]]:
    """Pairs every ViT with every CNN, every encoding with none, and a pretrained model with the same one from scratch.

    The second of a pair is the reference. Nothing else that varies differs within a pair. If this gives no pairs, each
    two lines that differ in model, encoding or recipe alone are one.
    """
    cnns = [line for line in lines if is_cnn(line)]
    without = [line for line in lines if line.settings.get("pe") == "none"]
    vits = [line for line in lines if not is_cnn(line)]
    chosen = [(a, b) for b in [*cnns, *without] for a in vits if a is not b and _context(a) == _context(b)]
    scratch = [line for line in lines if "init" in line.settings and line.settings["init"] is None]
    pretrained = [line for line in lines if line.settings.get("init") is not None]
    chosen += [(a, b) for b in scratch for a in pretrained if _after_start(a) == _after_start(b)]
    return chosen or [(a, b) for a, b in combinations(lines, 2) if _context(a) == _context(b)]


def is_cnn(line: Line) -> bool:
    """Whether its model takes no encoding: runs of such a model have no `pe` (vitbench/models/menu.py).

    The name of the model does not say so here, because a table of one's own can hold models that no menu offers; the
    name of an architecture of timm or torchvision does.
    """
    if line.settings.get("model.arch"):
        return families.is_cnn(str(line.settings["model.arch"]))
    return "pe" in line.settings and line.settings["pe"] is None


def _after_start(line: Line) -> dict[str, Any]:
    """Returns what a pretrained model and the same model from scratch share: all settings but how they begin."""
    return {key: value for key, value in line.settings.items() if key not in START_KEYS}


def _context(line: Line) -> dict[str, Any]:
    """Returns what two lines must share to be a pair: all that varies but the model, its encoding and its recipe.

    Weights that fit one network only, of a run, a file or a library, are part of the model: both must have such.
    """
    own = ("model", *GROUPS["model"].brings)
    shared = {
        key: value for key, value in line.settings.items() if key == "model.size" or key.partition(".")[0] not in own
    }
    init = shared.get("init")
    return shared | ({"init": "weights of its own"} if init and "=" not in str(init) else {})
