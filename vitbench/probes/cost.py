"""Measures what a network costs: parameters, multiply-adds, images a second and memory, by image size and batch.

    cost        at the images' own size: parameters; multiply_adds; attention_share, the share of these in the two
                products of attention, which grow with the square of the tokens; tokens, where the network has any; and
                with `batch` images inference_images_per_second, training_images_per_second (forward, backward and a
                step of plain SGD) and peak_memory in bytes
    cost.size   the same without parameters, against the image's width, `at` px
    cost.batch  speeds and memory, against the batch, `at` images

Multiply-adds are counted as in a run's record (vitbench/models/build.py). A speed is the median of five timed windows
after a warm-up, with the device synchronised; a window repeats a step for about a twentieth of a second. Peak memory is
that of a training step: weights, gradients, activations and temporary memory of layers
(vitbench/machine/peak_memory.py). The seed has no effect. Speeds can be compared only where files name the same
hardware and no other program was running.

Where the network does not take a size (for example a ViT from outside with a fixed grid), the row of its speed is NaN
and says why.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vitbench.errors import UserError
from vitbench.machine.peak_memory import peak_of_step
from vitbench.probes.distorted import patch_size
from vitbench.probes.subject import Row, Subject, make_row

WINDOWS = 5  # timed windows, of which the median counts
WINDOW_SECONDS = 0.05
# the operators of attention begin with these words
PRODUCTS = ("bmm", "baddbmm", "_scaled_dot_product", "_flash_attention", "_efficient_attention")


def probe(
    subject: Subject,
    *,
    seed: int,
    batch: int = 8,
    sizes: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0),
    batches: tuple[int, ...] = (1, 8, 64),
) -> list[Row]:
    """Measures with `batch` images at `sizes`, multiples of the images' own width, and with `batches` at that width.

    Raises UserError where one of them is not above 0.
    """
    if min((batch, *batches)) < 1 or min(sizes, default=1.0) <= 0:
        raise UserError("probe.cost: batch, batches and sizes must be above 0")
    model = copy.deepcopy(subject.model)  # training changes its weights and statistics
    own = subject.images.shape[-1]
    widths = [max(1, round(own * factor)) for factor in sizes]
    costs: dict[tuple[int, int], dict[str, float] | str] = {}
    for width, count in dict.fromkeys([(own, batch), *((w, batch) for w in widths), *((own, b) for b in batches)]):
        try:
            costs[width, count] = _counted(model, subject, width) | _measured(model, subject, width, count)
        except (UserError, RuntimeError, AssertionError, ValueError) as error:
            why = " ".join(str(error).split())[:120]
            costs[width, count] = f"the network does not take {count} images of {width} px: {why}"
    rows = [make_row("cost@v1", "parameters", sum(parameter.numel() for parameter in model.parameters()))]
    rows += _rows("cost@v1", costs[own, batch])
    for width in widths:
        rows += _rows("cost.size@v1", costs[width, batch], at=width, at_unit="px")
    for count in batches:
        batch_rows = _rows("cost.batch@v1", costs[own, count], at=count, at_unit="images")
        rows += [row for row in batch_rows if row["metric"] not in ("multiply_adds", "attention_share", "tokens")]
    return rows


def _rows(protocol: str, costs: dict[str, float] | str, **where: Any) -> list[Row]:
    """Makes a row for each cost, or one with the reason why nothing could be measured."""
    if isinstance(costs, str):
        return [make_row(protocol, "inference_images_per_second", math.nan, reason=costs, **where)]
    return [make_row(protocol, metric, value, **where) for metric, value in costs.items()]


def _counted(model: nn.Module, subject: Subject, width: int) -> dict[str, float]:
    """Counts without computing: on the meta device, in training mode, with two images (as `models.build.cost`)."""
    shape = (2, subject.images.shape[1], width, width)
    on_meta = copy.deepcopy(model).to("meta").train()
    with FlopCounterMode(display=False) as counter:
        on_meta(torch.empty(shape, device="meta"))
    operators = {str(operator): flops for operator, flops in counter.get_flop_counts()["Global"].items()}
    total = sum(operators.values())
    attention = sum(flops for name, flops in operators.items() if name.partition(".")[2].startswith(PRODUCTS))
    patch = patch_size(model)
    tokens = {} if patch is None else {"tokens": float((width // patch) ** 2)}
    return {"multiply_adds": total / 4, "attention_share": attention / total if total else 0.0} | tokens


def _measured(model: nn.Module, subject: Subject, width: int, count: int) -> dict[str, float]:
    """Measures speeds and memory with `count` images of a width."""
    shape = (count, subject.images.shape[1], width, width)
    images = subject.normalise.values(torch.zeros(shape, dtype=torch.uint8, device=subject.images.device))
    labels = torch.arange(count, device=images.device) % subject.num_classes

    def infer() -> None:
        with torch.inference_mode():
            model(images)

    def train() -> None:
        logits = model(images)
        heads = logits if isinstance(logits, tuple) else (logits,)  # with a distillation token there are two
        torch.stack([F.cross_entropy(head, labels) for head in heads]).sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=1e-9)  # costs as much as a step and changes almost nothing
                    parameter.grad = None

    model.eval()
    inference = _speed(infer, images)
    if count > 1:  # batch norm cannot train on one value for each channel
        model.train()
    training = _speed(train, images)
    peak = peak_of_step(train, [*model.parameters(), *model.buffers(), images], images.device)
    model.eval()
    return {
        "inference_images_per_second": inference,
        "training_images_per_second": training,
        "peak_memory": float(peak),
    }


def _speed(step: Callable[[], None], images: Tensor) -> float:
    """Returns images a second: the median of WINDOWS windows, each with as many steps as fill WINDOW_SECONDS."""

    def seconds(steps: int) -> float:
        _synchronise(images)
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        _synchronise(images)
        return time.perf_counter() - begin

    steps = max(1, math.ceil(WINDOW_SECONDS / max(seconds(1), 1e-6)))  # a warm-up step says how many fit
    return len(images) * steps / median(seconds(steps) for _ in range(WINDOWS))


def _synchronise(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
