"""\
  eval "$(vitbench completion bash)"         put this line into ~/.bashrc
  eval "$(vitbench completion zsh)"          put this line into ~/.zshrc
  vitbench completion fish | source          put this line into ~/.config/fish/config.fish

`vitbench completion SHELL` prints the function by which a shell completes the words of vitbench. The function puts the
line so far into COMP_LINE and asks `vitbench completion reply` for the words that fit. zsh and fish also show a
sentence beside each word, which they get from `vitbench completion describe`; bash shows the words alone. Behind the
`=` of a setting for which no word fits, the shell offers files.
"""
# Commands, the words of `ls`, studies and the values of settings such as `format` are listed here. Groups and keys come
# from Hydra's own completion, which has to get the line without the command's name.

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from vitbench.errors import UserError, did_you_mean
from vitbench.models.families import LIBRARIES, architectures

# COMPREPLY must hold only what follows the last `=`, because bash begins a new word there (COMP_WORDBREAKS).
BASH = """\
_vitbench() {
    local word="${COMP_LINE:0:COMP_POINT}" IFS=$'\\n'
    word="${word##*[[:space:]]}"
    COMPREPLY=($(COMP_LINE="${COMP_LINE:0:COMP_POINT}" "${COMP_WORDS[0]}" completion reply 2>/dev/null))
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}")
    fi
    [[ "${COMPREPLY[0]}" == *[=./] ]] && compopt -o nospace
    return 0
}
complete -o default -F _vitbench vitbench
"""

ZSH = """\
#compdef vitbench
_vitbench() {
    local tab=$'\\t'
    local -a lines fitting shown
    lines=(${(f)"$(COMP_LINE="${(j: :)words[1,CURRENT-1]} $PREFIX" ${words[1]} completion describe 2>/dev/null)"})
    fitting=(${lines%%$tab*})
    shown=(${(r:COLUMNS-1:)${lines/$tab/  -- }})
    if (( $#fitting )); then
        compadd -S '' -l -d shown -- $fitting
    else
        compset -P '*='
        _files
    fi
}
compdef _vitbench vitbench
"""

FISH = """\
function __vitbench_fitting
    set -lx COMP_LINE (commandline --cut-at-cursor --current-process | string collect)
    vitbench completion describe 2>/dev/null
end
function __vitbench_takes_a_file
    string match --quiet '*=*' -- (commandline --cut-at-cursor --current-token)
    and test -z "$(__vitbench_fitting | string collect)"
end
complete --command vitbench --no-files --arguments '(__vitbench_fitting)'
complete --command vitbench --condition __vitbench_takes_a_file --force-files
"""

SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
OF_MODELS = ("match=", "name=", "image_size=", "seconds=")  # `ls models` takes these beside family=


def main(words: Sequence[str]) -> int:
    if list(words) in (["reply"], ["describe"]):
        line = os.environ.get("COMP_LINE", "")
        fitting = completions_of(line)
        said = _descriptions(line, fitting) if words[0] == "describe" else {}
        for word in fitting:
            print(word, *filter(None, [said.get(word)]), sep="\t")
        return 0
    if not words or words[0] in ("-h", "--help"):
        print(__doc__.rstrip())
        return 0 if words else 2
    if len(words) > 1 or words[0] not in SHELLS:
        raise UserError(f"completion {' '.join(words)}: {did_you_mean(words[0], SHELLS)}")
    print(SHELLS[words[0]], end="")
    return 0


def completions_of(line: str) -> list[str]:
    """Lists the words that the last word of a command line can be completed to."""
    from vitbench.cli import COMMANDS

    _, *words = line.split() or [""]
    if line[-1:].isspace() or not words:
        words.append("")
    *before, word = words
    if not before:
        return _beginning(word, [*COMMANDS, "--help", "--version"])
    command = before[0]
    if command == "ls":
        from vitbench.ls import KINDS

        if before[1:2] == ["images"]:
            return _beginning(word, ["file=", *_ask_hydra("train", [*before[2:], word])])
        options = {"runs": ["runs="], "models": [*(f"family={library}" for library in LIBRARIES), *OF_MODELS]}
        return _beginning(word, KINDS if len(before) == 1 else options.get(before[1], []))
    if command == "completion":
        return _beginning(word, SHELLS)
    if command not in COMMANDS:
        return []
    key, equals, _ = word.partition("=")
    if equals and key == "study":
        from vitbench.runs.study import study_names

        return _beginning(word, [f"study={name}" for name in study_names()])
    if equals and key in ("model.arch", "arch"):
        library = next((name for name in LIBRARIES if f"model={name}" in before), "timm")
        return _beginning(word, [f"{key}={name}" for name in architectures(library)])
    if equals and key == "run":
        from vitbench.runs.records import run_folders

        runs = next((given.removeprefix("runs=") for given in before if given.startswith("runs=")), "runs")
        return _beginning(word, [f"run={folder.name}" for folder in run_folders(Path(runs).expanduser())])
    if equals and (values := _values(command, key)):
        return _beginning(word, [f"{key}={value}" for value in values])
    if word.startswith("-"):
        return _beginning(word, ["--help", "--cfg", "--info", "--multirun"])
    from vitbench.settings.overrides import TYPED_FOR

    renamed = [f"{key}=" for key in TYPED_FOR.get(command, ())]  # Hydra knows these keys by other names
    asked = _ask_hydra(command, [*before[1:], word])
    if command == "advise":
        from vitbench.settings.command_schemas import CHOSEN_BY_ADVISE

        asked = [choice for choice in asked if choice.partition("=")[0] not in CHOSEN_BY_ADVISE]
    return [*dict.fromkeys(_beginning(word, [*renamed, *asked]))]


def _values(command: str, key: str) -> Sequence[str]:
    """Returns the words that a setting of a command can have as values, where there are few."""
    from vitbench.explaining.explained import VALUES, VALUES_OF_RUNS

    is_of_run = "." in key or command in ("train", "sweep")
    return VALUES_OF_RUNS.get(key, ()) if is_of_run else VALUES.get(f"{command} {key}", ())


def _descriptions(line: str, fitting: Sequence[str]) -> dict[str, str]:
    """Returns a sentence for each of the words that fit a line: for commands, choices and settings."""
    from vitbench.cli import COMMANDS

    command, *typed = line.split()[1:] or [""]
    if command in COMMANDS and (typed or line[-1:].isspace()):
        from vitbench.explaining.descriptions import descriptions

        return descriptions(command, typed, fitting)
    return {name: command.help for name, command in COMMANDS.items()}


def _beginning(word: str, choices: Iterable[str]) -> list[str]:
    return [choice for choice in choices if choice.startswith(word)]


def _ask_hydra(command: str, words: Sequence[str]) -> list[str]:
    """Asks Hydra what the last word can be completed to: groups and their choices, keys and their values."""
    from vitbench.cli import run

    os.environ["COMP_LINE"] = " ".join(["vitbench", *words])
    reply = io.StringIO()
    with contextlib.redirect_stdout(reply), contextlib.redirect_stderr(io.StringIO()):
        run([command, "-sc", "query=bash"])
    choices = ("hydra/" if choice == "hydra" else choice for choice in reply.getvalue().split())
    return [choice for choice in choices if not choice.startswith(("schema", "hydra.", "archives", "outside"))]
