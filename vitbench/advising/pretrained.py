"""Networks that others pretrained: how they are typed in `models=`, and which of them can be had here."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.errors import UserError
from vitbench.models.families import LIBRARIES, architectures, check_arch, recipe_of
from vitbench.settings.overrides import PRETRAINED

# tried where nothing is typed and their weights are at hand already: a small CNN and a small ViT, and a classical CNN
USUAL = ("timm:convnext_atto", "timm:vit_tiny_patch16_224", "torchvision:resnet18")
GENTLE = {"vit": 1e-4, "resnet": 0.01}  # the learning rate of fine-tuning, by recipe: a tenth of that from scratch


class Pretrained(NamedTuple):
    """A network of a library, with its own weights or those of a file."""

    library: str
    arch: str
    file: str | None = None

    @property
    def words(self) -> str:
        """What a run types to begin from it."""
        init = f"'{self.file}'" if self.file else PRETRAINED
        return f"model={self.library} model.arch={self.arch} init={init} head=new"

    @property
    def learning_rate(self) -> float:
        return GENTLE[recipe_of(self.arch)]


def read_models(typed: Any) -> list[Pretrained]:
    """What was typed for `models=`: timm:NAME, torchvision:NAME, or either with @FILE; UserError for what is none."""
    if not isinstance(typed, list | str):
        raise UserError(f"models={typed}: must be a list, such as models=[timm:convnext_atto,torchvision:resnet18]")
    return [_read(str(word)) for word in ([typed] if isinstance(typed, str) else typed)]


def _read(word: str) -> Pretrained:
    name, _, file = word.partition("@")
    library, colon, arch = name.partition(":")
    if not colon:
        library, arch = (
            next((known for known in LIBRARIES if name.partition(".")[0] in architectures(known)), "timm"),
            name,
        )
    if library not in LIBRARIES or not arch:
        raise UserError(f"models=[{word}]: must be timm:NAME or torchvision:NAME, with @FILE for weights of your own")
    check_arch(library, arch, f"models=[{word}]")
    path = Path(file).expanduser()
    if file and not path.is_file():
        raise UserError(f"models=[{word}]: {file}: no such file of weights")
    return Pretrained(library, arch, str(path) if file else None)


def usual() -> list[Pretrained]:
    """Those of USUAL whose weights lie on this machine already, so that nothing is downloaded unasked."""
    known = [Pretrained(*word.split(":")) for word in USUAL]
    return [one for one in known if one.arch in architectures(one.library) and _is_at_hand(one)]


def _is_at_hand(one: Pretrained) -> bool:
    with suppress(Exception):  # whatever a library raises where its cache cannot be read
        if one.library == "torchvision":
            import torch
            from torchvision.models import get_model_weights

            url = get_model_weights(one.arch).DEFAULT.url
            return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2]).is_file()
        from huggingface_hub import try_to_load_from_cache
        from timm.models import get_pretrained_cfg

        own: Any = get_pretrained_cfg(one.arch)

        names = ("model.safetensors", "pytorch_model.bin")
        return any(isinstance(try_to_load_from_cache(own.hf_hub_id, name), str) for name in names)
    return False


def why_not(one: Pretrained, image_size: int, classes: int) -> str | None:
    """Why its weights cannot be had for images of this size, and how to bring them, in a line; None if they can."""
    from vitbench.models.build import build_model
    from vitbench.runs.origin import Origin
    from vitbench.training.transfer import begin

    try:
        model: Any = build_model(
            one.library, image_size=image_size, channels=3, num_classes=classes, arch=one.arch, mean=None, std=None
        )
        model.check_images()
        if one.file:
            origin = Origin(one.file, "file", one.file, Path(one.file))
        else:
            origin = Origin(PRETRAINED, one.library, one.arch)
        begin(model, origin, head="new", classes=())
    except UserError as error:
        again = f"models=[{one.library}:{one.arch}@FILE]"
        return str(error).replace("init=FILE", again).removeprefix(f"init={PRETRAINED}: ")
    return None
