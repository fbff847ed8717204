"""One run in several processes, started by torchrun: the few words that `train` needs for it, idle where there is one.

Every process reads all the images, draws the same global batch with the same augmentation, and computes its own rows;
DistributedDataParallel averages the gradients. So the number of processes is a matter of hardware: up to the rounding
of sums, the numbers are those of one process. Process 0 claims the run, writes and prints; what it alone does goes
through `led`, which is also how its refusals end the others. torch is imported by what needs it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from vitbench.errors import RunFailed, TryAgain, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

P = ParamSpec("P")
T = TypeVar("T")


class Sliceable(Protocol):
    """Rows of which a contiguous part can be taken: a tensor, or images that come from a file a batch at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


Rows = TypeVar("Rows", bound=Sliceable)

# set by torchrun; constants, so that compiled code can hold them
RANK = int(os.environ.get("RANK", 0))
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", 1))
LOCAL_RANK = int(os.environ.get("LOCAL_RANK", 0))
LOCAL_WORLD_SIZE = int(os.environ.get("LOCAL_WORLD_SIZE", 1))

# How long processes wait for one that is silent. One that was killed is noticed at once, by torchrun and in gloo
PATIENCE = timedelta(minutes=10)  # while another compiles or saves
DECODING = timedelta(days=1)  # while another decodes images
TELLING_SECONDS = 10  # until process 0 has said why all end


# ------------------------------------------------------------------------------------------------------ one run, joined


@contextmanager
def joined() -> Iterator[None]:
    """The processes of one run as torch's process group: gloo for what is on the CPU, NCCL for GPUs."""
    if WORLD_SIZE == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TryAgain(f"the {WORLD_SIZE} processes of torchrun did not find each other: {reason}") from None
    try:
        yield
    except RuntimeError as error:
        if not lost(error):
            raise
        message = (
            f"another of the {WORLD_SIZE} processes has gone (its own message or torchrun's says why); repeating "
            "the command goes on from the last save"
        )
        if RANK == 1:  # it may be process 0 that has gone
            print(f"vitbench: {message}", file=sys.__stderr__)
        raise RunFailed(message) from None
    dist.destroy_process_group()


def lost(error: BaseException) -> bool:
    """Whether an error says that another process has gone: gloo raises plain RuntimeErrors."""
    if WORLD_SIZE == 1:
        return False
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def check_batch(batch_size: int) -> None:
    if batch_size % WORLD_SIZE:
        below = batch_size - batch_size % WORLD_SIZE
        sizes = " or ".join(str(size) for size in (below, below + WORLD_SIZE) if size)
        raise UserError(
            f"optim.batch_size={batch_size}: is shared by the {WORLD_SIZE} processes of torchrun and must be "
            f"divisible by {WORLD_SIZE}; {sizes} works"
        )


# -------------------------------------------------------------------------------------------------- deciding as one


def led(call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Process 0 alone makes the call; all return what it returns, or raise the UserError that it raises."""
    if WORLD_SIZE == 1:
        return call(*arguments, **options)
    import torch.distributed as dist

    answer: list[Any] = [None, None]
    if RANK == 0:
        try:
            answer[0] = call(*arguments, **options)
        except UserError as error:
            answer[1] = error
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


@contextmanager
def leading(context: AbstractContextManager[Any]) -> Iterator[None]:
    """Process 0 alone enters the context; if it is refused, so are all."""
    with ExitStack() as stack:
        led(lambda: bool(stack.enter_context(context)))
        yield


def all_or_none(call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Every process makes the call; if it is refused in any, all raise the UserError of the first.

    The first process of each machine goes first: it decodes images, with a progress bar, and the others find them.
    """
    if WORLD_SIZE == 1:
        return call(*arguments, **options)
    import torch.distributed as dist

    group: Any = dist.new_group(backend="gloo", timeout=DECODING)
    value: Any = None
    for turn in (True, False):
        refusal: UserError | None = None
        refusals: list[UserError | None] = [None] * WORLD_SIZE
        if (LOCAL_RANK == 0) is turn:
            try:
                value = call(*arguments, **options)
            except UserError as error:
                refusal = error
        dist.all_gather_object(refusals, refusal, group)
        for first in refusals:
            if first is not None:
                raise first
    return value


def agreed(number: int | None) -> int | None:
    """The largest over the processes, so that all do the same after the same step; None counts as 0."""
    if WORLD_SIZE == 1:
        return number
    import torch
    import torch.distributed as dist

    largest = torch.tensor(number or 0)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


# ----------------------------------------------------------------------------------------------------- sharing the work


def replicated(model: nn.Module) -> nn.Module:
    """The model with gradients that are means over the processes, and batch norm over the global batch."""
    if WORLD_SIZE == 1:
        return model
    from torch.nn import SyncBatchNorm
    from torch.nn.parallel import DistributedDataParallel

    if next(model.parameters()).is_cuda:
        SyncBatchNorm.convert_sync_batchnorm(model)
    else:
        from vitbench.machine.batchnorm import convert

        convert(model)
    return DistributedDataParallel(model)


def mine(rows: Rows) -> Rows:
    """This process's part of a global batch or split: contiguous rows; the last parts can be shorter, or empty."""
    if WORLD_SIZE == 1:
        return rows
    each = -(-len(rows) // WORLD_SIZE)
    return cast("Rows", rows[RANK * each : (RANK + 1) * each])


def gathered(part: Tensor, total: int) -> Tensor:
    """The reverse of `mine`, in every process: each of the `total` rows once and in order."""
    if WORLD_SIZE == 1:
        return part
    import torch
    import torch.distributed as dist

    each = -(-total // WORLD_SIZE)
    padded = part.new_zeros(each, *part.shape[1:])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in range(WORLD_SIZE)]
    dist.all_gather(parts, padded)
    return torch.cat(parts)[:total]


def average(values: Tensor) -> None:
    """Replaces a tensor by its mean over the processes."""
    if WORLD_SIZE > 1:
        import torch.distributed as dist

        dist.all_reduce(values)
        values /= WORLD_SIZE


# ------------------------------------------------------------------------------------------- one voice, one exit code


def hush() -> None:
    """Process 0 speaks for all; of the others one hears what nobody foresaw, a traceback."""
    if RANK:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        sys.excepthook = lambda *error: traceback.print_exception(*error, file=sys.__stderr__)


def let_process_0_speak(code: int) -> None:
    """Holds an exit code back until process 0 has ended: torchrun ends all processes when the first one fails."""
    if RANK and code:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
        time.sleep(TELLING_SECONDS)
