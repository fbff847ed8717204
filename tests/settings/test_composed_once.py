"""What Hydra has read of our files is read once a process, and is as if it were read each time."""

from __future__ import annotations

from inspect import unwrap
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as compose_alone
from hydra import initialize_config_dir
from hydra._internal import config_loader_impl as loader
from hydra.errors import HydraException
from omegaconf import OmegaConf

from tests.conftest import Cli
from vitbench.settings.compose import CONF_DIR, compose

WORDS = {
    "train": [[], ["model=resnet", "pe=none", "seed=3"], ["pe=rope", "model.pe.theta=10", "data=mnist"]],
    "sweep": [["hydra/launcher=joblib", "optim.steps=3"]],
    "probe": [["probe=shift"]],
}
REFUSED = [["pe=ropee"], ["seed=1", "nonsense=2"], ["++pe=rope"]]


def yaml_of(config: Any) -> str:
    return OmegaConf.to_yaml(config, resolve=True)


def test_a_composition_is_that_of_hydra_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = [(command, words) for command, lines in WORDS.items() for words in lines]
    ours = [[yaml_of(compose(words, command)) for command, words in typed] for _ in range(2)]
    refused = []
    for words in REFUSED:
        with pytest.raises(HydraException) as error:
            compose(words)
        refused.append(str(error.value))
    for place, name in (
        (loader, "create_defaults_list"),
        (loader.ConfigLoaderImpl, "_compose_config_from_defaults_list"),
    ):
        of_hydra = unwrap(getattr(place, name))
        assert of_hydra is not getattr(place, name)
        monkeypatch.setattr(place, name, of_hydra)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        assert [[yaml_of(compose_alone(command, words)) for command, words in typed]] * 2 == ours
        for words, line in zip(REFUSED, refused, strict=True):
            with pytest.raises(HydraException) as error:
                compose_alone("train", words)
            assert str(error.value) == line


def test_the_second_composition_reads_the_first_file_alone_and_knows_no_value_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compose(["seed=7", "pe=rope"]).optim.steps = 5
    read: list[str] = []
    load = OmegaConf.load

    def noted(file: Any) -> Any:
        read.append(Path(file.name).name)
        return load(file)

    monkeypatch.setattr(OmegaConf, "load", noted)
    config = compose(["pe=rope"])
    assert read == ["train.yaml"]
    assert config.seed == 0 and config.optim.steps != 5


def test_a_folder_of_ones_own_is_read_each_time(vitbench: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "optim"
    folder.mkdir(parents=True)
    for steps in ("11", "12"):
        (folder / "short.yaml").write_text(f"defaults: [vit]\nsteps: {steps}\n")
        shown = vitbench("train", "--config-dir", "mine", "--cfg", "job", "optim=short")
        assert f"steps: {steps}" in shown.out
