"""The command line: `vitbench COMMAND key=value ...`. Each command is a module, and its settings are a Hydra config.

`--help` is answered without importing anything heavy. A user's slip is answered by one line and an exit code.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

from vitbench import errors
from vitbench.machine.distributed import WORLD_SIZE, hush, let_process_0_speak
from vitbench.machine.redact import redacted
from vitbench.machine.terminal import escape_output
from vitbench.machine.working_folder import leave_working_folder
from vitbench.menu import Choice, look_up
from vitbench.version import __version__

COMMANDS: dict[str, Choice] = {
    "advise": Choice(
        "vitbench.advising.advise:main",
        "which network for your photographs, in words, within minutes: advise data.root=FOLDER",
    ),
    "inspect": Choice(
        "vitbench.inspect:main",
        "your images before training: damaged, copied, mislabelled, dark ones; inspect data.root=FOLDER",
    ),
    "train": Choice(
        "vitbench.training.train:main",
        "one model on a share of a dataset; the same command again resumes or says it is done",
    ),
    "sweep": Choice("vitbench.sweeping.sweep:main", "all runs of a study, finished ones skipped: sweep study=NAME"),
    "watch": Choice("vitbench.sweeping.watch:main", "how a sweep goes, from another terminal: watch study=NAME"),
    "track": Choice(
        "vitbench.runs.track:main",
        "runs for TensorBoard, Trackio or wandb, again as often as one likes: track study=NAME trackers=tensorboard",
    ),
    "probe": Choice(
        "vitbench.probing.probe:main",
        "what a trained network does when its images move, turn or break: probe run=ID, probe study=NAME",
    ),
    "features": Choice(
        "vitbench.probing.features:main",
        "frozen networks compared by linear and nearest-neighbour accuracy, in minutes: features models=[...]",
    ),
    "table": Choice("vitbench.comparing.table:main", "compare runs: mean and 95 % interval over seeds"),
    "plot": Choice("vitbench.plot:main", "accuracy against the number of training images"),
    "fit": Choice(
        "vitbench.fitting.fit:main",
        "learning curves: exponents, where one model overtakes another, what one needs in images",
    ),
    "report": Choice(
        "vitbench.reporting.report:main",
        "results/: a study's runs, tables, figures and verdicts; check=true makes all tables again",
    ),
    "pack": Choice(
        "vitbench.runs.pack:main",
        "runs as one archive for another lab: pack study=NAME; with checkpoints=true their weights, too",
    ),
    "merge": Choice(
        "vitbench.runs.merge:main",
        "the runs of archives join those of runs=, each checked and none replaced: merge from=[a.tar.gz,b.tar.gz]",
    ),
    "predict": Choice(
        "vitbench.using.predict:main", "the classes that a trained network gives images: predict run=ID images=FOLDER"
    ),
    "export": Choice(
        "vitbench.using.export:main", "a trained network for other programs: export run=ID file=network.onnx"
    ),
    "bench": Choice(
        "vitbench.timing.bench:main",
        "speed: vitbench's loop against the bare step and against ImageFolder + DataLoader",
    ),
    "check": Choice(
        "vitbench.upkeep.check:main",
        "is what was kept still as it was written? runs, results, decoded images; repair=true moves damage aside",
    ),
    "doctor": Choice(
        "vitbench.upkeep.doctor:main",
        "is this machine fit? versions, GPUs, limits, folders, locks, variables: what is wrong and what to type",
    ),
    "clean": Choice(
        "vitbench.upkeep.clean:main",
        "what can go: images that no run needs, failed runs, what killed processes left; remove=true removes it",
    ),
    "ls": Choice(
        "vitbench.ls:main", "what there is: ls models | pe | data | objectives | probes | studies | runs | images"
    ),
    "completion": Choice("vitbench.completion:main", "shell completion: completion bash | zsh | fish"),
}
READ_ONLY = {
    "table",
    "plot",
    "fit",
    "report",
    "bench",
    "inspect",
    "check",
    "doctor",
    "clean",
    "pack",
    "merge",
    "watch",
    "track",
}  # these neither train nor probe
OF_ONE_RUN = {"predict", "export"}
WHOLE = {"advise", "features"}  # these plan their runs themselves
PLAIN = {"ls", "completion"}  # these take positional words and have no config
NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "failed to map segment", "std::bad_alloc")

HELP = """\
  vitbench advise data.root=FOLDER                       which network for your photographs, in words, in 30 minutes
  vitbench train model=vit pe=learned                    a ViT on the built-in images
  vitbench train model=resnet data=cifar10 data.fraction=0.1 seed=1
  vitbench sweep study=quickstart hydra/launcher=joblib  27 runs, two at a time on two cores
  vitbench table study=quickstart                        the comparison
  vitbench fit study=quickstart                          learning curves, and where one overtakes another
  vitbench plot study=quickstart file=figures/quickstart.svg
  vitbench predict run=ID images=FOLDER                  the classes of your images, by a trained network

