"""Rules of training for networks of timm and torchvision: how images are normalised, and when a batch can be split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vitbench.data.loader import Normalise
from vitbench.data.stream import Stream
from vitbench.models.library import Input, Network, of_channels
from vitbench.models.refusals import refuse_parts
from vitbench.runs.origin import Origin
from vitbench.settings.compose import flatten


def refuse_parts_of_batch(settings: Mapping[str, Any], model: Network) -> None:
    """Refuses `machine.microbatch` if batch norm or dropout would make the results depend on the parts of a batch."""
    alike = not any(
        isinstance(module, _BatchNorm) or (isinstance(module, nn.Dropout) and module.p) for module in model.modules()
    )
    if settings["freeze"] != "backbone" and not alike:
        refuse_parts(flatten(settings), model.typed)


def normalise_of(
    images: Tensor | Stream, model: Any, origin: Origin | None, places: NDArray[Any] | None
) -> tuple[Normalise, list[str]]:
    """Returns the normalisation of the images, and a line about it unless it is that of the run's training images.

    A network of a library keeps the mean and the standard deviation of its pretraining, because the same weights with
    another normalisation are another network. If it starts from a run, or from a file of a run's weights, it keeps
    those of that run. model.mean and model.std override both.
    """
    own = Normalise.of(images, model.channels_last, places)
    if not isinstance(model, Network):
        return own, []
    typed_mean, typed_std = model.normalised_by
    expected = None if origin is None else model.own_input
    its = "had them in its training" if origin is None or origin.source != "file" else "is configured in its library"
    if origin is not None and origin.normalised_by is not None:
        known = (of_channels(numbers, images.shape[1]) for numbers in origin.normalised_by)
        expected, its = Input(origin.name, images.shape[-1], *known), "had them in its training"
    mean = typed_mean or (expected.mean if expected else own.mean)
    std = typed_std or (expected.std if expected else own.std)
    if (mean, std) == (own.mean, own.std):
        return own, []
    whose = "as typed" if expected is None or (typed_mean and typed_std) else f"as {expected.name} {its}"
    numbers = " and deviation ".join(f"[{','.join(f'{number:.4g}' for number in each)}]" for each in (mean, std))
    other_size = expected is not None and expected.image_size != images.shape[-1]
    size = f" at {images.shape[-1]} px; it was trained at {expected.image_size} px" if other_size and expected else ""
    note = f"images are normalised {whose}, by mean {numbers}{size}"
    return Normalise(mean, std, images.device, model.channels_last, places), [note]
