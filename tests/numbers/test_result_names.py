"""The names of results for people: that each result has one, and that nobody takes two results for one."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from tools.records_page import DERIVED
from vitbench.comparing.select import CERTIFIES
from vitbench.numbers.result_names import RUNS, columns_of_probes, name_of
from vitbench.numbers.words import column_head, column_label, column_words, is_share
from vitbench.runs.record import Record
from vitbench.runs.records import BESIDE

EVERY = [*RUNS, *columns_of_probes()]


def numeric_fields(kind: Any, prefix: str = "") -> list[str]:
    """The fields of a record that are numbers, as the columns of a table call them."""
    found = []
    for name, hint in get_type_hints(kind).items():
        types = [hint] if get_origin(hint) in (list, dict) else [*(get_args(hint) or [hint])]
        if is_typeddict(types[0]) and name not in BESIDE:
            found += numeric_fields(types[0], f"{prefix}{name}.")
        elif types[0] in (int, float):
            found.append(f"{prefix}{name}")
    return found


def test_every_number_of_a_record_has_a_name_for_people() -> None:
    fields = {*numeric_fields(Record), *DERIVED} - {"schema", CERTIFIES}
    assert len(fields) > 30 and not [field for field in sorted(fields) if field not in RUNS]


def test_no_two_results_share_a_long_form() -> None:
    assert not [long for long, count in Counter(map(column_label, EVERY)).items() if count > 1]
    assert not [long for long, count in Counter(map(column_words, EVERY)).items() if count > 1]


def test_short_forms_tell_the_results_of_a_probe_apart() -> None:
    heads = Counter((column.partition(".")[0] if "." in column else "", column_head(column)) for column in EVERY)
    assert not [head for head, count in heads.items() if count > 1]


@pytest.mark.parametrize("column", EVERY)
def test_a_name_fits_where_it_stands_and_its_unit_can_be_cut_off(column: str) -> None:
    name = name_of(column)
    assert name is not None and name.long and len(name.long) <= 80 and 0 < len(name.short) <= 28
    assert "," not in name.long + name.unit and "{" not in name.long + name.short
    assert name.long[0].isupper() == (name.long.split()[0] in ("CKA", "Gruver's"))
    assert (name.unit == "%") == is_share(column)


def test_a_result_before_training_is_called_so() -> None:
    assert column_label("init.receptive_field.radius") == "mean radius of the receptive field (before training), px"
    assert column_head("init.receptive_field.radius") == "untrained: field radius, px"
    assert column_label("100.gate.mean").startswith("mean attention of the heads by position alone (after 100 steps)")


@pytest.mark.parametrize(
    ("column", "label"),
    [
        ("later.probe.metric", "later.probe.metric"),
        ("shift.crop.later", "shift.crop.later"),
        ("init.later.metric", "init.later.metric"),
        ("my_accuracy", "my accuracy, %"),
        ("their_number", "their number"),
        ("data.fraction", "data.fraction"),
        ("init.test_accuracy", "init.test_accuracy, %"),
    ],
)
def test_what_nothing_here_knows_keeps_the_name_that_is_typed(column: str, label: str) -> None:
    assert (column_label(column), column_head(column)) == (label, label)
