"""No command replaces a file that vitbench did not make, as by `table file=mine.csv` after `fit runs=mine.csv`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fake_runs
from tests.conftest import Output

Cli = Callable[..., Output]
TABLE = "model,images,seed,error\n" + "".join(
    f"{model},{n},{seed},{b * n**-0.25 + seed / 1000}\n"
    for model, b in (("mine", 2.5), ("theirs", 2.0))
    for n in (100, 300, 1000)
    for seed in range(3)
)
RUNS_CSV = "id,status,schema\n"
WRITERS = [
    ("table", "file=mine.csv"),
    ("table", "file=mine.md"),
    ("table", "file=mine.json"),
    ("plot", "file=mine.svg"),
    ("plot", "file=mine.png"),
    ("predict", "run=x", "images=.", "file=mine.csv"),
    ("export", "run=x", "file=mine.onnx"),
    ("export", "run=x", "file=mine.safetensors"),
    ("probe", "run=x", "probe=filters", "file=mine.png"),
    ("inspect", "data.root=.", "file=mine.png"),
    ("ls", "images", "file=mine.png"),
    ("bench", "rows=[start]", "file=mine.json"),
    ("table", "per=run", "file=mine.csv"),
    ("pack", "file=mine.tar.gz"),
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for model in ("vit", "resnet"):
        for seed in range(2):
            settings = {"model.name": model, "seed": seed, "data.fraction": 0.5}
            fake_runs.write(tmp_path / "runs", f"{model}{seed}", 0.5 + seed / 10, **settings)
    return tmp_path / "runs"


@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
@pytest.mark.usefixtures("runs")
def test_a_command_refuses_to_replace_a_users_file_before_it_does_anything(
    tmp_path: Path, vitbench: Cli, words: tuple[str, ...]
) -> None:
    path = tmp_path / words[-1].removeprefix("file=")
    path.write_text(TABLE)
    done = vitbench(*words)
    assert (done.code, done.err.count("\n"), path.read_text()) == (2, 1, TABLE)
    assert path.name in done.err and "replace=true" in done.err


@pytest.mark.usefixtures("runs")
def test_what_fit_reads_table_does_not_replace(tmp_path: Path, vitbench: Cli) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(TABLE)
    assert vitbench("fit", "runs=mine.csv").code == 0
    assert vitbench("table", "file=mine.csv").code == 2 and path.read_text() == TABLE
    done = vitbench("table", "file=mine.csv", "replace=true")
    assert done.code == 0 and path.read_text() != TABLE
    assert vitbench("table", "file=mine.csv").code == 0, "its own it replaces without a word"
    assert vitbench("table", "file=mine.csv", "value=test_loss").code == 0


@pytest.mark.usefixtures("runs")
def test_no_table_replaces_a_runs_csv(tmp_path: Path, vitbench: Cli) -> None:
    (tmp_path / "runs.csv").write_text(RUNS_CSV)
    assert vitbench("table", "file=runs.csv").code == 2
    assert (tmp_path / "runs.csv").read_text() == RUNS_CSV


@pytest.mark.usefixtures("runs")
def test_a_figure_is_drawn_again_over_itself(tmp_path: Path, vitbench: Cli) -> None:
    assert [vitbench("plot", "file=a.svg", *words).code for words in ((), ("y=test_error",), ())] == [0, 0, 0]
    (tmp_path / "a.svg").write_text((tmp_path / "a.svg").read_text().replace("<svg", "<svg id='mine'"))
    assert vitbench("plot", "file=a.svg").code == 2


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("results/README.md", "# My results\n"),
        ("results/tiny/accuracy.md", "| mine |\n"),
        ("results/tiny/study.yaml", "title: mine\n"),
    ],
)
@pytest.mark.usefixtures("runs")
def test_a_report_replaces_no_page_and_no_folder_of_somebody_else(
    tmp_path: Path, vitbench: Cli, file: str, content: str
) -> None:
    study = "title: t\nquestion: q\nwith: data.fraction=0.5\nruns:\n  - model=vit,resnet seed=range(2)\n"
    (tmp_path / "tiny.yaml").write_text(study)
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(content)
    done = vitbench("report", "study=tiny.yaml")
    assert done.code == 2 and done.err.count("\n") == 1 and "replace=true" in done.err
    assert path.read_text() == content and not [*(tmp_path / "results").rglob("*.csv")]


def test_the_results_that_the_repository_has_are_made_again_without_a_list(
    tmp_path: Path, vitbench: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(__file__).parents[2] / "results"
    shutil.copytree(source / "quickstart", tmp_path / "results" / "quickstart")
    shutil.copy(source / "README.md", tmp_path / "results")
    monkeypatch.setenv("VITBENCH_CACHE", str(tmp_path / "empty"))
    assert vitbench("report").code == 0
    assert not (tmp_path / "empty").exists()
