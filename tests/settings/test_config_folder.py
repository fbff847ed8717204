"""A folder of `--config-dir` is data: Hydra meets none of it that would execute something or lead out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Output
from vitbench.errors import UserError
from vitbench.settings.compose import CONF_DIR
from vitbench.settings.config_folder import check_config_folder

Cli = Callable[..., Output]

REFUSED = {  # by the file, what it holds and what the line names
    "a callback": ("train2.yaml", "hydra: {callbacks: {x: {_target_: evil.X}}}", "hydra: Hydra would execute"),
    "a target": ("augment/x.yaml", "name: x\ncrop: {_target_: os.system}", "_target_: Hydra would execute"),
    "a target in a list": ("augment/x.yaml", "name: [{a: [{_target_: os.system}]}]", "_target_: Hydra would execute"),
    "a launcher": ("hydra/launcher/x.yaml", "a: 1", "Hydra would execute what this file names"),
    "a handler of logs": ("hydra/job_logging/x.yaml", "version: 1", "Hydra would execute what this file names"),
    "a group of Hydra's deeper": ("model/hydra/x.yaml", "a: 1", "Hydra would execute what this file names"),
    "the top": ("augment/x.yaml", "# @package _global_\nname: x", "@package _global_"),
    "the top without a space": ("augment/x.yaml", "#@package _global_\nname: x", "@package _global_"),
    "the top behind a comment": ("augment/x.yaml", "# x\n\n  # @package _global_\nname: x", "@package _global_"),
    "Hydra's package": ("augment/x.yaml", "# @package hydra.job\nname: x", "@package hydra.job"),
    "Hydra's package by a file's name": ("hydra.yaml", "# @package .hydra\nname: x", "@package .hydra"),
    "another group's package": ("augment/x.yaml", "# @package data\nroot: x", "@package data"),
    "an override of Hydra's": ("m.yaml", "defaults: [train, override hydra/launcher: joblib]\nseed: 1", "defaults: "),
    "a placed group": ("m.yaml", "defaults: [{'/augment@hydra.job': x}]\nseed: 1", "defaults: "),
    "a group at the top": ("m.yaml", "defaults: ['/augment/x@_global_']\nseed: 1", "defaults: "),
    "a way out": ("m.yaml", "defaults: [../../evil]\nseed: 1", "leads out of the folder"),
    "a computed way": ("m.yaml", "defaults: ['/${x}/launcher']\nseed: 1", "leads out of the folder"),
    "the environment": ("augment/x.yaml", "name: ${oc.env:KEY}", "refers to something outside"),
    "the environment within": ("augment/x.yaml", "name: ${recipe:${oc.env:KEY},name}", "refers to something outside"),
    "a computed resolver": ("augment/x.yaml", "a: oc.env\nname: '${${a}:KEY}'", "refers to something outside"),
    "Hydra's own values": ("augment/x.yaml", "name: ${hydra.runtime.cwd}", "refers to something outside"),
    "a place": ("m.yaml", "defaults: [train]\nruns: /elsewhere", "runs: a file may not say where to write"),
    "another place": ("data/x.yaml", "source: shapes\ncache: /elsewhere", "cache: a file may not say where to write"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_execute_or_lead_out_is_refused_before_hydra_meets_it(
    kind: str, vitbench: Cli, tmp_path: Path
) -> None:
    name, text, expected = REFUSED[kind]
    path = tmp_path / "conf" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    output = vitbench("train", "--cfg", "job", "--config-dir", str(tmp_path / "conf"))
    assert output.code == 2 and output.err.count("\n") == 1
    assert path.name in output.err and expected in output.err


def test_a_file_behind_a_link_is_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.yaml").write_text("hydra: {}\n")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "augment").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "conf")
    with pytest.raises(UserError, match="hydra: Hydra would execute"):
        check_config_folder(tmp_path / "conf")


def test_all_choices_of_vitbench_could_be_somebodys_own(tmp_path: Path) -> None:
    for path in CONF_DIR.glob("*/*.yaml"):
        if path.parent.name != "hydra" and not path.read_text().endswith("{}\n"):  # of a probe without options
            (tmp_path / path.parent.name).mkdir(exist_ok=True)
            (tmp_path / path.parent.name / path.name).write_text(path.read_text())
    check_config_folder(tmp_path)
    assert len([*tmp_path.glob("*/*.yaml")]) > 40


@pytest.mark.parametrize("flag", ["--config-name", "-cn"])
@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "evil.yaml"])
def test_a_command_is_read_from_no_other_place(flag: str, name: str, vitbench: Cli) -> None:
    output = vitbench("train", flag, name)
    assert output.code == 2 and "must be the name of a file in --config-dir" in output.err


def test_a_folder_is_given_by_its_flag_alone(vitbench: Cli) -> None:
    assert vitbench("train", "--config-path", "/tmp").code == 2
    assert "--config-dir /nowhere: no such folder" in vitbench("train", "--config-dir", "/nowhere").err
