"""Similarities whose numbers are known: of distance alone, of rows alone, and those of each encoding's formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.probes.known import noise, subject, value
from vitbench.errors import DoesNotApply
from vitbench.models.build import build_model
from vitbench.models.vit import ViT
from vitbench.pe.menu import MENU as ENCODINGS
from vitbench.probes.attention_distance import apart
from vitbench.probes.pe_similarity import by_offset, draw, maps, numbers, probe
from vitbench.probes.subject import Subject

GRID = (8, 8)
DISTANCE = apart(8, 8, 1).double().numpy()


def of(pe: str, pool: str = "mean") -> Subject:
    torch.manual_seed(0)
    model = build_model("vit", image_size=32, channels=3, num_classes=5, pe={"name": pe}, pool=pool)
    return subject(model, noise(2, 32), torch.zeros(2), 5)


def model_of(subject: Subject) -> ViT:
    assert isinstance(subject.model, ViT)
    return subject.model


@pytest.mark.known_answer
def test_similarity_that_distance_decides_has_no_excess() -> None:
    found = numbers(-DISTANCE, GRID, patch=4)
    mean = DISTANCE[DISTANCE > 0].mean()
    assert found["spearman"] == pytest.approx(1)
    assert (found["row_excess"], found["column_excess"]) == pytest.approx((0, 0), abs=1e-6)
    assert found["decay_length"] == pytest.approx(4 * mean * (1 - 1 / math.e), rel=1e-5)


@pytest.mark.known_answer
def test_what_rows_have_in_common_is_their_excess() -> None:
    row = np.arange(64) // 8
    found = numbers((row[:, None] == row).astype(float), GRID)
    assert (found["row_excess"], found["column_excess"]) == (1, 0)
    assert numbers(np.eye(64), GRID)["decay_length"] == pytest.approx(1 - 1 / math.e, abs=0.02)
    assert math.isnan(numbers(np.ones((64, 64)), GRID)["spearman"])
    assert math.isnan(numbers(DISTANCE, GRID)["decay_length"])


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_a_table_is_compared_by_cosine_without_its_class_token(pool: str) -> None:
    model = model_of(of("learned", pool))
    (found,) = maps(model.pe, GRID)
    table = model.pe.table[0, pool == "cls" :]  # type: ignore[index]
    expected = torch.nn.functional.cosine_similarity(table[:, None], table[None], dim=2)
    assert found.similarity == pytest.approx(expected.detach().numpy(), abs=1e-6)


def test_sines_of_row_and_column_treat_both_alike_and_sines_of_the_raster_do_not() -> None:
    two, one = probe(of("sincos2d"), seed=0), probe(of("sincos1d"), seed=0)
    assert value(two, "row_excess") == pytest.approx(value(two, "column_excess")) and value(two, "row_excess") > 0.03
    assert value(one, "row_excess") > value(one, "column_excess") + 0.05
    assert value(two, "spearman") > 0.8 > value(one, "spearman")
    assert abs(value(probe(of("learned"), seed=0), "spearman")) < 0.1  # before training


def test_rotations_are_compared_by_what_they_do_to_a_constant() -> None:
    """The mean over pairs of cos(offset x frequency): 4 frequencies of columns, 4 of rows, in heads of 16."""
    (found,) = maps(model_of(of("rope")).pe, GRID)
    down, right = 2, -3
    expected = np.mean([math.cos(offset * 100 ** -(i / 4)) for i in range(4) for offset in (down, right)])
    assert found.similarity[3 * 8 + 4, 5 * 8 + 1] == pytest.approx(expected, abs=1e-6)


def test_rotations_that_blocks_and_heads_learn_have_a_map_for_each() -> None:
    pe = model_of(of("rope_mixed", "cls")).pe
    found = maps(pe, GRID)
    assert [(one.block, one.head) for one in found] == [(block, head) for block in range(1, 5) for head in range(1, 5)]
    down, right = 2, -3
    u, v = pe.frequencies[1, 2].detach()  # type: ignore[index]
    expected = (right * u + down * v).cos().mean().item()
    assert found[6].similarity[3 * 8 + 4, 5 * 8 + 1] == pytest.approx(expected, abs=1e-6)


def test_a_bias_has_a_map_for_each_block_and_head_and_its_table_is_found_again() -> None:
    rows = probe(of("alibi2d"), seed=0)
    assert value(rows, "spearman", 2, layer="block3") == pytest.approx(1)
    assert value(rows, "row_excess") == pytest.approx(0, abs=1e-6)
    pe = model_of(of("relative_bias", "cls")).pe
    found = maps(pe, GRID)
    assert [(one.block, one.head) for one in found] == [(block, head) for block in range(1, 5) for head in range(1, 5)]
    assert by_offset(found[6].similarity, GRID) == pytest.approx(pe.table[1, 2].detach().numpy(), abs=1e-6)  # type: ignore[index]


def test_no_encoding_and_no_transformer_have_nothing_to_compare() -> None:
    with pytest.raises(DoesNotApply, match="pe=none tells the tokens nothing about positions"):
        probe(of("none"), seed=0)
    cnn = build_model("resnet", image_size=32, channels=3, num_classes=5)
    with pytest.raises(DoesNotApply, match="no position encoding"):
        draw(subject(cnn, noise(2, 32), torch.zeros(2), 5), seed=0)


@pytest.mark.parametrize("pe", ENCODINGS)
def test_it_is_a_picture_unless_the_image_decides_or_there_is_no_encoding(pe: str) -> None:
    if not model_of(of(pe)).pe.depends_on_image and pe != "none":
        assert draw(of(pe), seed=0).startswith(b"\x89PNG")
        return
    for tried in (draw, probe):
        with pytest.raises(DoesNotApply) as error:
            tried(of(pe), seed=0)
        assert "\n" not in str(error.value)


def test_an_encoding_that_follows_from_the_image_has_no_similarity() -> None:
    with pytest.raises(DoesNotApply, match="its position encoding depends on the image"):
        probe(of("cpe"), seed=0)
