"""Loads pretrained weights into a model.

It translates the names of tensors of other libraries, interpolates position tables to another grid, keeps or replaces
the head, and can freeze all but the head.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitbench.errors import UserError
from vitbench.machine.disk import checksum
from vitbench.models.build import of_record
from vitbench.models.families import check_arch
from vitbench.models.library import NET, Network, adapted, fetched_pretrained, head_prefixes, quiet
from vitbench.models.weights import check_kinds, is_short, read_safetensors, read_state_dict, reason_of
from vitbench.numbers.words import printable
from vitbench.pe.base import PositionEncoding
from vitbench.runs.origin import Origin
from vitbench.runs.record import Beginning, Record
from vitbench.runs.run import Run
from vitbench.training import checkpoint

# Patterns for the names of tensors in timm's and torchvision's ViTs, and our names. Our ResNets have torchvision's
# names.
NAMES = {
    r"patch_embed\.proj\.": "patch_embed.",
    r"pos_embed$": "pe.table",
    r"conv_proj\.": "patch_embed.",
    r"class_token$": "cls_token",
    r"encoder\.pos_embedding$": "pe.table",
    r"encoder\.layers\.encoder_layer_(\d+)\.": r"blocks.\1.",
    r"encoder\.ln\.": "norm.",
    r"heads\.head\.": "head.",
    r"head_dist\.": "head.dist.",
}
IN_BLOCK = {
    r"ln_([12])\.": r"norm\1.",
    r"self_attention\.in_proj_": "attn.qkv.",
    r"self_attention\.out_proj\.": "attn.proj.",
    r"mlp\.0\.": "mlp.fc1.",
    r"mlp\.3\.": "mlp.fc2.",
    r"mlp\.linear_([12])\.": r"mlp.fc\1.",
}


def trained(folder: Path, record: Record, step: int | None = None) -> Any:
    """Returns the network of a run on the CPU, as it was after training or after a step that `keep` names.

    Raises UserError if its weights are missing, damaged, or of another run or model.
    """
    path = Run(folder, {}).weights(step)
    model = of_record(record)
    checkpoint.fit_tensors(model, checkpoint.weights_of(record["id"], path), path)
    return model


def begin(model: nn.Module, origin: Origin, *, head: str, classes: Sequence[str]) -> Beginning:
    """Loads the weights of `origin` into a model with random weights; with head="new", the head stays random.

    Returns the record's entry about it. Raises UserError if the classes differ, or if a tensor is missing, unknown or
    of another shape.
    """
    tensors, sha256, their_classes = read_weights(origin, model)
    tensors = {name: value.float() if is_short(value) else value for name, value in tensors.items()}
    own = model.state_dict()
    if origin.source != "run":
        tensors = {name if name in own else renamed(name): value for name, value in tensors.items()}
    prefix = head_prefixes(model)
    if head == "new":
        tensors = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
    elif their_classes is not None and their_classes != tuple(classes):
        raise UserError(
            f"init={origin.typed}: its classes are {_listed(their_classes)}, this run's are {_listed(classes)}; "
            "head=new draws a new head"
        )
    shapes = {name: value.shape for name, value in tensors.items()}
    for path, pe in model.named_modules():
        if isinstance(pe, PositionEncoding):
            its = f"{path}."
            tables = {name.removeprefix(its): value for name, value in tensors.items() if name.startswith(its)}
            tensors |= {f"{its}{name}": value for name, value in pe.carried(tables).items()}
    needed = {name: value for name, value in own.items() if head != "new" or not name.startswith(prefix)}
    _check_fit(needed, tensors, origin.typed, prefix)
    model.load_state_dict(tensors, strict=False)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    kept = sum(size for name, size in sizes.items() if name in tensors)
    return {
        "source": origin.source,
        "name": origin.name,
        "sha256": sha256,
        "interpolated": [name for name in tensors if tensors[name].shape != shapes[name]],
        "kept_parameters": kept,
        "new_parameters": sum(sizes.values()) - kept,
    }


def beginning(origin: Origin, kept: int) -> Beginning:
    """Returns the record's entry about a branch, which takes over the whole state of a run with `kept` parameters."""
    assert origin.path is not None
    return {
        "source": origin.source,
        "name": origin.name,
        "sha256": checksum(origin.path),
        "interpolated": [],
        "kept_parameters": kept,
        "new_parameters": 0,
    }


def freeze(model: Any) -> None:
    """Freezes all but the head.

    The frozen part gets no gradients. It is also set to evaluation mode, so that batch norm keeps its statistics and
    dropout does nothing. `model.train()` undoes the latter, so call this function again after it.
    """
    for module in model.children():
        if module is not model.taps["head"]:
            module.eval()
    for module in model.heads if isinstance(model, Network) else ():
        module.train(model.training)
    prefix = head_prefixes(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(prefix))


def _listed(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - 3} more" if len(classes) > 3 else ""
    return printable(", ".join(classes[:3])) + more


