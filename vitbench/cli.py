"""The command line: `vitbench COMMAND key=value ...`. A command is a module, and its settings are a Hydra config.

Answers `--help` without importing anything heavy; everything a user can get wrong leaves as one line and an exit code.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from vitbench import __version__, errors

COMMANDS = {
    "train": "one model on a share of a dataset; the same command again resumes or says it is done",
    "sweep": "all runs of a study, finished ones skipped: sweep study=NAME",
    "table": "compare runs: mean and 95 % interval over seeds",
    "plot": "accuracy against the number of training images",
    "ls": "what there is: ls models | pe | data | studies | runs",
    "completion": "shell completion: completion bash | zsh | fish",
}
PLAIN = {"ls", "completion"}  # take positional words and no config

HELP = """\
  vitbench train model=vit pe=learned                    a ViT on the built-in images
  vitbench train model=resnet data=cifar10 data.fraction=0.1 seed=1
  vitbench sweep study=quickstart hydra/launcher=joblib  18 runs, two at a time on two cores
  vitbench table study=quickstart                        the comparison
  vitbench plot study=quickstart file=figures/quickstart.svg

What does a CNN know before it sees data, what must a ViT learn instead, and from how many images on does the
difference stop mattering?

Commands:
{commands}
`vitbench COMMAND --help` lists a command's settings; `vitbench ls` what can be chosen.
Exit codes: 0 done, 1 a run failed or diverged, 2 usage, 3 data, 4 disk, 75 saved or busy: try again, 130 Ctrl-C.
"""


def main() -> NoReturn:
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    try:
        return _dispatch(argv)
    except errors.UserError as error:
        print(f"vitbench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("vitbench: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `vitbench table | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="".join(f"  {name:<11}{line}\n" for name, line in COMMANDS.items())), end="")
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"vitbench {__version__}")
        return 0
    command, rest = argv[0], argv[1:]
    if command not in COMMANDS:
        raise errors.UserError(f"{command} is no command: {errors.did_you_mean(command, COMMANDS)}")
    module = importlib.import_module(f"vitbench.{command}")
    if command in PLAIN:
        return int(module.main(rest) or 0)
    return _hydra(command, module.main, rest)


def _hydra(command: str, task: Callable[[Any], int | None], argv: list[str]) -> int:
    """Hands a command's settings to Hydra, and Hydra's refusals to one line."""
    from vitbench import overrides
    from vitbench.config import CONF_DIR, register_schemas

    arguments = overrides.prepare(argv)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us instead of being printed and turned into exit code 1
    import hydra
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register_schemas()
    sys.argv = [f"vitbench {command}", *arguments]
    code = 0

    def single(config: Any) -> int | None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        nonlocal code
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # in a sweep a failure belongs to its run
            return task(config)
        try:
            code = task(config) or 0
        except (errors.UserError, OmegaConfBaseException) as error:  # Hydra would print a line of its own
            refusal = error if isinstance(error, errors.UserError) else overrides.explain(error, command, arguments)
            print(f"vitbench: {refusal}", file=sys.stderr)
            code = refusal.exit_code
        return code

    try:
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=command)(single)()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
        raise overrides.explain(error, command, arguments) from None
    return code
