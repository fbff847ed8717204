from __future__ import annotations

import pytest

from vitbench.settings.check import check
from vitbench.settings.compose import as_settings, compose
from vitbench.settings.identity import identity, run_id


def settings(*words: str) -> dict[str, object]:
    return check(as_settings(compose(list(words))))


@pytest.fixture(scope="module")
def base() -> dict[str, object]:
    return settings()


@pytest.mark.parametrize(
    "word",
    [
        "machine.threads=1",
        "machine.device=cpu",
        "data.root=/elsewhere",
        "data.cache=/tmp/c",
        "runs=other",
        "eval_every=7",
        "keep=[1,2]",
        "trackers=tensorboard",
    ],
)
def test_where_and_how_fast_is_no_part_of_a_run(base: dict[str, object], word: str) -> None:
    assert run_id(settings(word)) == run_id(base)


@pytest.mark.parametrize(
    "word",
    [
        "seed=1",
        "pe=none",
        "model=resnet",
        "model.width=32",
        "data.fraction=0.5",
        "data.noise=0.1",
        "optim.lr=0.01",
        "augment=light",
        "data.subset_seed=3",
        "data.test.x=[0,1]",
        "optim.steps=7",
    ],
)
def test_what_decides_the_numbers_is(base: dict[str, object], word: str) -> None:
    assert run_id(settings(word)) != run_id(base)


def test_a_default_said_aloud_changes_nothing(base: dict[str, object]) -> None:
    assert run_id(settings("model=vit", "pe=learned", "data.fraction=1.0", "model.patch_size=4")) == run_id(base)
    assert run_id(settings("data.fraction=1")) == run_id(base)


def test_a_new_option_changes_no_old_id(base: dict[str, object]) -> None:
    assert "optim.momentum" not in identity(base) and "model.patch_size" not in identity(base)


def test_the_prefix_is_for_people() -> None:
    assert run_id(settings("pe=rope", "data.fraction=0.1", "seed=2")).startswith("vit-rope-shapes-f0.1-s2-")
    assert run_id(settings("model=resnet", "data.count=300")).startswith("resnet-shapes-n300-s0-")


def test_a_strange_name_makes_a_plain_folder() -> None:
    name = run_id(settings("data=imagefolder", "data.name='../<b>a b%$&/é'"))
    assert "/" not in name and all(character.isalnum() or character in "-._" for character in name)


def test_images_are_named_after_their_folder() -> None:
    assert settings("data=imagefolder", "data.root=/somewhere/pets")["data"]["name"] == "pets"  # type: ignore[index]
    assert settings("data=cifar10")["data"]["name"] == "cifar10"  # type: ignore[index]


def test_an_encoding_can_be_tuned_by_the_name_tables_use() -> None:
    from vitbench.settings.overrides import prepare

    assert prepare(["pe=rope", "pe.theta=10"]) == ["pe=rope", "model.pe.theta=10"]


def test_flags_may_stand_anywhere() -> None:
    from vitbench.settings.overrides import prepare

    assert prepare(["seed=1", "-m", "pe=none,rope", "--cfg", "job"]) == ["-m", "--cfg", "job", "seed=1", "pe=none,rope"]
