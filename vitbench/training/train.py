"""`vitbench train` trains one run in three parts: it prepares, loops over the steps, and finishes."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from vitbench.data.menu import forget
from vitbench.errors import StorageError, TryAgain, UserError
from vitbench.machine.distributed import RANK, WORLD_SIZE, check_batch, joined, leading, led, lost
from vitbench.machine.interrupt import Interrupt, Stopped
from vitbench.machine.progress import progress
from vitbench.runs.images import cannot_be_compared, done, set_aside
from vitbench.runs.origin import find_parents
from vitbench.runs.record import Record
from vitbench.runs.records import divergence_of, loss_of
from vitbench.runs.run import Run
from vitbench.settings.check import check
from vitbench.settings.compose import as_settings

if TYPE_CHECKING:
    from torch import Tensor


def main(config: Any) -> int:
    """Trains or resumes the run of a command line, or says that it is done; returns 0, or 1 if the run diverged."""
    forget()
    return one_run(check(as_settings(config)))


def one_run(settings: dict[str, Any], in_sweep: bool = False) -> int:
    """Does what `main` does, with checked settings. In a sweep it prints nothing; the run's folder has all results."""
    run = Run.of(settings)
    record, done_before = done(run), True
    if not in_sweep and (damage := run.damage()):
        print(
            f"warning: {damage}; the run is trained again, and its old record is kept as record.damaged.json",
            file=sys.stderr,
        )
    if record is not None:
        run.tidy()
    else:
        _refuse_classifier(settings["classifier"])
        check_batch(settings["optim"]["batch_size"])
        with Interrupt() as interrupt, joined(), leading(_claim(run)):
            record = led(done, run)  # another process may have finished it since
            if record is None:
                with failures_written_down(run, in_sweep):
                    record, done_before = train(run, interrupt), False
                    led(run.finish, record)
    if not in_sweep:
        _report(run, record, done_before)
    return 0 if record["status"] == "finished" else 1


@contextmanager
def _claim(run: Run) -> Iterator[None]:
    """Claims a run. If it ended on images that have changed since, its folder is moved aside first."""
    if told := set_aside(run):
        print(told, file=sys.stderr)
    with run.claim():
        yield


def _refuse_classifier(classifier: str) -> None:
    """Refuses a classifier that `vitbench train` does not train."""
    if classifier != "head":
        raise UserError(f"classifier={classifier}: only `vitbench features models=[...]` trains it; drop it")


def train(run: Run, interrupt: Interrupt) -> Record:
    """Trains the run and returns its record. After a signal it saves the run and raises Stopped."""
    parents = led(find_parents, run.settings)  # before torch is imported, and images are decoded

    from vitbench.training.finish import finish
    from vitbench.training.forecast import Forecast
    from vitbench.training.graph import recorded
    from vitbench.training.prepare import prepare

    training = prepare(run, parents)
    training.resume()

    def step(*batch: Tensor) -> None:
        """Does all the work of the device in one step."""
        training.optimizer.zero_grad()
        total: Any = 0.0
        for views, share in training.parts(training.views(*batch)):
            with training.machine.autocast():
                loss = share * training.objective(training.forward, *views)
            loss.backward()
            total += loss.detach()
        training.update(total)

    compute = recorded(step, training.machine)
    interrupt.saves()
    with closing(training.follower):
        with progress(run.id, training.steps, "steps", run.settings["machine"]["progress"]) as display:
            forecast = Forecast(training, display.say)
            while training.goes_on():
                with training.step_told():
                    compute(*training.next_batch())
                training.count_step()
                forecast.after_step()
                training.log_and_save(interrupt)
                display.update(training.step, training.note)
        return finish(training, interrupt)


@contextmanager
def failures_written_down(run: Run, in_sweep: bool) -> Iterator[None]:
    """Writes an error and its traceback into the run's folder.

    A UserError is written there only in a sweep; otherwise the user reads it at once on the terminal.
    """
    try:
        yield
    except Stopped as stopped:
        again = shlex.join([*sys.argv[0].split(), *sys.argv[1:]])
        if in_sweep or WORLD_SIZE > 1:
            again = f"the {'sweep' if in_sweep else 'torchrun command'} repeated"
        raise Stopped(f"{stopped}; to go on: {again}", stopped.number) from None
    except (TryAgain, StorageError):
        raise
    except (KeyboardInterrupt, SystemExit):  # so that `vitbench ls runs` shows that the run was begun
        if RANK == 0:
            run.note_begun()
        raise
    except Exception as error:
        if RANK == 0 and not lost(error) and (in_sweep or not isinstance(error, UserError)):
            run.fail(f"{type(error).__name__}: {error}", traceback.format_exc())
        raise


def _report(run: Run, record: Record, done_before: bool) -> None:
    for warning in record["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if done_before and (told := cannot_be_compared([run])):
        print(f"warning: {told}", file=sys.stderr)
    if record["status"] == "diverged":
        print(f"vitbench: {run.id}: {divergence_of(record)}", file=sys.stderr)
        return
    if done_before and (lost := run.lost()):
        print(
            f"warning: the run had finished without keep=[{','.join(map(str, lost))}]; "
            f"remove {run.folder} to train it again",
            file=sys.stderr,
        )
    result = loss_of(record)  # for objectives that learn no classes
    if record["test_accuracy"] is not None:
        result = f"test accuracy {100 * record['test_accuracy']:.2f} % on {record['test_images']:,} images"
    print(
        f"{run.id}: finished, {result} after {record['steps']:,} steps on {record['train_images']:,}, "
        f"{record['train_seconds']:.0f} s" + (": nothing to do" if done_before else "")
    )
