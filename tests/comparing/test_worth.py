"""What each bias is worth: known answers of `whole=` and `bare=`, reference, names, words and figure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.collections import PathCollection

from tests import fake_runs
from tests.comparing.printed import printed
from tests.conftest import Output
from vitbench.comparing import ladder_figure
from vitbench.comparing.rungs import find_ladder
from vitbench.comparing.select import select_runs
from vitbench.comparing.table import TABLE_KEYS, build_table, choose_layouts
from vitbench.comparing.wording import Wording
from vitbench.errors import UserError
from vitbench.numbers import look
from vitbench.runs.plan import Planned, remember
from vitbench.runs.study import load_study

Cli = Callable[..., Output]
SIZES = (450, 1350, 4500, 13500, 45000)
NOISE = (0.99, 1.0, 1.012, 0.985, 1.005)  # of the errors of each seed, whoever the network is
OLD: dict[str, Any] = {"model.name": "resnet"}  # the record of a ResNet from before there were rungs
WHOLE = OLD | {"model.sharing": True, "model.reach": "near", "model.padding": "zero", "model.norm": "batch"}
VIT = {"model.name": "vit", "model.pe.name": "sincos2d"}


def write_rung(
    runs: Path, times: float, sizes: Sequence[int] = (1350, 4500), seeds: int = 3, noise: float = 0, **settings: Any
) -> None:
    """Writes a network that errs at n images as the reference does at n / times: e = 3 n^-0.25, at most 0.9.

    `noise` is a second one over seeds, of this network alone.
    """
    for n in sizes:
        for seed in range(seeds):
            error = min(0.9, 3 * (n / times) ** -0.25 * NOISE[seed] * (1 + noise * (-1) ** seed))
            name = f"{len([*runs.glob('*')])}"
            place = {"data.count": n, "data.train_images": 50_000, "seed": seed}
            fake_runs.write(runs, name, 1 - error, **place, **settings)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    write_rung(folder, 1, SIZES, **OLD)
    write_rung(folder, 3, **WHOLE | {"model.sharing": False}, **{"optim.lr": 0.03})
    write_rung(folder, 1.5, **WHOLE | {"model.reach": "random", "model.padding": "circular"})
    return folder


def rows_at(runs: Path, **layout: Any) -> dict[tuple[str, int], dict[str, str]]:
    found = csv.DictReader(io.StringIO(printed(runs, "csv", **layout)))
    return {(row["rung"], int(row["train_images"])): row for row in found}


def sentences(runs: Path, **layout: Any) -> list[str]:
    return build_table("", select_runs(str(runs), {}), **layout).sentences


# -------------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.known_answer
def test_a_rung_that_needs_3_times_the_images_at_every_n_lacks_what_is_worth_3(runs: Path) -> None:
    rows = rows_at(runs, whole="resnet")
    for n in (1350, 4500):
        row = rows["sharing=false", n]
        assert float(row["worth"]) == pytest.approx(3, rel=1e-9)
        assert row["worth_low"] == row["worth_high"] == "", "the seeds differ in one factor for both: no draw differs"
        assert float(rows["padding=circular reach=random", n]["worth"]) == pytest.approx(1.5, rel=1e-9)
        assert row["worth_bound"] == "" and float(row["multiply_adds_ratio"]) == 1


@pytest.mark.known_answer
def test_a_rung_that_needs_a_third_of_the_images_has_what_is_worth_3(tmp_path: Path) -> None:
    write_rung(tmp_path, 1, SIZES, **VIT)
    write_rung(tmp_path, 1 / 3, **VIT, **{"model.conv": True})
    for n in (1350, 4500):
        assert float(rows_at(tmp_path, bare="vit pe=sincos2d")["conv=true", n]["worth"]) == pytest.approx(3, rel=1e-9)
    # the same two networks the other way about: the one with the convolution has two sizes, which make a curve
    whole = rows_at(tmp_path, whole="vit model.conv=true")
    assert float(whole["conv=false", 4500]["worth"]) == pytest.approx(3, rel=1e-9)


def test_a_worth_is_counted_from_the_accuracy_error_or_loss_that_was_asked_for(runs: Path) -> None:
    by_error = rows_at(runs, whole="resnet", value="test_error")["sharing=false", 4500]
    assert float(by_error["worth"]) == pytest.approx(3, rel=1e-9) and by_error["metric"] == "test_error"


def test_the_worth_of_a_loss_speaks_of_losses(runs: Path) -> None:
    said = {value: printed(runs, "text", whole="resnet", value=value) for value in ("test_error", "test_loss")}
    assert "needs for the same error" in said["test_error"] and "needs for the same loss" in said["test_loss"]
    ladder = find_ladder(select_runs(str(runs), {}), "whole", "resnet")
    assert "needs to reach the same loss" in ladder_figure._describe_worth(ladder, "test_loss")


def test_outside_the_sizes_of_the_reference_there_is_a_bound(runs: Path) -> None:
    write_rung(runs, 20, [4500], **WHOLE | {"model.norm": "layer"})
    write_rung(runs, 1 / 20, [4500], **WHOLE | {"model.norm": "batch", "model.downsample": "blur"})
    rows = rows_at(runs, whole="resnet")
    row = rows["norm=layer", 4500]
    assert (float(row["worth"]), row["worth_bound"], row["worth_low"]) == (10, ">", "")
    row = rows["downsample=blur", 4500]
    assert (float(row["worth"]), row["worth_bound"]) == (pytest.approx(0.1), "<")
    lines = printed(runs, "text", whole="resnet")
    assert "  > 10.0x  " in lines and "  < 0.1x  " in lines
    (text,) = (line for line in sentences(runs, whole="resnet") if line.startswith("model.norm"))
    assert "is worth more than 10.0x the images at 4,500: with it, fewer than 450 images do what 4,500 do" in text


def test_seeds_that_vary_give_an_interval_around_the_worth(tmp_path: Path) -> None:
    write_rung(tmp_path, 1, SIZES, seeds=5, **OLD)
    write_rung(tmp_path, 3, [4500], seeds=5, noise=0.01, **WHOLE | {"model.sharing": False})
    row = rows_at(tmp_path, whole="resnet")["sharing=false", 4500]
    low, worth, high = (float(row[part]) for part in ("worth_low", "worth", "worth_high"))
    # an error that is 1 % higher stands at 1.01^4 times fewer images; the last digits differ between releases of NumPy
    farthest = 1.01**4 * (1 + 1e-9)
    assert 3 / farthest <= low < worth < high <= 3 * farthest


def test_fewer_than_three_seeds_give_a_number_without_interval(tmp_path: Path) -> None:
    for seeds, said in ((1, "one seed"), (2, "2 seeds")):
        write_rung(tmp_path / said, 1, SIZES, seeds=seeds, **OLD)
        write_rung(tmp_path / said, 3, seeds=seeds, **WHOLE | {"model.sharing": False})
        assert rows_at(tmp_path / said, whole="resnet")["sharing=false", 4500]["worth_low"] == ""
        assert sentences(tmp_path / said, whole="resnet") == [
            f"model.sharing=true is worth 3.0x the images at 4,500 ({said}, no interval): with it, 1,500 images do what"
            " 4,500 do without it."
        ]


def test_a_rung_at_chance_has_no_worth(runs: Path) -> None:
    write_rung(runs, 1000, [4500], **WHOLE | {"model.norm": "layer"})
    row = rows_at(runs, whole="resnet")["norm=layer", 4500]
    assert (row["worth"], row["reason"]) == ("", "at chance")
    said = "What model.norm=batch is worth at 4,500 images is not known (norm=layer: at chance)."
    assert said in sentences(runs, whole="resnet")


# --------------------------------------------------------------------------------------------------------- the words


def test_sentences_are_of_one_number_of_images_where_rungs_have_several(tmp_path: Path) -> None:
    write_rung(tmp_path, 1, SIZES, **OLD)
    write_rung(tmp_path, 3, [1350, 4500, 13500], **WHOLE | {"model.sharing": False})
    write_rung(tmp_path, 2, **WHOLE | {"model.reach": "random"})
    write_rung(tmp_path, 2, **WHOLE | {"model.norm": "layer"})
    first, *said = sentences(tmp_path, whole="resnet")
    assert first.startswith("With 4,500 images, norm=layer has the highest test accuracy of 3 rungs (-")
    assert " ± " in first and " points against resnet), and sharing=false the lowest (-" in first
    assert len(said) == 3 and all("the images at 4,500 (3 seeds, no interval): with it" in each for each in said)


def test_two_rungs_that_lack_one_setting_are_told_apart(tmp_path: Path) -> None:
    write_rung(tmp_path, 1, SIZES, **OLD)
    write_rung(tmp_path, 3, **WHOLE | {"model.reach": "random"})
    write_rung(tmp_path, 5, **WHOLE | {"model.reach": "spread"})
    write_rung(tmp_path, 2, **WHOLE | {"model.norm": "layer"})
    said = [sentence.partition(" is worth")[0] for sentence in sentences(tmp_path, whole="resnet")[1:]]
    near = [f"model.reach=near (in place of reach={reach})" for reach in ("random", "spread")]
    assert sorted(said) == sorted([*near, "model.norm=batch"])


def test_a_sentence_says_what_is_worth_how_many_images(tmp_path: Path) -> None:
    write_rung(tmp_path, 1, SIZES, **VIT)
    write_rung(tmp_path, 1 / 3, noise=0.002, **VIT, **{"model.conv": True, "model.window": 3})
    write_rung(tmp_path, 2, noise=0.002, **{"model.name": "mixer"})
    both, mixer = sentences(tmp_path, bare="vit pe=sincos2d")
    assert both.startswith("model.conv=true and model.window=3 together are worth 3.0x [")
    assert both.endswith("] the images at 4,500: with them, 4,500 images do what 13,500 do without them.")
    assert mixer.startswith("mixer in place of vit pe=sincos2d hurts: at 4,500 images it is worth 0.5x [")


def test_what_the_seeds_do_not_show_cannot_be_told(tmp_path: Path) -> None:
    write_rung(tmp_path, 1, SIZES, **OLD)
    write_rung(tmp_path, 1.01, noise=0.03, **WHOLE | {"model.norm": "layer"})
    (text,) = sentences(tmp_path, whole="resnet")
    assert text.startswith("Whether model.norm=batch helps cannot be told: at 4,500 images it is worth ")


def test_a_bootstrap_without_1_is_not_enough_where_the_difference_may_be_0(tmp_path: Path) -> None:
    write_rung(tmp_path, 1, SIZES, **OLD)
    for seed, times in enumerate((1.02, 1.1, 1.3)):  # all three agree, and yet their t interval holds 0
        error = 3 * (4500 / times) ** -0.25 * NOISE[seed]
        settings = {"seed": seed, "data.count": 4500, "data.train_images": 50_000} | WHOLE | {"model.norm": "layer"}
        fake_runs.write(tmp_path, f"layer{seed}", 1 - error, **settings)
    row = rows_at(tmp_path, whole="resnet")["norm=layer", 4500]
    assert float(row["worth_low"]) > 1 and float(row["difference_ci95_high"]) > 0
    (text,) = sentences(tmp_path, whole="resnet")
    assert "cannot be told" in text and "but test accuracy differs by -" in text


# --------------------------------------------------------------------------------------------- rungs and the reference


def test_a_rung_is_named_by_what_makes_it_another_network(runs: Path) -> None:
    write_rung(runs, 2, **VIT, **{"model.width": 48})
    ladder = find_ladder(select_runs(str(runs), {}), "whole", "resnet")
    assert ladder.reference.name == "resnet" and [*ladder.reference.groups] == [*SIZES]
    names = {rung.name: rung.instead_of for rung in ladder.rungs}
    assert names["sharing=false"] == {"model.sharing": True}  # its own learning rate is not named
    assert {*names} == {"sharing=false", "padding=circular reach=random", "vit pe=sincos2d"}


def test_old_and_new_records_of_the_reference_are_one_network(runs: Path) -> None:
    write_rung(runs, 1, [150], **WHOLE)
    ladder = find_ladder(select_runs(str(runs), {}), "whole", "resnet")
    assert [*ladder.reference.groups] == [150, *SIZES]


def test_the_reference_is_the_plainest_network_that_has_the_words(tmp_path: Path) -> None:
    for settings in ({}, {"model.conv": True}, {"model.patch_size": 2}, {"model.patch_size": 2, "model.conv": True}):
        write_rung(tmp_path, 1, [450, 4500], seeds=1, **VIT, **settings)
    runs = select_runs(str(tmp_path), {})
    assert find_ladder(runs, "bare", "vit").reference.name == "vit"
    ladder = find_ladder(runs, "bare", "vit model.patch_size=2")
    assert ladder.reference.name == "vit patch_size=2"
    assert {rung.name for rung in ladder.rungs} == {"conv=true", "patch_size=4", "conv=true patch_size=4"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bare=vit"], "bare=vit: could be 2 networks, say which with its settings: vit pe=none, vit pe=sincos2d"),
        (["bare=vgg"], "bare=vgg: no network has these settings; choices: vit pe=none"),
        (["bare=vit pe=none", "whole=vit"], "whole=vit bare=vit pe=none: give one of them"),
        (["whole=vit", "against=resnet"], "whole=vit against=resnet: whole= lays out everything by itself; leave agai"),
        (["bare=vit", "columns=seed", "rows=pe"], "bare= lays out everything by itself; leave rows= and columns= out"),
        (["bare=vit pe=none", "value=parameters"], "value=parameters: "),
        (["bare=vit pe=none", "value=[test_error,test_loss]"], "a worth is one of one result; give one"),
        (["bare=vit pe=none", "where.pe=none"], "bare=vit pe=none: there is no other network to compare with it"),
        (["bare=vit pe=none", "where.data.count=450"], "vit pe=none has test_accuracy at 450 images alone, and a"),
    ],
)
def test_a_slip_gets_one_line(tmp_path: Path, vitbench: Cli, words: list[str], said: str) -> None:
    for pe in ("none", "sincos2d"):
        write_rung(tmp_path / "runs", 1, [450, 4500], seeds=1, **VIT | {"model.pe.name": pe})
    out = vitbench("table", *words)
    assert out.code == 2 and said in out.err and out.err.count("\n") == 1
    if not {"value", "columns", "against"} & {word.partition("=")[0] for word in words}:
        assert said in vitbench("plot", *words).err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optim.lr": 0.2}, "resnet at 4,500 images has runs of optim.lr=0.1 and optim.lr=0.2; choose with where.opt"),
        ({"data.name": "other"}, r"several values of data \(other, shapes\); choose one with where.data="),
    ],
)
def test_runs_that_cannot_be_one_curve_are_refused(runs: Path, settings: dict[str, Any], said: str) -> None:
    write_rung(runs, 1, [4500], seeds=1, **OLD, **settings)
    with pytest.raises(UserError, match=said):
        printed(runs, whole="resnet")


# --------------------------------------------------------------------------------------- tables, the figure, a report


@pytest.mark.parametrize("form", ["text", "md", "tex", "csv", "json"])
def test_every_format_has_the_worth(runs: Path, form: str) -> None:
    out = printed(runs, form, whole="resnet")
    if form == "json":
        (table,) = json.loads(out)["tables"]
        at_4500 = [group for group in table["groups"] if group["train_images"] == 4500]
        assert [group["worth"] for group in at_4500] == [None, pytest.approx(1.5), pytest.approx(3)]
        assert len(table["sentences"]) == 2
    elif form != "csv":
        assert "sharing=false" in out and "3.0x" in out and "model.sharing=true" in out


def draw(runs: Path) -> Any:
    with look.figure_style():
        return ladder_figure.draw_ladder(
            select_runs(str(runs), {}), "whole", "resnet", y=None, wording=Wording(), caveat=""
        )


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_figure_has_every_rung_from_the_worst_to_the_best_and_every_size(tmp_path: Path, seeds: int) -> None:
    write_rung(tmp_path, 1, SIZES, seeds=seeds, **OLD)
    write_rung(tmp_path, 3, (1350, 4500, 13500), seeds=seeds, **WHOLE | {"model.sharing": False})
    write_rung(tmp_path, 0.8, seeds=seeds, **WHOLE | {"model.norm": "layer"})
    write_rung(tmp_path, 30, [4500], seeds=seeds, **WHOLE | {"model.reach": "random"})
    figure = draw(tmp_path)
    left, right = figure.axes
    above = figure.subfigs[0]
    labels = [text.get_text() for text in left.get_yticklabels()]
    assert labels == ["random taps", "no shared weights", "ResNet", "layer norm"]
    assert [text.get_text() for text in above.legends[0].get_texts()] == [
        "1,350 images",
        "4,500 images",
        "13,500 images",
    ]
    # means: at 1,350 images of three rungs, at 4,500 of four and at 13,500 of two
    assert [len(means.lines[0].get_xdata()) for means in left.containers] == [3, 4, 2]
    assert [len(points.get_offsets()) for points in left.collections if isinstance(points, PathCollection)] == (
        [3 * seeds, 4 * seeds, 2 * seeds] if seeds > 1 else []  # the marker of one run is its point
    )
    worths = sorted(float(worth.lines[0].get_xdata()[0]) for worth in right.containers)
    assert worths == pytest.approx([0.8, 0.8, 3, 3, 3, 10]) and right.get_xscale() == "log"
    assert len([text for text in right.texts if text.arrow_patch is not None]) == 1  # the bound
    assert any(text.get_text() == "chance" for text in left.texts)
    assert "Arrows are bounds: ResNet was trained on" in figure.subfigs[1].texts[0].get_text()


def test_a_long_name_is_broken_between_its_settings() -> None:
    assert (
        ladder_figure.wrapped_label("sharing=false norm=layer pool=flatten") == "sharing=false norm=layer\npool=flatten"
    )
    assert ladder_figure.wrapped_label("some_long_setting=some_long_value") == "some_long_setting=\nsome_long_value"
    assert ladder_figure.wrapped_label("resnet") == "resnet"


def test_a_study_has_its_ladder_in_a_table_a_figure_and_a_report(runs: Path, tmp_path: Path, vitbench: Cli) -> None:
    study = tmp_path / "mine.yaml"
    layout = "{whole: resnet, where: {data.count: [450, 1350, 4500, 13500]}}"
    study.write_text(f"runs: [model=resnet]\ntables: {{worth: {layout}}}\nfigures: {{ladder: {layout}}}\n")
    (chosen,) = choose_layouts({}, load_study(str(study)), "tables", TABLE_KEYS).values()
    assert chosen["whole"] == "resnet"
    remember(load_study(str(study)), [Planned([], {}, path.name) for path in runs.iterdir()], runs, ["seed=0"])
    printed_table = vitbench("table", "study=mine.yaml").out
    assert "model.sharing=true is worth 3.0x" in printed_table and "45,000" not in printed_table
    assert "45,000" in vitbench("table", "study=mine.yaml", "whole=resnet").out  # a layout of its own
    assert vitbench("plot", "study=mine.yaml", "file=ladder.png").code == 0
    done = vitbench("report", "study=mine.yaml")
    assert done.code == 0, done.err
    made = tmp_path / "results" / "mine"
    assert {"worth.md", "worth.csv", "worth.tex", "ladder.svg"} <= {path.name for path in made.iterdir()}
    assert "model.sharing=true" in (tmp_path / "results" / "README.md").read_text()
    assert vitbench("report", "check=true").code == 0
    worth = made / "worth.csv"
    worth.write_text(worth.read_text().replace(",3,", ",4,", 1))
    assert vitbench("report", "check=true").code == 3
