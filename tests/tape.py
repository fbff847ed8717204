"""What a CUDA graph does, on a CPU: a tape of the calls that reach torch's kernels, replayed at the same addresses.

Whatever Python decided or drew while the tape was made stays as it was, as in a graph, and each result goes into the
memory of the recorded one. So a step that gives the same numbers from a tape as without it can be a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vitbench.machine.hardware import Machine
from vitbench.training import graph

aten = torch.ops.aten
if not torch._C._dispatch_has_kernel_for_dispatch_key("aten::_standard_gamma", "Meta"):  # torch 2.11 lacks the shape
    _OF_SHAPES = torch.library.Library("aten", "IMPL")
    _OF_SHAPES.impl("_standard_gamma", lambda shape, generator=None: torch.empty_like(shape), "Meta")
WAITS = {  # for the device, because the host needs a value, or a shape that values decide
    aten._local_scalar_dense,  # item(), float(), int(), bool()
    aten.bincount,
    aten.equal,
    aten.masked_select,
    aten.nonzero,
    aten.repeat_interleave,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim,
}
COPIES = {aten.lift_fresh}  # to the device, numbers that Python has: torch.tensor([1, 2])
MASKED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class NotReplayable(Exception):
    """No CUDA graph could hold this call."""


class Tape(TorchDispatchMode):
    """Records the calls of a block with the tensors that they returned.

        with Tape() as tape:
            output = function(input)
        tape.replay()  # now `output` is what the same calls return with the random numbers of now

    A replay repeats the calls on the same tensors and copies what they return into the tensors that they returned. All
    that Python computed or drew in the block stays as it was. The inputs are to be kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.places: list[tuple[Tensor, int]] = []  # of what each call was given

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        by_mask = func.overloadpacket in MASKED and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if by_mask or func.overloadpacket in WAITS | COPIES:
            raise NotReplayable(f"{func}{' with a mask' if by_mask else ''}")
        returned = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, returned))
        self.places += [(leaf, leaf.data_ptr()) for leaf in tree_leaves((args, kwargs)) if type(leaf) is Tensor]
        return returned

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that a call returned."""
        return [leaf for *_, returned in self.calls for leaf in tree_leaves(returned) if isinstance(leaf, Tensor)]

    @torch.no_grad()
    def replay(self) -> None:
        assert all(tensor.data_ptr() == place for tensor, place in self.places), "a tensor has moved since"
        for func, args, kwargs, returned in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(returned), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)  # else it is a view, or was changed in place


def use_tapes(patch: pytest.MonkeyPatch) -> list[Tape]:
    """Gives CPUs graphs, which are tapes; returns the list that all of them are added to."""
    tapes: list[Tape] = []

    def record(
        function: Callable[..., Any], inputs: Sequence[Tensor], device: torch.device
    ) -> tuple[Callable[[], None], Any]:
        tapes.append(tape := Tape())
        with tape:
            outputs = function(*inputs)
        replays = iter([lambda: None])  # a tape is made by running the function, so the first replay is done by then
        return lambda: next(replays, tape.replay)(), outputs

    resolved = Machine.of.__func__  # type: ignore[attr-defined]

    def with_graph(cls: type[Machine], *, graph: bool | None = None, **options: Any) -> Machine:
        return replace(resolved(cls, **options), graph=graph is not False)

    patch.setattr(Machine, "of", classmethod(with_graph))
    patch.setattr(graph, "record", record)
    patch.setattr(graph, "warm_up", lambda function, inputs, device: function(*inputs))
    return tapes
