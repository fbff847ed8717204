"""Nothing is imported from the working folder, which somebody else may have filled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
EVIL = "open('executed', 'w').close()\n"
RUN = ["train", "--cfg", "job"]
LIKE_THE_SCRIPT = "import sys; sys.path[0] = '/'; from vitbench.cli import main; main()"


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A folder with a plugin of Hydra's, and with names that are imported when settings are composed."""
    (tmp_path / "hydra_plugins" / "evil").mkdir(parents=True)
    for place in ("hydra_plugins/evil/__init__.py", "hydra_plugins/evil/plugin.py", "antlr4.py", "yaml.py", "torch.py"):
        (tmp_path / place).write_text(EVIL)
    return tmp_path


@pytest.mark.parametrize("start", [["-m", "vitbench"], ["-c", LIKE_THE_SCRIPT]], ids=["python -m", "the script"])
@pytest.mark.parametrize("path", ["{home}", ":{home}", "{home}:", "{home}:."])
def test_nothing_of_the_working_folder_is_imported(start: list[str], path: str, filled: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": path.format(home=HOME)}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run([sys.executable, *start, *RUN], cwd=filled, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "seed: 0" in done.stdout, done.stderr
    assert not (filled / "executed").exists()


def test_vitbench_finds_its_own_plugins_from_another_folder_and_from_its_own(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    without = {key: value for key, value in environment.items() if key != "PYTHONPATH"}
    for folder, its in ((tmp_path, environment), (HOME, without)):
        command = [sys.executable, "-m", "vitbench", "sweep", "--info", "plugins"]
        done = subprocess.run(command, cwd=folder, env=its, capture_output=True, text=True)
        assert done.returncode == 0 and "StudySweeper" in done.stdout, done.stderr


def test_a_process_that_is_started_does_not_import_from_there_either(filled: Path) -> None:
    code = (
        "import subprocess, sys; from vitbench.machine.working_folder import leave_working_folder as leave; leave();"
        "sys.exit(subprocess.run([sys.executable, '-m', 'yaml', '-h'], capture_output=True).returncode and 3)"
    )
    environment = {**os.environ, "PYTHONPATH": f":{HOME}"}
    subprocess.run([sys.executable, "-c", code], cwd=filled, env=environment)
    assert not (filled / "executed").exists()
