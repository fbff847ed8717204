from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.collections import LineCollection, PolyCollection

from tests import fake_runs
from tests.conftest import Output
from vitbench import plot
from vitbench.comparing import figure
from vitbench.comparing.degenerate import without_degenerate
from vitbench.comparing.grouping import groups_of
from vitbench.comparing.panels import build_panel, categories_along, plotted_lines
from vitbench.comparing.select import select_runs
from vitbench.errors import UserError
from vitbench.numbers import look
from vitbench.numbers.intervals import mean_interval
from vitbench.settings.choices import GROUPS

Cli = Callable[..., Output]


def lines_of(runs: Path, x: str = "train_images", y: str = "test_accuracy") -> dict[str, figure.PlottedLine]:
    return {line.label: line for line in plotted_lines(groups_of(select_runs(str(runs), {})), x, y, [])}


def test_a_line_is_a_model_a_marker_a_mean_and_a_point_a_run(tmp_path: Path) -> None:
    lines = lines_of(fake_runs.quickstart(tmp_path, seeds=3))
    assert list(lines) == ["vit pe=none", "vit pe=learned", "resnet"]
    resnet = lines["resnet"]
    assert [at for at, _ in resnet.means] == [500, 2000, 10000] and len(resnet.points) == 9
    assert [mean.mean for _, mean in resnet.means] == pytest.approx([0.36, 0.48, 0.6])


def test_what_varies_makes_another_line_unless_it_moves_along_x(tmp_path: Path) -> None:
    for i, (steps, fraction) in enumerate([(100, 0.1), (100, 1.0), (200, 0.1)]):
        fake_runs.write(tmp_path, str(i), 0.5, **{"optim.steps": steps, "data.fraction": fraction}, result_steps=steps)
    assert set(lines_of(tmp_path)) == {"optim.steps=100", "optim.steps=200"}
    assert set(lines_of(tmp_path, x="steps")) == {"data.fraction=0.1", "data.fraction=1"}


def test_settings_that_are_words_or_pairs_stand_side_by_side(tmp_path: Path) -> None:
    for i, name in enumerate(["strong", "none", "light"]):
        for place in ([0.67, 1.0], [-1.0, -0.67]):
            settings = {"augment.name": name, "augment.crop": i / 10, "data.test": {"x": place}}
            fake_runs.write(tmp_path, f"{name}{place[0]}", 0.5, **settings, result_data_fingerprint=str(place))
    groups = groups_of(select_runs(str(tmp_path), {}))
    assert categories_along(groups, "augment") == ["none", "light", "strong"]
    assert categories_along(groups, "data.test.x") == [(-1.0, -0.67), (0.67, 1.0)]
    lines = plotted_lines(groups, "augment", "test_accuracy", ["model"], ["none", "light", "strong"])
    assert [line.label for line in lines] == ["vit data.test.x=[-1,-0.67]", "vit data.test.x=[0.67,1]"]
    assert [at for at, _ in lines[0].means] == [0, 1, 2]
    assert plot.draw_figure(select_runs(str(tmp_path), {}), x="data.test.x").startswith(b"<?xml")


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "data"])
def test_a_choice_takes_its_own_options_along_x(tmp_path: Path, group: str) -> None:
    name_key, prefix = GROUPS[group].name_key, GROUPS[group].options_prefix
    for member, strength in (("mild", 1), ("strong", 2)):
        fake_runs.write(tmp_path, member, 0.5, **{name_key: member, f"{prefix}strength": strength})
    groups = groups_of(select_runs(str(tmp_path), {}))
    (line,) = plotted_lines(groups, group, "test_accuracy", ["model"] if group != "model" else [], ["mild", "strong"])
    assert [at for at, _ in line.means] == [0, 1]


def test_two_accuracies_are_in_percent_with_the_line_on_which_they_are_equal(tmp_path: Path) -> None:
    for i, (left, right) in enumerate([(0.4, 0.3), (0.5, 0.6)]):
        fake_runs.write(tmp_path, str(i), right, seed=i, result_val_accuracy=left)
    (line,) = lines_of(tmp_path, x="val_accuracy").values()
    assert line.points == [(40, 0.3), (50, 0.6)]
    runs = select_runs(str(tmp_path), {})
    drawn = plot.draw_figure(runs, x="val_accuracy", log="none")
    assert b"equal" in drawn and b"equal" not in plot.draw_figure(runs)


def test_a_line_over_accuracy_follows_its_path_and_has_intervals_in_both_directions(tmp_path: Path) -> None:
    for fraction, accuracy, steadiness in [(0.1, 0.3, 0.7), (0.3, 0.5, 0.9), (1.0, 0.4, 0.8)]:
        for seed in range(3):
            probed = {"result_probe": {"steadiness": steadiness + seed / 100}}
            settings = {"data.fraction": fraction, "seed": seed}
            fake_runs.write(tmp_path, f"{fraction}-{seed}", accuracy + seed / 50, **settings, **probed)
    runs = select_runs(str(tmp_path), {})
    layout = {"lines": None, "log": None, "fit": None, "at": None, "layer": None}
    panel = build_panel(runs, x="test_accuracy", y="probe.steadiness", **layout)  # type: ignore[arg-type]
    (line,) = panel.lines
    assert panel.path == "train_images" and panel.log == ""
    assert [x for x, _ in line.means] == pytest.approx([32, 52, 42])  # the order of sizes, not of accuracies
    assert [across.sd for across in line.across] == pytest.approx([2, 2, 2])
    drawn = plot.draw_figure(runs, x="test_accuracy", y="probe.steadiness")
    assert b"growing" in drawn and b"test accuracy, %" in drawn


