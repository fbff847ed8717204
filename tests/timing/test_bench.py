"""`vitbench bench`: what it compares alternates, goals are judged, and files keep what was not measured again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Output
from vitbench.comparing.formats import render_tables
from vitbench.errors import TryAgain
from vitbench.settings.compose import CONF_DIR
from vitbench.timing import rows
from vitbench.timing.bench import page, read_bench
from vitbench.timing.menu import MENU
from vitbench.timing.ours import Ours
from vitbench.timing.windows import Figure, alternate, figure, ratios, steps_for


def test_contestants_alternate_and_their_first_round_is_not_counted() -> None:
    met: list[tuple[str, int]] = []

    def contestant(name: str, seconds: float) -> Callable[[int], float]:
        return lambda steps: met.append((name, steps)) or seconds * steps  # type: ignore[func-returns-value]

    taken = alternate({"a": contestant("a", 1.0), "b": contestant("b", 2.0)}, {"a": 8, "b": 4}, windows=2)
    assert met == [("a", 2), ("b", 1), ("a", 8), ("b", 4), ("a", 8), ("b", 4)]
    assert taken == {"a": [1.0, 1.0], "b": [2.0, 2.0]}


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], Ours]:
    """Makes whole runs that take these seconds, a short and a long one in turn."""

    def make(seconds: list[float]) -> Ours:
        runs, ours = iter(seconds), Ours({"machine": {"device": "cpu"}})
        monkeypatch.setattr(ours, "run", lambda steps: next(runs))
        return ours

    return make


def test_a_run_that_other_work_disturbed_is_timed_again(timed: Callable[[list[float]], Ours]) -> None:
    ours = timed([3.0, 2.0, 1.0, 5.0])  # the first short run took longer than the long one
    assert ours(10) == 4.0
    assert ours.beside_training([0.25]) == [0.75]  # of the second short run alone


def test_steps_that_cannot_be_timed_have_no_speed(timed: Callable[[list[float]], Ours]) -> None:
    with pytest.raises(TryAgain, match="type a larger seconds="):
        timed([2.0, 1.0] * 9)(10)


def test_a_ratio_is_taken_round_by_round() -> None:
    slowed = [1.0, 10.0, 1.0]  # something else ran in the second round
    assert ratios([2 * one for one in slowed], slowed) == [2, 2, 2]


def test_a_window_has_as_many_steps_as_take_its_seconds() -> None:
    assert steps_for(lambda steps: 0.01 * steps, 2.0) == 200
    assert steps_for(lambda steps: 60.0 * steps, 2.0) == 2


@pytest.mark.parametrize(
    "value, goal, met",
    [
        (12.0, {"at_most": 12.0}, True),
        (12.1, {"at_most": 12.0}, False),
        (0.97, {"at_least": 0.97}, True),
        (0.96, {"at_least": 0.97}, False),
        (5.0, {}, None),
        (4.0, {"at_least": -5.0, "at_most": 5.0}, True),
        (-6.0, {"at_least": -5.0, "at_most": 5.0}, False),
    ],
)
def test_a_goal_is_met_or_not(value: float, goal: dict[str, float], met: bool | None) -> None:
    assert figure("loop", "speed", "", [value], **goal).met is met


def test_what_was_not_measured_has_no_verdict_and_says_why() -> None:
    one = Figure("peak", "share", None, "%", at_least=30.0, note="no GPU")
    assert one.met is None
    report = {"hardware": {"name": "x", "device": "cpu"}, "figures": [one.described()]}
    assert page(report).lines == [["peak", "share", "no GPU", "", "", "%", ">= 30", ""]]


def test_the_help_names_every_row() -> None:
    text = (CONF_DIR / "bench.yaml").read_text(encoding="utf-8")
    named = text.split("Rows: ")[1].split(".\n")[0].split()
    assert named == list(MENU)


@pytest.mark.parametrize(
    "word, line",
    [
        ("rows=lop", "rows=lop: did you mean loop?"),
        ("models=vitt", "models=vitt: did you mean vit? choices: mixer, resnet, vit"),
        ("sizes=[nano,tinny]", "sizes=tinny: did you mean tiny? choices: base, micro, nano, small, tiny"),
        ("rows=[]", "rows=[]: choices: defaults, "),
        ("models=[]", "models=[]: choices: mixer, resnet, vit"),
        ("sizes=null", "sizes=null: choices: base, micro, nano, small, tiny"),
        ("windows=0", "windows=0: must be 1 or more"),
        ("seconds=0", "seconds=0.0: must be above 0"),
        ("format=jsn", "format=jsn: did you mean json? choices: json, text"),
        ("timm=nowhere.py", "timm=nowhere.py: no such file; type the path of train.py in a checkout of pytorch-"),
        ("file=bench.csv", "file=bench.csv: must end in .json; `vitbench report` makes the page from it"),
        ("device=gpu", "device=gpu: did you mean cpu? choices: auto, cpu, cuda"),
    ],
)
def test_a_slip_gets_one_line(vitbench: Callable[..., Output], word: str, line: str) -> None:
    output = vitbench("bench", word)
    assert output.code == 2
    assert output.err.startswith(f"vitbench: {line}")
    assert output.err.count("\n") == 1


def test_without_a_gpu_its_rows_say_so(vitbench: Callable[..., Output]) -> None:
    output = vitbench("bench", "rows=[peak,stacked]", "device=cpu")
    assert output.code == 0
    assert output.out.count("no GPU") == 3


def test_on_a_gpu_the_row_of_the_cpu_says_so(tmp_path: Path) -> None:
    (one,) = rows.defaults(rows.Bench(["vit"], ["nano"], 1, 0.1, "cuda", tmp_path))
    assert (one.value, one.met, one.note) == (None, None, "on a CPU alone")


def test_a_file_keeps_the_rows_that_were_not_asked_for(vitbench: Callable[..., Output]) -> None:
    assert vitbench("bench", "rows=peak", "device=cpu", "file=bench.json").code == 0
    before = read_bench(Path("bench.json"))
    assert vitbench("bench", "rows=stacked", "device=cpu", "file=bench.json").code == 0
    after = read_bench(Path("bench.json"))
    assert {one["row"] for one in after["figures"]} == {"peak", "stacked"}
    assert all(one in after["figures"] for one in before["figures"])
    text = render_tables("md", [page(after)], "", [])
    assert text.count("no GPU") == len(after["figures"])


def test_a_bench_that_is_cut_off_keeps_the_rows_that_it_measured(
    vitbench: Callable[..., Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["device=cpu", "file=bench.json"]
    assert vitbench("bench", "rows=stacked", *words).code == 0
    (stacked,) = read_bench(Path("bench.json"))["figures"]
    in_file: list[list[str]] = []

    def cut_off(bench: rows.Bench) -> Any:
        in_file.append([one["row"] for one in read_bench(Path("bench.json"))["figures"]])
        raise KeyboardInterrupt

    monkeypatch.setattr("vitbench.timing.whole.stacked", cut_off)
    assert vitbench("bench", "rows=[peak,stacked]", *words).code == 130
    figures = read_bench(Path("bench.json"))["figures"]
    assert in_file == [["peak", "peak", "stacked"]] == [[one["row"] for one in figures]]
    assert figures[-1] == stacked  # what the row had before, while it is measured again


def test_figures_of_two_machines_are_not_mixed(vitbench: Callable[..., Output]) -> None:
    vitbench("bench", "rows=peak", "device=cpu", "file=bench.json")
    report = read_bench(Path("bench.json"))
    Path("bench.json").write_text(json.dumps(report | {"hardware": {"device": "cpu", "name": "Another"}}))
    output = vitbench("bench", "rows=stacked", "device=cpu", "file=bench.json")
    assert output.code == 2
    assert "was measured on Another" in output.err


def test_a_report_makes_the_page_and_checks_it(vitbench: Callable[..., Output]) -> None:
    shutil.copytree(Path(__file__).parents[2] / "results" / "archive" / "tuning", "results/tuning")
    vitbench("bench", "rows=peak", "device=cpu", "file=results/bench/cpu.json")
    assert vitbench("report").code == 0
    assert "bench/cpu.md" in Path("results/README.md").read_text()
    made = Path("results/bench/cpu.md")
    assert made.read_text().count("no GPU") == 2
    made.write_text(made.read_text().replace("30", "20"))
    output = vitbench("report", "check=true")
    assert output.code == 3
    assert "results/bench/cpu.md line" in output.err


@pytest.mark.slow
@pytest.mark.parametrize("row", ["overhead", "loop", "epoch", "stream", "open", "start"])
def test_a_row_measures_every_figure_that_it_names(vitbench: Callable[..., Output], row: str) -> None:
    output = vitbench("bench", f"rows={row}", "sizes=nano", "windows=1", "seconds=0.2", "device=cpu", "format=json")
    assert output.code == 0
    figures: list[dict[str, Any]] = json.loads(output.out)["figures"]
    assert figures
    assert all(one["value"] is not None and one["value"] > -1e3 for one in figures)
    speeds = [one["value"] for one in figures if one["unit"] == "images/s"]
    assert all(speed > 0 for speed in speeds)
