"""The command line: `vitbench COMMAND key=value ...`. Each command is a module, and its settings are a Hydra config.

`vitbench --help` imports nothing heavy. A user's slip is answered by one line and an exit code.
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
        "find out within minutes, in words, which network suits your photographs: advise data.root=FOLDER",
    ),
    "inspect": Choice(
        "vitbench.inspect:main",
        "find damaged, copied, dark or doubly labelled images before training: inspect data.root=FOLDER",
    ),
    "train": Choice(
        "vitbench.training.train:main",
        "train one model on a share of a dataset; the same command again resumes it or says that it is done",
    ),
    "sweep": Choice("vitbench.sweeping.sweep:main", "train all unfinished runs of a study: sweep study=NAME"),
    "watch": Choice("vitbench.sweeping.watch:main", "show in another terminal how a sweep is going: watch study=NAME"),
    "track": Choice(
        "vitbench.runs.track:main", "send runs to TensorBoard, Trackio or wandb: track study=NAME trackers=tensorboard"
    ),
    "probe": Choice(
        "vitbench.probing.probe:main",
        "measure what a network does when its images move, turn or are damaged: probe run=ID, probe study=NAME",
    ),
    "features": Choice(
        "vitbench.probing.features:main",
        "compare networks without training them, by classifiers on their features: features models=[...]",
    ),
    "table": Choice("vitbench.comparing.table:main", "compare runs: mean and 95 % interval over seeds"),
    "plot": Choice("vitbench.plot:main", "draw accuracy against the number of training images"),
    "fit": Choice(
        "vitbench.fitting.fit:main",
        "fit learning curves: where does one model overtake another, and how many images does each need?",
    ),
    "report": Choice(
        "vitbench.reporting.report:main",
        "write the runs, tables, figures and verdicts of a study into results/; check=true finds what differs there",
    ),
    "pack": Choice(
        "vitbench.runs.pack:main",
        "put runs into one archive for another lab: pack study=NAME; checkpoints=true adds their weights",
    ),
    "merge": Choice(
        "vitbench.runs.merge:main",
        "add the runs of archives to your own, each checked and none replaced: merge from=[a.tar.gz,b.tar.gz]",
    ),
    "predict": Choice(
        "vitbench.using.predict:main", "classify images by a trained network: predict run=ID images=FOLDER"
    ),
    "export": Choice(
        "vitbench.using.export:main", "write a trained network for other programs: export run=ID file=network.onnx"
    ),
    "bench": Choice(
        "vitbench.timing.bench:main",
        "measure how fast training is, compared with the bare step and with ImageFolder + DataLoader",
    ),
    "check": Choice(
        "vitbench.upkeep.check:main",
        "find damaged files among runs, results and decoded images; repair=true moves them aside",
    ),
    "doctor": Choice(
        "vitbench.upkeep.doctor:main",
        "find what is wrong with this machine (versions, GPUs, limits, folders, locks), and what to type",
    ),
    "clean": Choice(
        "vitbench.upkeep.clean:main",
        "list what can be deleted: unneeded decoded images, failed runs, half-written files; remove=true deletes it",
    ),
    "ls": Choice(
        "vitbench.ls:main", "list what there is: ls models | pe | data | objectives | probes | studies | runs | images"
    ),
    "completion": Choice("vitbench.completion:main", "print what makes a shell complete: completion bash | zsh | fish"),
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
# words of errors that the system and libraries raise where a process gets no more memory
NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "failed to map segment", "std::bad_alloc")

HELP = """\
  vitbench train model=vit pe=learned                    trains a ViT on the built-in images
  vitbench train model=resnet data=cifar10 data.fraction=0.1 seed=1
  vitbench sweep study=quickstart hydra/launcher=joblib  trains the 27 runs of a study, two at a time on two cores
  vitbench table study=quickstart                        compares them
  vitbench fit study=quickstart                          fits learning curves: where does one overtake another?
  vitbench plot study=quickstart file=figures/quickstart.svg
  vitbench sweep study=first_look data.root=FOLDER data.image_size=64
                                     asks: on a tenth of your own images, how far behind a CNN is a ViT?
  vitbench advise data.root=FOLDER                       says in 30 minutes which network suits your photographs
  vitbench predict run=ID images=FOLDER                  classifies your images by a trained network