def test_a_band_stops_where_a_mean_has_no_interval() -> None:
    from matplotlib.figure import Figure

    wide, none = mean_interval([0.4, 0.5, 0.6]), mean_interval([1.0, 1.0, 1.0])
    means = [(float(x), none if x in (3, 5) else wide) for x in range(1, 6)]
    axes = Figure().subplots()
    figure.draw_line(axes, figure.PlottedLine("a", [], means), 0, 1)
    bands = [c for c in axes.collections if isinstance(c, PolyCollection)]
    bars = [c for c in axes.collections if isinstance(c, LineCollection)]
    (band,), (bar,) = bands, bars
    assert band.get_datalim(axes.transData).intervalx.tolist() == [1, 2]
    assert bar.get_segments()[0][:, 0].tolist() == [4, 4]  # between two means without intervals it stands alone


# ------------------------------------------------------------------------------------------------ degenerate networks


@pytest.fixture
def one_at_chance(tmp_path: Path) -> Path:
    """Makes three runs of each of two models; the probe found a ViT at chance steadier than all others."""
    for model, accuracies in {"vit": (0.40, 0.42, 0.096), "resnet": (0.50, 0.52, 0.54)}.items():
        for seed, accuracy in enumerate(accuracies):
            steadiness = 0.98 if accuracy < 0.1 else 0.8
            settings = {"model.name": model, "seed": seed, "result_probe": {"steadiness": steadiness}}
            fake_runs.write(tmp_path, f"{model}-{seed}", accuracy, **settings)
    return tmp_path


def test_a_network_at_chance_is_left_out_and_told_unless_asked_for(one_at_chance: Path) -> None:
    runs = select_runs(str(one_at_chance), {})
    kept, notes = without_degenerate(runs, "probe.steadiness")
    assert {row["id"] for row in runs.rows} - {row["id"] for row in kept.rows} == {"vit-2"}
    assert notes == ["left out: 1 of 6 runs, at chance, or giving nearly all images one class"]
    said = b"left out: 1 of 6 runs"
    assert said in plot.draw_figure(runs, y="probe.steadiness")
    assert said not in plot.draw_figure(runs, y="probe.steadiness", degenerate=True)
    assert said not in plot.draw_figure(runs, y="test_accuracy")  # an accuracy says itself that it is low


def test_a_curve_along_what_a_probe_varied_leaves_a_network_at_chance_out(one_at_chance: Path) -> None:
    runs = select_runs(str(one_at_chance), {})
    for run_id in runs.swept:
        runs.swept[run_id].append({"column": "shift.length.consistency", "at": 4.0, "at_unit": "px", "value": 0.9})
    assert b"left out: 1 of 6 runs" in plot.draw_figure(runs, y="shift.length.consistency")


def test_kept_checkpoints_that_give_one_class_are_left_out(tmp_path: Path) -> None:
    fake_runs.write(tmp_path, "a", 0.5)
    runs = select_runs(str(tmp_path), {})
    for step, flag in ((0, 1.0), (100, 0.0), (200, 0.0)):
        for metric, value in (("consistency", 0.9), ("degenerate", flag)):
            row = {"column": f"shift.crop.{metric}", "at": float(step), "at_unit": "step", "value": value}
            runs.swept["a"].append(row)
    kept, notes = without_degenerate(runs, "shift.crop.consistency")
    steps = [row["at"] for row in kept.swept["a"] if row["column"] == "shift.crop.consistency"]
    assert steps == [100, 200] and notes[0].startswith("left out: 1 checkpoint, ")


def test_a_figure_of_degenerate_networks_alone_says_how_to_draw_them(tmp_path: Path) -> None:
    fake_runs.write(tmp_path, "a", 0.1, result_probe={"steadiness": 1.0})
    with pytest.raises(UserError, match=r"probe.steadiness: every run is at chance.*; degenerate=true draws them"):
        plot.draw_figure(select_runs(str(tmp_path), {}), y="probe.steadiness")


@pytest.mark.parametrize("ending", look.FIGURE_ENDINGS)
def test_the_same_runs_give_the_same_bytes(tmp_path: Path, ending: str) -> None:
    runs = select_runs(str(fake_runs.quickstart(tmp_path)), {})
    assert plot.draw_figure(runs, ending=ending) == plot.draw_figure(runs, ending=ending)


