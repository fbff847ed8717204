"""What vitbench's functions do (vitbench/__init__.py): they run commands in the process of a notebook or a script.

A command gets the words of a command line, made of keyword arguments. Its errors become exceptions, and it leaves the
process as it was.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench import cli
from vitbench.errors import RunFailed, TryAgain, UserError, check_choice
from vitbench.machine.interrupt import Stopped
from vitbench.machine.redact import redacted
from vitbench.machine.terminal import output_escaped
from vitbench.menu import look_up
from vitbench.settings.typed_text import word_of

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from vitbench.fitting.findings import Report
    from vitbench.runs.record import Record

ONE_AT_A_TIME = threading.Lock()  # a command has the process to itself, so calls of several threads wait for each other
COMPUTING = {"train", "sweep", "probe"}  # these commands set torch's threads, switches and random numbers


def train(settings: Mapping[str, Any]) -> Record:
    records: list[Record] = []

    def main(config: Any) -> int:
        from vitbench.runs.records import divergence_of, find_record
        from vitbench.runs.run import Run
        from vitbench.settings.check import check
        from vitbench.settings.compose import as_settings

        code = main_of("train")(config)
        record = find_record(Run.of(check(as_settings(config))).folder)
        if record["status"] == "diverged":
            raise RunFailed(f"{record['id']}: {divergence_of(record)}")
        records.append(record)
        return code

    call("train", settings, main)
    return records[-1]


def sweep(settings: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    call("sweep", settings, main_of("sweep"))
    try:
        return runs(settings.get("study"), settings.get("runs", "runs"), None)
    except UserError as error:
        print(f"vitbench: {error}", file=sys.stderr)
        return pd.DataFrame()


def runs(study: str | Path | None, folder: str | Path, where: Mapping[str, Any] | None) -> pd.DataFrame:
    import pandas as pd

    frames: list[pd.DataFrame] = []

    def main(config: Any) -> int:
        from omegaconf import OmegaConf

        from vitbench.comparing.evidence import choose_runs, columns_and_rows
        from vitbench.numbers.words import printable
        from vitbench.runs.study import load_study

        asked: Any = OmegaConf.to_container(config, resolve=True)
        its_study = load_study(asked["study"]) if asked["study"] is not None else None
        selected = choose_runs(asked["runs"], asked["where"], its_study)
        for note in selected.notes:
            print(f"vitbench: {printable(note)}", file=sys.stderr)
        columns, rows = columns_and_rows(selected)
        frames.append(pd.DataFrame(rows, columns=columns))
        return 0

    if where is not None and not isinstance(where, Mapping):
        raise UserError(f"where={where!r}: must be a mapping, such as {{'model': 'vit'}}")
    call("table", {"study": study, "runs": folder, "where": where or {}}, main)
    return frames[-1]


def load(run_id: str, runs: str | Path) -> tuple[nn.Module, dict[str, Any], Record]:
    from vitbench.machine.hardware import torch_kept
    from vitbench.runs.records import find_record
    from vitbench.training.transfer import trained

    if not isinstance(run_id, str) or not isinstance(runs, str | Path) or Path(run_id).name != run_id:
        raise UserError(f"load({run_id!r}, runs={runs!r}): takes a run's id and the folder of the runs")
    folder = Path(runs).expanduser() / run_id
    record = find_record(folder)
    with ONE_AT_A_TIME, torch_kept():
        return trained(folder, record).eval(), record["config"], record


def fit(settings: Mapping[str, Any]) -> Fit:
    found: list[Fit] = []

    def main(config: Any) -> int:
        from omegaconf import OmegaConf

        from vitbench.comparing.formats import TABLE_ENDINGS
        from vitbench.fitting.fit import find

        asked: Any = OmegaConf.to_container(config, resolve=True)
        check_choice("format", asked["format"], TABLE_ENDINGS.values())
        found.append(Fit(find(asked), asked["format"]))
        return 0

    call("fit", settings, main)
    return found[-1]


@dataclass(frozen=True, repr=False)
class Fit:
    """What `vitbench.fit` finds. `print` prints it as the command line does; notebooks show it with its tables."""

    report: Report  # vitbench/fitting/findings.py: curves and pairs
    form: str = "text"  # `format=`: how it is printed

    @cached_property
    def sentences(self) -> dict[str, list[str]]:
        """What is said of each pair of curves, by its title; the first sentence is the verdict."""
        from vitbench.fitting.render import report_sentences

        return dict(report_sentences(self.report))

    @cached_property
    def notes(self) -> list[str]:
        """What weakens the comparison, what to run next, and notes on the runs."""
        from vitbench.fitting.render import report_foot

        return [*self.report.warnings, *self.report.rises, *report_foot(self.report)]

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by their names, curves, sizes, pairs and so on, with the cells that are printed."""
        import pandas as pd

        from vitbench.fitting.tables import report_tables

        return {table.name: pd.DataFrame(table.lines, columns=table.head) for table in report_tables(self.report)}

    @cached_property
    def numbers(self) -> pd.DataFrame:
        """Every number in a row of its own, as `format=csv` has them."""
        import pandas as pd

        from vitbench.fitting.export import HEAD, number_rows

        return pd.DataFrame(number_rows(self.report), columns=HEAD)

    def __repr__(self) -> str:
        return self._rendered(self.form)

    def _repr_markdown_(self) -> str:
        return self._rendered("md")

    def _rendered(self, form: str) -> str:
        from vitbench.fitting.render import render_report

        return render_report(form, self.report)


