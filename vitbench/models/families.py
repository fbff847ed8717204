"""Tells from the name of an architecture of timm or torchvision whether it is a CNN, and which recipe trains it.

It imports neither torch, which takes seconds, nor these libraries: it reads names from the libraries' source.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import re
from functools import cache
from pathlib import Path

from vitbench.errors import UserError, did_you_mean

LIBRARIES = ("torchvision", "timm")
_BEFORE = r"^(tf_|test_|legacy_|gluon_|ssl_|swsl_|ig_|dm_|nf_|eca_|ese_|skresnext|wide_)?"
# Convolutional networks from the years in which SGD was usual, and later networks like them with batch norm.
_BY_SGD = re.compile(
    _BEFORE + "(alexnet|bat_resnext|bninception|cs3|csp(res|dark)|darknet|densenet|dla|dpn|ecaresne"
    "|efficientnet|fbnet|gc_efficientnet|gcresne|gernet|ghostnet|googlenet|hardcorenas|hgnet|hrnet|inception_(resnet|v)|lcnet|mixnet"
    "|mnasnet|mobilenet(?!v[45])|mobileone|nasnet|nfnet|pnasnet|regnet|repvgg|res2ne|resnest"
    "|resnet|resnext|rexnet|sedarknet|selecsls|semnasnet|senet|seresne|shufflenet|skresne|spnasnet|squeezenet|tinynet|tresnet"
    "|vgg|vovnet|xception)"
)
# Convolutional networks that were published with AdamW, like ViTs.
_CNN_BY_ADAMW = re.compile(
    _BEFORE + "(convformer|convmixer|convnext|cspnext|fasternet|focalnet|inception_next|mambaout|mobilenetv4_conv|rdnet"
    "|repghost|repvit|starnet)"
)


def is_cnn(arch: str) -> bool:
    """Returns whether a network of this name is a CNN. Hybrids with attention are not."""
    return bool(_BY_SGD.match(arch) or _CNN_BY_ADAMW.match(arch))


def recipe_of(arch: str) -> str:
    """Returns the recipe (`optim=`) of a network of this name, with the optimizer that it was published with.

    It is `resnet` (SGD) for classical CNNs, and `vit` (AdamW) for all others, such as ConvNeXt, MLP-Mixers and hybrids.
    """
    return "resnet" if _BY_SGD.match(arch) else "vit"


@cache
def architectures(library: str) -> tuple[str, ...]:
    """Returns the names of a library's networks that classify images; none if the library is not installed."""
    try:
        spec = importlib.util.find_spec(library)
    except (ImportError, ValueError):
        return ()
    if spec is None or not spec.submodule_search_locations:
        return ()
    files = sorted(Path(spec.submodule_search_locations[0], "models").glob("*.py"))
    pattern = r"^@register_model\b(?:\(\))?\s*\n(?:@.*(?:\n\s+.*)*?\n\)?)*def (\w+)\("
    return tuple(
        sorted(name for path in files for name in re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE))
    )


def matching(library: str, pattern: str) -> list[str]:
    """Returns the names of a library's networks that match a pattern such as *nano*. UserError if none does."""
    names = fnmatch.filter(_installed(library, f"family={library}"), pattern)
    if not names:
        raise UserError(f"name={pattern}: no network of {library} has such a name")
    return names


def _installed(library: str, typed: str) -> tuple[str, ...]:
    """Returns the names of a library's networks. A library that is not installed is a UserError with `typed`."""
    known = architectures(library)
    if not known:
        raise UserError(f"{typed}: comes with an extra: pip install 'vitbench[timm]'")
    return known


def check_arch(library: str, arch: str, typed: str) -> None:
    """Refuses a name that the library does not have, with near misses, in a line that begins with `typed`."""
    known = _installed(library, typed)
    name = arch.partition(".")[0] if library == "timm" else arch  # timm's weights have tags
    if name not in known:
        raise UserError(f"{typed}: {did_you_mean(arch, known)}")