What does a CNN know before it sees data, what must a ViT learn instead, and from how many images on does the
difference stop mattering?

Commands:
{commands}
`vitbench COMMAND --help` lists a command's settings; `vitbench ls` what can be chosen.
Exit codes: 0 done, 1 a run failed or diverged, 2 usage, 3 data, 4 disk, 75 saved or busy: try again,
  130 Ctrl-C, 143 ended before anything could be saved.
"""


def main() -> NoReturn:
    leave_working_folder()
    hush()
    escape_output()
    code = run(sys.argv[1:])
    let_process_0_speak(code)
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    # there is no stdout where the caller has closed it: `vitbench table >&-`
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    try:
        with slips_told():
            code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except errors.UserError as error:
        print_refusal(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("vitbench: stopped", file=sys.stderr)
        return 130
    except SystemExit as end:
        if end.code == 143:
            print("vitbench: ended by a signal, before anything could be saved", file=sys.stderr)
        raise
    except BrokenPipeError:  # the reader has read enough: `vitbench table | head`
        _discard_stdout()
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
            raise
        _discard_stdout()
        print(f"vitbench: cannot write to standard output: {error.strerror}", file=sys.stderr)
        return 4


@contextmanager
def slips_told() -> Iterator[None]:
    """Turns errors of the system that a user can mend, wherever they show, into one line."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise errors.StorageError("the working folder no longer exists; change to another one") from None
    try:
        with memory_told():
            yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG or error.filename is None:
            raise
        typed = os.fsdecode(error.filename)[:60]  # some word was taken for a path
        raise errors.UserError(f"{typed}...: too long for the name of a file") from None


@contextmanager
def memory_told() -> Iterator[None]:
    """Turns the error of a process that may take no more memory, wherever it shows, into one line."""
    try:
        yield
    except (MemoryError, ImportError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        what = (str(error).splitlines() or [type(error).__name__])[0]
        limit = "more memory, or a higher limit where there is one (`ulimit -v`, a job's), is needed"
        raise errors.RunFailed(f"memory ran out ({what}): {limit}") from None


def _discard_stdout() -> None:
    """Points stdout nowhere, because Python would try again to write its buffer when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(argv: list[str]) -> int:
    """Answers --help and --version, and hands all else to the command that was typed."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        lines = (f"  {name:<11}{command.help}\n" for name, command in COMMANDS.items())
        print(HELP.format(commands="".join(lines)), end="")
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"vitbench {__version__}")
        return 0
    command, rest = argv[0], argv[1:]
    if command not in COMMANDS:
        raise errors.UserError(f"{command} is no command: {errors.did_you_mean(command, COMMANDS)}")
    main_of_command = look_up("command", command, COMMANDS)
    if command in PLAIN:
        return int(main_of_command(rest) or 0)
    return run_with_hydra(command, main_of_command, rest)


