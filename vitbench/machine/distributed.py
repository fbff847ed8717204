"""Trains one run in several processes, which torchrun starts. In a run with one process, the functions do nothing.

Every process reads all images, draws the same global batch with the same augmentation, and computes its own rows of it.
DistributedDataParallel averages the gradients. So the number of processes does not change the results, up to the
rounding of sums. Process 0 claims the run, writes and prints. It does its own work through `led`, so that its errors
also end the other processes. Functions that need torch import it.
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
    """Rows that can be sliced: a tensor, or images that are read from a file batch by batch."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


S = TypeVar("S", bound=Sliceable)

# torchrun sets these variables. They are constants, so that compiled code can contain them.
RANK = int(os.environ.get("RANK", 0))
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", 1))
LOCAL_RANK = int(os.environ.get("LOCAL_RANK", 0))
LOCAL_WORLD_SIZE = int(os.environ.get("LOCAL_WORLD_SIZE", 1))

# How long processes wait for one that does not answer. torchrun and gloo notice at once if one is killed.
PATIENCE = timedelta(minutes=10)  # the process may be compiling or saving
DECODING_PATIENCE = timedelta(days=1)  # the process may be decoding images
MESSAGE_SECONDS = 10  # how long the other processes wait until process 0 has printed why all end


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
            f"another of the {WORLD_SIZE} processes has ended (its own message or torchrun's says why); repeat the "
            "command to continue from the last save"
        )
        if RANK == 1:  # process 0 may be the one that has ended
            print(f"vitbench: {message}", file=sys.__stderr__)
        raise RunFailed(message) from None
    dist.destroy_process_group()


def lost(error: BaseException) -> bool:
    """Returns whether an error means that another process has ended, for which gloo raises a plain RuntimeError."""
    if WORLD_SIZE == 1:
        return False
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def check_batch(batch_size: int) -> None:
    if batch_size % WORLD_SIZE:
        below = batch_size - batch_size % WORLD_SIZE
        sizes = " or ".join(str(size) for size in (below, below + WORLD_SIZE) if size)
        raise UserError(
            f"optim.batch_size={batch_size}: is divided among the {WORLD_SIZE} processes of torchrun and must be a "
            f"multiple of {WORLD_SIZE}; {sizes} works"
        )


# ------------------------------------------------------------------------------------------------------ deciding as one


def led(call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Makes the call in process 0 only. All processes return its value or raise its UserError."""
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
    """Enters the context in process 0 only. If this raises UserError, all processes raise it."""
    with ExitStack() as stack:
        led(lambda: bool(stack.enter_context(context)))
        yield


def all_or_none(call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Makes the call in every process. If some raise UserError, all raise that of the lowest rank.

    The first process of each machine makes it first: it decodes images with a progress bar, and the others find them
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
    """Returns the largest number of all processes, so that all make the same decision. None counts as 0."""
    if WORLD_SIZE == 1:
        return number
    import torch
    import torch.distributed as dist

    largest = torch.tensor(number or 0)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


# ----------------------------------------------------------------------------------------------------- sharing the work


def replicated(model: nn.Module) -> nn.Module:
    """Wraps the model so that gradients are averaged over the processes. Its batch norm covers the global batch."""
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
    """Returns this process's contiguous part of a global batch or split. The last parts may be shorter or empty."""
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
    """Silences all processes but process 0, which prints for all. Tracebacks are still printed by each process."""
    if RANK:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        sys.excepthook = lambda *error: traceback.print_exception(*error, file=sys.__stderr__)


def let_process_0_speak(code: int) -> None:
    """Delays a failing process until process 0 has printed, because torchrun ends all processes when one fails."""
    if RANK and code:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
        time.sleep(MESSAGE_SECONDS)
