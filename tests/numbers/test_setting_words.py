from __future__ import annotations

import pytest

from vitbench.numbers.setting_words import CHOICES, axis_label, in_words, setting_in_words, swept_label, value_in_words
from vitbench.numbers.words import RenamedValue
from vitbench.settings.choices import GROUPS, MENU_GROUPS, menu_of
from vitbench.settings.compose import CONF_DIR


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_of_every_menu_has_words_and_no_two_have_the_same(group: str) -> None:
    choices = {*menu_of(group)} if group in MENU_GROUPS else {path.stem for path in (CONF_DIR / group).glob("*.yaml")}
    assert choices - {"schema"} == CHOICES[group].keys()
    assert len({*CHOICES[group].values()}) == len(CHOICES[group])


def test_a_line_is_named_as_in_a_paper() -> None:
    assert in_words({"model": "vit", "pe": "learned"}) == "ViT, learned encoding"
    assert in_words({"model": "resnet", "pe": None}) == "ResNet"
    spread = {"model": "resnet", "model.reach": "spread", "model.padding": "circular"}
    assert in_words(spread) == "ResNet, spread taps, circular padding"
    assert in_words({"model.sharing": False, "optim.lr": 0.033}) == "no shared weights, learning rate 0.033"
    assert in_words({"teacher": "model=resnet", "distill.kind": "soft"}) == "taught by ResNet, soft labels"
    assert (
        in_words({"data.fraction": 0.03}) == "3 % of the images" and in_words({"train_images": 1350}) == "1,350 images"
    )


def test_what_is_unknown_stays_as_typed_and_a_study_s_word_comes_first() -> None:
    assert setting_in_words("optim.clip", 1.0) == "optim.clip=1" and setting_in_words("data", "pets") == "pets"
    assert setting_in_words("init", "data.fraction=1 seed=0") == "init=data.fraction=1 seed=0"
    assert setting_in_words("pe", RenamedValue("learned", "ours")) == "ours"
    assert setting_in_words("init", RenamedValue("optim.steps=500", "shapes")) == "begun from shapes"
    assert setting_in_words("init", RenamedValue("optim.steps=500", "pretrained")) == "pretrained"
    assert setting_in_words("init", RenamedValue("objective=simsiam", "simsiam")) == "begun from SimSiam"


def test_axes_say_what_they_are_and_their_units() -> None:
    assert axis_label("augment") == "augmentation" and value_in_words("augment", "strong") == "strong"
    assert axis_label("optim.lr") == "learning rate" and axis_label("optim.clip") == "optim.clip"
    assert swept_label("shift.length.consistency", "px") == "length of the shift, pixels"
    assert swept_label("pe_similarity.spearman", "step") == "training steps" and swept_label("mine.x", "m") == "m"