def probe(settings: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    rows: list[dict[str, Any]] = []

    def main(config: Any) -> int:
        from vitbench.probing.probe import measure
        from vitbench.runs import probe_rows as files

        jobs, refused = measure(config)
        if refused:
            raise _joined(refused)
        measured = {files.path_of(job.folder, name, job.checkpoint): (job, name) for job in jobs for name in job.probes}
        for path, (job, name) in measured.items():
            if path.is_file():  # there is none where probe=all has a probe that does not apply to the network
                called = {"id": job.folder.name, "probe": name, "checkpoint": job.checkpoint}
                its_rows = files.read_rows(path)
                rows.extend({**called, "column": files.column(row, job.checkpoint), **row} for row in its_rows)
        return 0

    call("probe", settings, main)
    return pd.DataFrame(rows)


def _joined(refused: list[UserError]) -> UserError:
    """One error for all that was refused, of the kind that has the highest exit code."""
    worst = max(refused, key=lambda error: error.exit_code)
    others = f"; {len(refused) - 1} more were refused, and lines above say why" if len(refused) > 1 else ""
    return type(worst)(f"{worst}{others}")


# ------------------------------------------------------------------------------------------------- running a command


def main_of(command: str) -> Callable[[Any], int]:
    return look_up("command", command, cli.COMMANDS)


def call(command: str, settings: Mapping[str, Any], main: Callable[[Any], int]) -> None:
    """Runs a command in this process, with `main` in place of its own; raises what the command line would print."""
    refused: list[UserError] = []
    refuse = cli.print_refusal if command == "sweep" else refused.append  # a sweep sends the job to other processes
    try:
        with ONE_AT_A_TIME, output_escaped(), _process_kept(command in COMPUTING), cli.slips_told():
            cli.run_with_hydra(command, main, words_of(settings), refuse)
    except UserError as error:
        refused.append(error)
    except SystemExit:  # a signal
        refused = refused or [TryAgain("ended by a signal, before anything could be saved")]
    if refused:
        raise _for_python(refused[0]) from None


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """The words of a command line that keyword arguments stand for; UserError for those that stand for none."""
    words = []
    for key, value in settings.items():
        if key.startswith("-"):
            raise UserError(f"{key}: flags are for the command line; settings are given key=value")
        if "__" in key:
            raise UserError(
                f"{key}: is no setting; a key with a point is given as **{{{key.replace('__', '.')!r}: ...}}"
            )
        if not isinstance(value, Mapping):
            words.append(word_of(key, value))
        elif key == "where":
            words += [word_of(f"where.{column}", wanted) for column, wanted in value.items()]
        else:
            first = next(iter(value), "KEY")
            raise UserError(f"{key}={{...}}: only where= is a mapping; give **{{'{key}.{first}': ...}}")
    return words


def _for_python(error: UserError) -> BaseException:
    """The exception to raise: its line alone, without the way it took through Hydra, and Ctrl-C as what it is."""
    line = redacted(str(error))
    if isinstance(error, Stopped) and error.number == signal.SIGINT:
        return KeyboardInterrupt(line)
    error.args = (line,)
    return error.with_traceback(None)


@contextmanager
def _process_kept(computes: bool) -> Iterator[None]:
    """Leaves the process as it was: its arguments and environment, Hydra's state, and what a run sets in torch."""
    from hydra.core.global_hydra import GlobalHydra

    arguments, environment, initialized = sys.argv, dict(os.environ), GlobalHydra.instance().hydra
    GlobalHydra.instance().hydra = None  # the caller may have begun something of its own with Hydra

    def give_back() -> None:
        GlobalHydra.instance().hydra, sys.argv = initialized, arguments
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)

    with ExitStack() as stack:
        stack.callback(give_back)
        if computes:
            from vitbench.machine.hardware import torch_kept
            from vitbench.runs.follow import forget_told

            forget_told()
            stack.enter_context(torch_kept())
        yield
