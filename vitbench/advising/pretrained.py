"""Pretrained networks of libraries: finds those that can be had here, and writes the settings that begin from one."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from vitbench.advising.plan import setting_word
from vitbench.errors import UserError
from vitbench.models.families import architectures, recipe_of
from vitbench.settings.named_networks import NamedNetwork, read_networks

# Where no models= is typed, these are tried if their weights are on this machine: a small CNN, a small ViT, and a
# classical CNN.
USUAL = ("timm:convnext_atto", "timm:vit_tiny_patch16_224", "torchvision:resnet18")
GENTLE = {"vit": 1e-4, "resnet": 0.01}  # the learning rate of fine-tuning, by recipe: a tenth of the one from scratch


def read_models(typed: Any) -> list[NamedNetwork]:
    """Reads the networks that were typed for `models=`, none for an empty list.

    Raises UserError for anything that is not a network of a library.
    """
    networks = [] if typed == [] else read_networks(typed)
    for one in networks:
        if one.library is None:
            raise UserError(
                f"{one.prefix}: must be timm:NAME or torchvision:NAME, either also with @FILE; `vitbench features`"
                " compares what runs have learned"
            )
    return networks


def run_words(network: NamedNetwork) -> str:
    """Returns the settings, as typed, of a run that begins from a network of a library."""
    init = network.init if network.file is None else str(Path(network.file).absolute())
    return f"model={network.library} model.arch={network.name} {setting_word('init', init)} head=new"


def tuning_rate(network: NamedNetwork) -> float:
    """Returns the learning rate with which the whole network is fine-tuned."""
    return GENTLE[recipe_of(network.name)]


def usual() -> list[NamedNetwork]:
    """Returns those of USUAL whose weights are on this machine already, so that nothing is downloaded unasked."""
    libraries = {word: word.partition(":") for word in USUAL}
    known = [word for word, (library, _, arch) in libraries.items() if arch in architectures(library)]
    return [one for one in (read_networks(known) if known else []) if _is_at_hand(one)]


def _is_at_hand(one: NamedNetwork) -> bool:
    with suppress(Exception):  # whatever a library raises where its cache cannot be read
        if one.library == "torchvision":
            import torch
            from torchvision.models import get_model_weights

            url = get_model_weights(one.name).DEFAULT.url
            return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2]).is_file()
        from huggingface_hub import try_to_load_from_cache
        from timm.models import get_pretrained_cfg

        own: Any = get_pretrained_cfg(one.name)
        names = ("model.safetensors", "pytorch_model.bin")
        return any(isinstance(try_to_load_from_cache(own.hf_hub_id, name), str) for name in names)
    return False


def why_no_images(one: NamedNetwork, image_size: int, classes: int) -> str | None:
    """Says in a line why the network takes no images of this size; None if it does."""
    try:
        _built(one, image_size, classes)
    except UserError as error:
        return str(error)
    return None


def why_no_weights(one: NamedNetwork, image_size: int, classes: int) -> str | None:
    """Says in a line why the network's weights cannot be had, and how to bring them; None if they can.

    The network must take images of this size.
    """
    from vitbench.runs.origin import Origin
    from vitbench.training.transfer import begin

    if one.file:
        origin = Origin(one.file, "file", one.file, Path(one.file))
    else:
        origin = Origin(one.init, str(one.library), one.name)
    try:
        begin(_built(one, image_size, classes), origin, head="new", classes=())
    except UserError as error:
        again = f"models=[{one.library}:{one.name}@FILE]"
        return str(error).replace("init=FILE", again).removeprefix(f"init={one.init}: ")
    return None


def _built(one: NamedNetwork, image_size: int, classes: int) -> Any:
    """Builds the network with random weights. Raises UserError where it takes no images of this size."""
    from vitbench.models.build import build_model

    model: Any = build_model(
        str(one.library), image_size=image_size, channels=3, num_classes=classes, arch=one.name, mean=None, std=None
    )
    model.check_images()
    return model
