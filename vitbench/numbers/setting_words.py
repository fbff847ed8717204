"""Settings in the words of a paper: `vit pe=learned` becomes "ViT, learned encoding".

Figures and pages use these words. Tables and the command line have settings as one types them. What is not known here
stays as typed, and a word that a study has for a value (`names:`) comes before the words here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vitbench.numbers.words import RenamedValue, column_label, is_number, printable, shown_value

# The words of a choice, by the column that has it. A model comes first in a name, so its words are a name themselves.
CHOICES: dict[str, dict[str, str]] = {
    "data": {
        "shapes": "drawn shapes",
        "imagefolder": "own images",
        "cifar10": "CIFAR-10",
        "cifar100": "CIFAR-100",
        "mnist": "MNIST",
        "fashion_mnist": "Fashion-MNIST",
        "svhn": "SVHN",
        "stl10": "STL-10",
        "flowers102": "Flowers-102",
        "food101": "Food-101",
        "imagenet": "ImageNet-1k",
    },
    "model": {"vit": "ViT", "resnet": "ResNet", "mixer": "MLP-Mixer", "timm": "timm", "torchvision": "torchvision"},
    "pe": {
        "none": "no encoding",
        "learned": "learned encoding",
        "sincos1d": "1-D sine-cosine encoding",
        "sincos2d": "2-D sine-cosine encoding",
        "rope": "axial RoPE",
        "rope_mixed": "mixed RoPE",
        "relative_bias": "relative bias",
        "alibi2d": "2-D ALiBi",
        "cpe": "convolutional encoding",
    },
    "augment": {
        "none": "no augmentation",
        "light": "light augmentation",
        "strong": "strong augmentation",
        "deit": "DeiT's augmentation",
    },
    "optim": {"vit": "ViT's recipe", "resnet": "ResNet's recipe", "family": "recipe of its family"},
    "objective": {"classify": "classification", "simsiam": "SimSiam", "mae": "masked autoencoder"},
    "distill.kind": {"hard": "hard labels", "soft": "soft labels"},
    "model.stem": {"patch": "patch stem", "conv": "convolutional stem"},
    "model.pool": {"mean": "mean pooling", "cls": "class token", "flatten": "no pooling of places"},
    "model.reach": {"near": "near taps", "spread": "spread taps", "random": "random taps"},
    "model.padding": {"zero": "zero padding", "circular": "circular padding", "reflect": "reflect padding"},
    "model.downsample": {"stride": "strides", "blur": "blurred strides", "max": "max pooling"},
    "model.norm": {"batch": "batch norm", "layer": "layer norm"},
    "model.sharing": {"true": "shared weights", "false": "no shared weights"},
    "model.hierarchy": {"true": "hierarchy", "false": "no hierarchy"},
    "model.conv": {"true": "convolutions", "false": "no convolutions"},
    "model.gate": {"true": "gated attention", "false": "no gate"},
    "data.permute": {"none": "places as they are", "tiles": "moved tiles", "pixels": "moved pixels"},
    "freeze": {"none": "all layers trained", "backbone": "only the head trained"},
}
# What a setting is called along an axis, with its unit.
SETTINGS: dict[str, str] = {
    "augment.crop": "largest random shift, share of the side",
    "data.count": "training images",
    "data.image_size": "side of the images, px",
    "data.fraction": "share of the training images",
    "data.permute_share": "share of tiles that are moved",
    "model.base_width": "channels of the first stage",
    "model.depth": "depth, blocks",
    "model.heads": "attention heads",
    "model.patch_size": "side of a patch, px",
    "model.size": "size of the network",
    "model.width": "width",
    "model.window": "side of the attention window, patches",
    "optim.batch_size": "batch size",
    "optim.epochs": "epochs",
    "optim.lr": "learning rate",
    "optim.steps": "training steps",
    "optim.weight_decay": "weight decay",
}
# What a setting with a value is called in the name of a line, and in the small print.
PHRASES = {
    "augment.crop": "shifts up to {}",
    "data.count": "{} images",
    "data.image_size": "images of {} px",
    "data.permute_share": "{} of the tiles moved",
    "model.base_width": "first stage of {} channels",
    "model.patch_size": "patches of {} px",
    "model.size": "size {}",
    "model.window": "attention within {0} x {0} patches",
    "optim.batch_size": "batches of {}",
    "optim.epochs": "{} epochs",
    "optim.lr": "learning rate {}",
    "optim.steps": "{} training steps",
    "optim.weight_decay": "weight decay {}",
    "train_images": "{} images",
}
GROUP_WORDS = {  # a choice along an axis
    "data": "images",
    "model": "network",
    "pe": "position encoding",
    "augment": "augmentation",
    "optim": "recipe of training",
    "objective": "objective",
}
# What a probe varied along an axis, by the probe and the unit that its rows have.
SWEPT = {
    ("shift", "px"): "length of the shift, pixels",
    ("resolution", "px"): "side of the test images, pixels",
    ("cost", "px"): "side of the images, pixels",
    ("cost", "images"): "images of a batch",
    ("rotation", "degrees"): "angle of rotation, degrees",
    ("scale", "times"): "scale of the image, in times its own size",
    ("shuffle", "tiles"): "tiles that are shuffled",
    ("occlusion", "share of tiles"): "share of the tiles that are hidden",
    ("attribution", "% of the tiles"): "tiles that are hidden, %",
}
DEPTH = "depth of the layer (0: first, 1: last)"  # of what was measured along layers
_SPECIAL: dict[str, Callable[[str], str]] = {
    "init": lambda word: (
        word if word.startswith("pretrained") else f"begun from {CHOICES['objective'].get(word, word)}"
    ),
    "teacher": lambda word: f"taught by {CHOICES['model'].get(word.removeprefix('model='), word)}",
}


def setting_in_words(key: str, value: Any) -> str:
    """Writes one setting in words: "learned encoding", "learning rate 0.1"; an unknown one as one types it."""
    if isinstance(value, RenamedValue) and key not in _SPECIAL:
        return printable(value.word)
    shown = shown_value(value)
    if key in _SPECIAL and ("=" not in shown or key == "teacher"):
        return _SPECIAL[key](shown)
    if shown in CHOICES.get(key, ()):
        return CHOICES[key][shown]
    if key == "data.fraction" and is_number(value):
        return "all images" if value == 1 else f"{100 * value:g} % of the images"
    if key in PHRASES and (is_number(value) or key == "model.size"):
        return PHRASES[key].format(f"{value:,}" if isinstance(value, int) else shown)
    return shown if key in ("model", "model.arch", "model.network", "data") else f"{key}={shown}"


def in_words(settings: Mapping[str, Any]) -> str:
    """Names a line or a network by its settings: "ViT, learned encoding"; settings that are null are left out."""
    return ", ".join(setting_in_words(key, value) for key, value in settings.items() if value is not None)


def value_in_words(key: str, value: Any) -> str:
    """Writes a value that stands beside others along an axis which says what it is: "strong", "0.1", "vit"."""
    shown = shown_value(value)
    if isinstance(value, RenamedValue) or key in ("augment", "freeze"):
        return shown
    return CHOICES.get(key, {}).get(shown, shown)


def axis_label(column: str) -> str:
    """Names what lies along an axis: a result as in tables, and a setting or what a probe varied in words."""
    if column in GROUP_WORDS:
        return GROUP_WORDS[column]
    return SETTINGS.get(column) or column_label(column)


def swept_label(result: str, unit: str) -> str:
    """Names what a probe varied, from the name of its result and the unit of its rows."""
    return SWEPT.get((result.partition(".")[0], unit)) or {"step": "training steps"}.get(unit, unit)


def without_unit(label: str) -> str:
    """The label of an axis without what follows its name: a unit, or what its ends are."""
    return label.partition(",")[0].partition(" (0:")[0]
