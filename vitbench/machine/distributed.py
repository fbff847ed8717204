"""One run in several processes, which torchrun starts. The functions here do nothing where a run has one process.

Every process reads all the images, draws the same global batch with the same augmentation, and computes its own rows of
it; DistributedDataParallel averages the gradients. So the number of processes is a matter of hardware: up to the
rounding of sums, the numbers are those of one process. Process 0 claims the run, writes and prints. What it does alone
goes through `led`, so that an error of its own ends the others too. Functions that need torch import it.
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
    """Rows that can be sliced: a tensor, or images that come from a file a batch at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


S = TypeVar("S", bound=Sliceable)

# torchrun sets these; as constants they can be part of compiled code
RANK = int(os.environ.get("RANK", 0))
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", 1))
LOCAL_RANK = int(os.environ.get("LOCAL_RANK", 0))
LOCAL_WORLD_SIZE = int(os.environ.get("LOCAL_WORLD_SIZE", 1))

# How long processes wait for a silent one. torchrun and gloo notice at once when one is killed.
PATIENCE = timedelta(minutes=10)  # the silent one may compile or save
DECODING_PATIENCE = timedelta(days=1)  # the silent one may decode images
MESSAGE_SECONDS = 10  # how long the others wait until process 0 has printed why all end


# -------------------------------------------------------------------------------------------------- the process group


@contextmanager
def joined() -> Iterator[None]:
    """Joins the processes of a run in torch's process group, with gloo for tensors on the CPU and NCCL for GPUs."""
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
        if RANK == 1:  # process 0 may be the one that has gone
            print(f"vitbench: {message}", file=sys.__stderr__)
        raise RunFailed(message) from None
    dist.destroy_process_group()


def lost(error: BaseException) -> bool:
    """Whether an error says that another process has gone, for which gloo raises a plain RuntimeError."""
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


# ------------------------------------------------------------------------------------------------------ deciding as one


def led(call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Makes the call in process 0 alone; all processes return its value or raise its UserError."""
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
    """Enters the context in process 0 alone; where that raises UserError, all processes raise it."""
    with ExitStack() as stack:
        led(lambda: bool(stack.enter_context(context)))
        yield


def all_or_none(call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Makes the call in every process; where any raises UserError, all raise that of the lowest rank.

    The first process of each machine goes first: it decodes images, with a progress bar, and the others find them
    decoded.
    """
    if WORLD_SIZE == 1:
        return call(*arguments, **options)
    import torch.distributed as dist

    group: Any = dist.new_group(backend="gloo", timeout=DECODING_PATIENCE)
    value: Any = None
    for first_processes in (True, False):
        raised: UserError | None = None
        errors: list[UserError | None] = [None] * WORLD_SIZE
        if (LOCAL_RANK == 0) is first_processes:
            try:
                value = call(*arguments, **options)
            except UserError as error:
                raised = error
        dist.all_gather_object(errors, raised, group)
        for error_of_rank in errors:
            if error_of_rank is not None:
                raise error_of_rank
    return value


def agreed(number: int | None) -> int | None:
    """The largest number of any process, so that all decide alike after the same step; None counts as 0."""
    if WORLD_SIZE == 1:
        return number
    import torch
    import torch.distributed as dist

    largest = torch.tensor(number or 0)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


# ----------------------------------------------------------------------------------------------------- sharing the work


def replicated(model: nn.Module) -> nn.Module:
    """Wraps the model, whose gradients become means over the processes; its batch norm covers the global batch."""
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


def mine(rows: S) -> S:
    """This process's contiguous part of a global batch or split; the last parts may be shorter or empty."""
    if WORLD_SIZE == 1:
        return rows
    part_size = -(-len(rows) // WORLD_SIZE)
    return cast("S", rows[RANK * part_size : (RANK + 1) * part_size])


def gathered(part: Tensor, total: int) -> Tensor:
    """Reverses `mine`: every process gets the `total` rows in order."""
    if WORLD_SIZE == 1:
        return part
    import torch
    import torch.distributed as dist

    part_size = -(-total // WORLD_SIZE)
    padded = part.new_zeros(part_size, *part.shape[1:])
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


# --------------------------------------------------------------------------------------------- one voice, one exit code


def hush() -> None:
    """Silences all processes but process 0, which prints for all; a traceback is still printed by each."""
    if RANK:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        sys.excepthook = lambda *error: traceback.print_exception(*error, file=sys.__stderr__)


def let_process_0_speak(code: int) -> None:
    """Delays a failing process until process 0 has printed, because torchrun ends all when the first one fails."""
    if RANK and code:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
        time.sleep(MESSAGE_SECONDS)