def test_names_stay_text_in_svg(tmp_path: Path) -> None:
    for i, name in enumerate(["<script>alert(1)</script>", "$\\frac{1}$ a_b%#{} $x", "--> ]]> &amp;"]):
        fake_runs.write(tmp_path, str(i), 0.5, **{"data.name": name})
    svg = plot.draw_figure(select_runs(str(tmp_path), {}), title="<b> $\\alpha$ </b>")
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()}
    assert "script" not in tags and "b" not in tags


def test_the_foot_tells_seeds_hardware_and_what_is_wrong(tmp_path: Path) -> None:
    runs = fake_runs.quickstart(tmp_path, seeds=3)
    fake_runs.write(runs, "diverged", None, seed=9)
    selected = select_runs(str(runs), {})
    groups = groups_of(selected)
    over = figure.count_seeds([group.interval("test_accuracy").n for group in groups])
    foot = figure.foot_text(selected, groups, f"Means over {over}.", ["Too short."], 6)
    assert foot.endswith("\nToo short.") and max(map(len, foot.splitlines())) <= 120
    foot = foot.replace("\n", " ")
    assert "over 3 seeds" in foot and "Xeon, float32" in foot and "1 of 28 runs diverged" in foot


def test_two_seeds_do_not_squeeze_the_points(tmp_path: Path) -> None:
    for seed in (0, 1):
        fake_runs.write(tmp_path, str(seed), 0.4 + seed / 5, seed=seed)  # their interval is 0.5 ± 1.27
    low, high = figure.y_limits([*lines_of(tmp_path).values()], "test_accuracy", False)
    assert 0 <= low < 40 and 60 < high < 80


def test_ticks_are_numbers_as_one_says_them() -> None:
    shown = {0.5: "0.5", 100: "100", 1350: "1,350", 45_000: "45,000", 1e6: "1,000,000", 2.5e7: "25M", 2.6e12: "2.6e12"}
    assert {value: figure.tick_label(value) for value in shown} == shown


def test_every_line_looks_different() -> None:
    looks = {(i % len(look.COLOURS), i % len(look.MARKERS)) for i in range(len(look.COLOURS) * len(look.MARKERS))}
    assert len(looks) == len(look.COLOURS) * len(look.MARKERS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["file=a.jpg"], "file=a.jpg: the ending says the format; choices: .svg, .png, .pdf"),
        (["x=train_image"], "x=train_image: did you mean train_images"),
        (["y=acuracy"], "y=acuracy: "),
        (["lines=modl"], "lines=modl: did you mean model"),
        (["log=z"], "log=z: choices: none, x, xy, y"),
        (["x=augment", "log=x"], "log=x: augment is no number in every run; choices: none, y"),
        (["fit=maybe"], "fit=maybe"),
        (
            ["fit=true", "y=test_accuracy"],
            "y=test_accuracy: a curve is fitted to an error or a loss; choices: test_error",
        ),
        (
            ["fit=true", "x=optim.steps"],
            "fit=true x=optim.steps: curves are fitted along train_images, total_samples_seen, ",
        ),
        (["y=val_accuracy"], "y=val_accuracy: "),
        (["runs=nowhere"], "runs=nowhere: no finished run there"),
        (["x=val_images"], "log=x: val_images is 0 in a run"),
        (["study=quickstart", "name=acuracy"], "name=acuracy: did you mean accuracy"),
    ],
)
def test_a_slip_gets_one_line_and_no_file(tmp_path: Path, vitbench: Cli, words: list[str], said: str) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    done = vitbench("plot", *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and said in done.err
    assert os.listdir(tmp_path) == ["runs"]


def test_a_place_that_cannot_be_written_is_exit_4(tmp_path: Path, vitbench: Cli) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    (tmp_path / "taken").write_text("")
    done = vitbench("plot", "file=taken/a.png")
    assert done.code == 4 and "taken/a.png" in done.err


def test_plot_prints_its_path_alone_without_torch(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    code = "import sys; from vitbench import cli; code = cli.run(['plot']); sys.exit(code or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"figures/accuracy.svg\n", b"")
    assert sorted(os.listdir(tmp_path)) == ["figures", "runs"]
    assert (tmp_path / "figures" / "accuracy.svg").read_bytes().startswith(b"<?xml")


def test_the_interval_of_two_runs_is_told_and_not_drawn() -> None:
    assert not figure.is_banded(mean_interval([0.4, 0.5])) and figure.is_banded(mean_interval([0.4, 0.5, 0.6]))
    assert not figure.is_banded(mean_interval([0.4])) and not figure.is_banded(mean_interval([0.4] * 3))
    assert figure.describe_means([2, 2]).endswith("Two seeds are too few to draw an interval.")
    assert figure.describe_means([3, 2, 0]).startswith(
        "Markers are means of 2 to 3 seeds with 95 % t intervals, except where"
    )
    assert figure.describe_means([1, 1]) == "Each marker is one run: there is one seed, so no interval."
    lines = [figure.PlottedLine("", [(1.0, 0.4), (1.0, 0.5)], [(1.0, mean_interval([0.4, 0.5]))])]
    low, high = figure.y_limits(lines, "test_accuracy", log=False)
    assert (low, high) == (pytest.approx(39.3), pytest.approx(50.7))  # the limits are those of the points