def _print_help(command: str, typed: Sequence[str], config: Any) -> None:
    from vitbench.explaining.help_page import help_text
    from vitbench.numbers.text import say

    say(help_text(command, config, [word for word in typed if not word.startswith(("-", "hydra"))]))


def print_refusal(error: errors.UserError) -> None:
    print(f"vitbench: {redacted(str(error))}", file=sys.stderr)


def _words_for_hydra(command: str, argv: Sequence[str]) -> list[str]:
    """The words of a command as Hydra takes them; UserError for what the command does not take."""
    from vitbench.settings.overrides import TYPED_FOR, prepare

    arguments = prepare(argv, several=command == "sweep")
    if command in TYPED_FOR:  # model= of a probe names any network, but for Hydra it chooses from the group of models
        split = [word.partition("=") for word in arguments]
        arguments = [TYPED_FOR[command].get(key, key) + equals + value for key, equals, value in split]
    if command in {*READ_ONLY, *OF_ONE_RUN, *WHOLE, "probe"} and {"-m", "--multirun"} & set(arguments):
        takes = "one run" if command in OF_ONE_RUN else "all runs at once"
        raise errors.UserError(f"vitbench {command} has no --multirun; it takes {takes}")
    if WORLD_SIZE > 1 and (command != "train" or {"-m", "--multirun"} & set(arguments)):
        raise errors.UserError(
            f"torchrun shares one run of `vitbench train` among {WORLD_SIZE} processes; type other "
            "commands without it (`vitbench sweep hydra/launcher=joblib` does several runs at a time)"
        )
    stored = "multirun.yaml" if {"-m", "--multirun"} & set(arguments) else ""
    stored = stored or ("the jobs' files" if any("launcher=submitit" in word for word in arguments) else "")
    secret = next((word for word in arguments if redacted(word) != word), None)
    if stored and secret:
        raise errors.UserError(f"{redacted(secret)}: looks like a secret, and would be stored in {stored}")
    return arguments


def run_with_hydra(
    command: str,
    main_of_command: Callable[[Any], int | None],
    argv: Sequence[str],
    refuse: Callable[[errors.UserError], None] = print_refusal,
) -> int:
    """Lets Hydra compose a command's config and run it; what Hydra refuses becomes one line.

    `refuse` gets what a job was refused for; the other jobs of `-m` go on.
    """
    from vitbench.settings.compose import CONF_DIR, register
    from vitbench.settings.overrides import explain

    arguments = _words_for_hydra(command, argv)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints exceptions and ends with code 1, before they reach us
    import hydra
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from vitbench.machine.interrupt import Stopped

    register()
    asks_for_help = bool({"-h", "--help"} & set(arguments))
    if asks_for_help:  # answered below as if by the command itself, of one run and with all settings
        arguments = [word for word in arguments if word not in ("-h", "--help", "-m", "--multirun")]
        arguments += ["hydra.mode=RUN"] if command == "sweep" else []
        main_of_command = partial(_print_help, command, arguments)
    sys.argv = [f"vitbench {command}", *arguments]
    code = 0

    def run_job(config: Any) -> int:
        """Runs one job and handles its errors, because Hydra would print its own line and go on after a signal."""
        nonlocal code
        try:
            with memory_told():
                code = max(code, main_of_command(config) or 0)
        except Stopped as stopped:
            refuse(stopped)
            raise SystemExit(stopped.exit_code) from None
        except (errors.UserError, OmegaConfBaseException) as error:
            if command == "sweep" and isinstance(error, errors.StorageError):
                raise  # nothing could be written down, so the sweep itself has to tell
            refusal = error if isinstance(error, errors.UserError) else explain(error, command, arguments)
            if command != "sweep":  # a sweep tells by itself what its runs wrote down
                refuse(refusal)
            code = max(code, refusal.exit_code)
        return code

    try:
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=command)(run_job)()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
        raise explain(error, command, arguments) from None
    return code