vitbench compares vision transformers (ViTs) with convolutional networks (CNNs). What does a CNN know before it sees
data, what must a ViT learn instead, and from how many images on does the difference stop mattering?

Commands:
{commands}
`vitbench COMMAND --help` explains the settings of a command; `vitbench ls` lists what can be chosen.
Exit codes: 0: done. 1: a run failed or diverged. 2: something was typed wrong. 3: images or labels are wrong.
  4: the disk is. 75: a run was saved or is busy, so try again. 130: Ctrl-C. 143: ended before anything was saved.
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
    # sys.stdout is None where the caller has closed it: `vitbench table >&-`
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
    """Turns errors of the system that a user can mend into one line, wherever they are raised."""
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
        typed = os.fsdecode(error.filename)[:60]  # a long word was taken for a path
        raise errors.UserError(f"{typed}...: too long for the name of a file") from None


@contextmanager
def memory_told() -> Iterator[None]:
    """Turns the error of a process that gets no more memory into one line, wherever it is raised."""
    try:
        yield
    except (MemoryError, ImportError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        what = (str(error).splitlines() or [type(error).__name__])[0]
        advice = "use a machine with more memory, or raise the limit where there is one (`ulimit -v`, a job's)"
        raise errors.RunFailed(f"memory ran out ({what}): {advice}") from None


def _discard_stdout() -> None:
    """Sends stdout to /dev/null, because Python would try again to write its buffer when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(argv: list[str]) -> int:
    """Answers --help and --version, and hands everything else to the command that was typed."""
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
    """Returns the words of a command as Hydra takes them; raises UserError for what the command does not take."""
    from vitbench.settings.overrides import TYPED_FOR, prepare

    arguments = prepare(argv, several=command == "sweep")
    if command in TYPED_FOR:  # `probe` takes any network as model=, which to Hydra is a choice from its group of models
        split = [word.partition("=") for word in arguments]
        arguments = [TYPED_FOR[command].get(key, key) + equals + value for key, equals, value in split]
    if command in {*READ_ONLY, *OF_ONE_RUN, *WHOLE, "probe"} and {"-m", "--multirun"} & set(arguments):
        takes = "one run" if command in OF_ONE_RUN else "all runs in one call"
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
        raise errors.UserError(f"{redacted(secret)}: looks like a secret, which would be stored in {stored}; drop it")
    return arguments


def run_with_hydra(
    command: str,
    main_of_command: Callable[[Any], int | None],
    argv: Sequence[str],
    refuse: Callable[[errors.UserError], None] = print_refusal,
) -> int:
    """Lets Hydra compose a command's config and run the command. Whatever Hydra refuses becomes one line.

    `refuse` is called with the error of a job that is refused; the other jobs of `-m` go on. Returns the exit code.
    """
    from vitbench.settings.compose import CONF_DIR, register
    from vitbench.settings.overrides import explain

    arguments = _words_for_hydra(command, argv)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints an exception and exits before it reaches us
    import hydra
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from vitbench.machine.interrupt import Stopped

    register()
    asks_for_help = bool({"-h", "--help"} & set(arguments))
    if asks_for_help:  # run_job prints the help in place of the command, so that it shows the composed settings
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
                raise  # the run could not write down why it failed, so the sweep has to say it
            refusal = error if isinstance(error, errors.UserError) else explain(error, command, arguments)
            if command != "sweep":  # a sweep itself prints what its runs wrote down
                refuse(refusal)
            code = max(code, refusal.exit_code)
        return code

    try:
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=command)(run_job)()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
        raise explain(error, command, arguments) from None
    return code
