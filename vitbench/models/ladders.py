"""The ladders: a model in which one inductive bias is removed or added in each rung, and its costs. Imports no torch.

The numbers are those of size nano at 32 px (3 channels, 10 classes, patches of 4 px); tests count them again. A rung is
one setting or a few, so rungs can be combined. `vitbench ls models` prints the multiply-adds of each rung relative to
the unchanged model, and tables show multiply-adds of any runs (value=multiply_adds).
"""

from __future__ import annotations

from typing import Any

from vitbench.models.menu import SIZES, Size


def _rung(parameters: int, multiply_adds: int, **options: Any) -> Size:
    return Size(options, parameters, multiply_adds)


_RESNET = SIZES["nano"]["resnet"]
_VIT = SIZES["nano"]["vit"]
_SAME = (_RESNET.parameters, _RESNET.multiply_adds)
LADDERS: dict[str, dict[str, Size]] = {
    "resnet": {
        "": _rung(*_SAME),
        "sharing": _rung(15_944_950, 15_944_080, sharing=False),
        "spread": _rung(*_SAME, reach="spread"),
        "random": _rung(*_SAME, reach="random"),
        "hierarchy": _rung(16_960, 16_865_380, hierarchy=False),
        "patches": _rung(263_050, 16_712_080, hierarchy=False, stem="patch"),
        "circular": _rung(*_SAME, padding="circular"),
        "reflect": _rung(*_SAME, padding="reflect"),
        "max": _rung(*_SAME, downsample="max"),
        "blur": _rung(*_SAME, downsample="blur"),
        "flatten": _rung(131_140, 15_969_280, pool="flatten"),
        "layer": _rung(*_SAME, norm="layer"),
    },
    "vit": {
        "": _rung(_VIT.parameters, _VIT.multiply_adds),
        "stem": _rung(207_962, 15_217_280, stem="conv"),
        "window": _rung(_VIT.parameters, _VIT.multiply_adds, window=3),
        "conv": _rung(214_090, 15_467_136, conv=True),
        "hierarchy": _rung(534_474, 14_484_736, hierarchy=True),
        "gate": _rung(203_914, 14_975_616, gate=True),
    },
}
