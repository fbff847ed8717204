from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Output
from vitbench.completion import SHELLS, completions_of
from vitbench.upkeep.clean import FINDERS

Cli = Callable[..., Output]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("vitbench ta", ["table"]),
        ("vitbench ls ", ["models", "pe", "data", "objectives", "probes", "studies", "runs", "images"]),
        ("vitbench ls pe ", []),
        ("vitbench ls images fi", ["file="]),
        ("vitbench ls images file=a.png augment=str", ["augment=strong"]),
        ("vitbench completion z", ["zsh"]),
        ("vitbench train model=", ["model=mixer", "model=resnet", "model=timm", "model=torchvision", "model=vit"]),
        ("vitbench train model=timm model.arch=mixer_b", ["model.arch=mixer_b16_224", "model.arch=mixer_b32_224"]),
        ("vitbench probe model=torchvision arch=vit_l", ["arch=vit_l_16", "arch=vit_l_32"]),
        ("vitbench ls models fam", ["family=torchvision", "family=timm"]),
        ("vitbench train model=vit data=cifar1", ["data=cifar10", "data=cifar100"]),
        ("vitbench train pe=rope data.frac", ["data.fraction="]),
        ("vitbench sweep study=quick", ["study=quickstart"]),
        ("vitbench table format=m", ["format=md"]),
        ("vitbench table per=", ["per=class", "per=confusion", "per=run"]),
        ("vitbench merge fr", ["from="]),
        ("vitbench report fr", ["from="]),
        ("vitbench pack ch", ["checkpoints="]),
        ("vitbench pack study=quick", ["study=quickstart"]),
        ("vitbench export format=", ["format=safetensors", "format=onnx"]),
        ("vitbench predict im", ["images="]),
        ("vitbench inspect data.ro", ["data.root="]),
        ("vitbench advise min", ["minutes="]),
        ("vitbench advise data=", ["data=imagefolder"]),
        ("vitbench advise data.fra", []),  # advise chooses the images of each run
        ("vitbench advise data.fl", ["data.flip="]),
        ("vitbench clean what=", [f"what={kind}" for kind in FINDERS]),
        ("vitbench doctor format=", ["format=text", "format=json"]),
        ("vitbench watch format=", ["format=text", "format=json"]),
        ("vitbench train trackers=t", ["trackers=tensorboard", "trackers=trackio"]),
        ("vitbench track trackers=w", ["trackers=wandb"]),
        ("vitbench track study=quick", ["study=quickstart"]),
        ("vitbench doc", ["doctor"]),
        ("vitbench tabel for", []),
        ("vitbench train no=such=thing", []),
    ],
)
def test_what_fits(line: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setenv("COMP_LINE", line)
    assert completions_of(line) == words


def test_a_study_of_ones_own_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "quick_and_mine.yaml").write_text("runs: [model=vit]\n")
    monkeypatch.chdir(tmp_path)
    assert completions_of("vitbench table study=quick") == ["study=quick_and_mine", "study=quickstart"]


def test_an_unknown_shell_gets_one_line(vitbench: Cli) -> None:
    done = vitbench("completion", "bsh")
    assert (done.code, done.out) == (2, "") and "did you mean bash" in done.err


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Makes a PATH on which `vitbench` is the one under test."""
    script = tmp_path / "bin" / "vitbench"
    script.parent.mkdir()
    python = f"{shlex.quote(sys.executable)} -c 'from vitbench.cli import main; main()'"
    script.write_text(f'#!/bin/sh\nexec {python} "$@"\n')
    script.chmod(0o755)
    return f"{script.parent}{os.pathsep}{os.environ['PATH']}"


def in_shell(shell: str, code: str, path: str, cwd: Path) -> list[str]:
    words = {"bash": ["bash", "--norc", "-c"], "zsh": ["zsh", "-f", "-c"], "fish": ["fish", "--no-config", "-c"]}[shell]
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).parent.parent), "HOME": str(cwd)}
    done = subprocess.run([*words, code], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("vitbench ta", ["table"]),
        ("vitbench train model=r", ["resnet"]),  # bash has begun a new word after the =
        ("vitbench train data.frac", ["data.fraction="]),
    ],
)
def test_bash_completes(tmp_path: Path, path: str, line: str, replies: list[str]) -> None:
    code = (
        'eval "$(vitbench completion bash)"; compopt() { :; }\n'
        f"COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=($COMP_LINE); _vitbench\n"
        'complete -p vitbench >/dev/null && printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert in_shell("bash", code, path, tmp_path) == replies


@pytest.mark.parametrize("shell", [shell for shell in ("zsh", "fish") if shutil.which(shell)])
def test_other_shells_read_their_function(tmp_path: Path, path: str, shell: str) -> None:
    if shell == "fish":
        (tmp_path / "pets").mkdir()
        (tmp_path / "table.csv").touch()
        lines = ("train model=r", "ta", "predict images=pe")  # files only where one is typed
        asked = [f"complete -C 'vitbench {line}' | cut -f 1" for line in lines]
        code = "; ".join(["vitbench completion fish | source", *asked])
        assert in_shell(shell, code, path, tmp_path) == ["model=resnet", "table", "images=pets/"]
    else:
        code = 'autoload -U compinit; compinit -u -D; eval "$(vitbench completion zsh)"; print $_comps[vitbench]'
        assert in_shell(shell, code, path, tmp_path) == ["_vitbench"]


@pytest.mark.parametrize("shell", SHELLS)
def test_printing_a_function_imports_nothing_heavy(shell: str, tmp_path: Path) -> None:
    code = (
        f"import sys; from vitbench import cli; cli.run(['completion', {shell!r}]);"
        "sys.exit(', '.join({'torch', 'hydra', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, SHELLS[shell])