def _check_fit(needed: Mapping[str, Tensor], tensors: Mapping[str, Tensor], typed: str, head: tuple[str, ...]) -> None:
    """Raises UserError unless the tensors are those that are needed. It names the first wrong tensor.

    `typed` is the text after init=. `head` has the prefixes of the head's names.
    """

    def shape(those: Mapping[str, Tensor], name: str) -> str:
        return str(tuple(those[name].shape)) if name in those else "not"

    # Old files lack batch norm's count of batches. Only a cumulative mean over batches needs it, and no model has one.
    compared = [name for name in needed if name in tensors or not name.endswith("num_batches_tracked")]
    check_kinds(needed, tensors, f"init={typed}")
    unfit = [name for name in compared if name not in tensors or tensors[name].shape != needed[name].shape]
    wrong = unfit + sorted(name for name in tensors if name not in needed)
    if not wrong:
        return
    first, fitting = wrong[0], len(compared) - len(unfit)
    if all(name.startswith(head) for name in wrong):
        K = next(iter(needed[name].shape[0] for name in needed if name.startswith(head)))
        what = f"for {len(tensors[first]):,} classes" if first in tensors else "without a head"
        raise UserError(f"init={typed}: is {what}, and this run has {K:,} classes; head=new draws a new head")
    raise UserError(
        f"init={typed}: is from another model: {printable(first.removeprefix(NET))[:80]} is {shape(tensors, first)} "
        f"there and {shape(needed, first)} here; {fitting} of {len(compared)} tensors fit"
    )


# ----------------------------------------------------------------------------------------------------------- reading


def read_weights(
    origin: Origin, model: nn.Module | None = None
) -> tuple[dict[str, Tensor], str, tuple[str, ...] | None]:
    """Returns the tensors by the names they have at the origin, a SHA-256, and the classes if they are known.

    The SHA-256 is that of the file, or of the tensors if a library gave them. If `model` is a network of a library, the
    library converts its own weights and files, and the names are those of `model`.
    """
    if isinstance(model, Network) and origin.source != "run":
        return _weights_for_network(origin, model)
    if origin.path is None:
        tensors = fetched(origin.source, origin.name)
        return tensors, checkpoint.digest(tensors), None
    if origin.source == "file":
        tensors, about = _read_file(origin.path, origin.typed)
        return tensors, checksum(origin.path), _classes_of(about, origin.typed)
    return checkpoint.weights_of(origin.name, origin.path), checksum(origin.path), origin.classes


def _read_file(path: Path, typed: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors of a safetensors file. If vitbench wrote it, checks its checksum and returns its metadata."""
    tensors, metadata = read_safetensors(path, f"init={typed}")
    return checkpoint.load_tensors(path) if "vitbench" in metadata else (tensors, {})


def _classes_of(about: Mapping[str, Any], typed: str) -> tuple[str, ...] | None:
    """Returns the classes in the metadata of a file that vitbench wrote; None if it names none."""
    classes = about.get("classes")
    if classes is None:
        return None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"init={typed}: is damaged: its classes are not a list of names")
    return tuple(classes)


def _weights_for_network(origin: Origin, model: Network) -> tuple[dict[str, Tensor], str, tuple[str, ...] | None]:
    classes = None
    if origin.path is None:
        tensors = fetched_pretrained(model)
        return {f"{NET}{name}": value for name, value in tensors.items()}, checkpoint.digest(tensors), None
    if origin.path.suffix == ".safetensors":
        tensors, about = _read_file(origin.path, origin.typed)
        classes = _classes_of(about, origin.typed)
    else:
        tensors = read_state_dict(origin.path, f"init={origin.typed}")
    if not _is_ours(tensors):
        tensors = {f"{NET}{name}": value for name, value in adapted(model, tensors).items()}
    return tensors, checksum(origin.path), classes


def _is_ours(tensors: Mapping[str, Tensor]) -> bool:
    """Returns whether all names have the prefix that a library's network has in files of vitbench."""
    return bool(tensors) and all(name.startswith(NET) for name in tensors)


def fetched(library: str, name: str) -> dict[str, Tensor]:
    """Returns a library's pretrained weights, which the library takes from its cache or downloads."""
    typed = f"init={library}:{name}"
    models = library_of(library, name, typed)
    try:
        with quiet():
            if library == "torchvision":
                choice = models.get_model_weights(name).DEFAULT
                weights = choice.get_state_dict(progress=False, check_hash=True, weights_only=True)
            else:
                weights = models.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # a library's download may raise anything
        raise UserError(
            f"{typed}: {library} could not fetch its weights ({reason_of(error, 160)}); if this machine has them in a "
            "file, type init=FILE.safetensors"
        ) from None
    return {key: value for key, value in weights.items() if torch.is_tensor(value)}


def renamed(name: str) -> str:
    """Returns our name of a tensor, from its name in timm or torchvision."""
    for pattern, ours in NAMES.items():
        name, replaced = re.subn(f"^{pattern}", ours, name)
        if replaced:
            break
    block = re.match(r"blocks\.\d+\.", name)
    if block is None:
        return name
    rest = name[block.end() :]
    for pattern, ours in IN_BLOCK.items():
        rest = re.sub(f"^{pattern}", ours, rest)
    return block.group() + rest


def library_of(family: str, name: str, typed: str) -> Any:
    """Returns `torchvision.models` or `timm`.

    Raises UserError, whose line begins with `typed`, if the library has no network of that name.
    """
    check_arch(family, name, typed)
    if family == "torchvision":
        from torchvision import models

        return models
    import timm

    return timm
