"""`vitbench report` makes results from runs.csv, and its check notices where they do not follow from it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fake_runs
from tests.conftest import Output
from vitbench.comparing.evidence import read_evidence
from vitbench.comparing.sums import SUMS
from vitbench.runs.plan import Planned, remember
from vitbench.runs.study import load_study
from vitbench.settings.compose import STUDY_DIR

Cli = Callable[..., Output]
ROOT = Path(__file__).resolve().parents[2]

STUDY = """\
title: Shares <of> data
question: Which leads?
expect: The CNN.
notes: Nobody trained these.
runs: ['model=vit pe=none,learned data.fraction=0.05,0.2,1 seed=0,1']
tables:
  accuracy: {rows: [model, pe], columns: data.fraction, value: test_accuracy}
figures:
  errors: {x: train_images, y: test_error, log: xy}
"""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Makes a study of 18 runs that have ended, one that failed and one that nobody started."""
    folder = fake_runs.quickstart(tmp_path / "runs")
    (tmp_path / "shares.yaml").write_text(STUDY)
    (folder / "broken").mkdir()
    (folder / "broken" / "failure.json").write_text('{"error": "KeyError"}')
    ids = [*sorted(path.name for path in folder.iterdir()), "never"]
    words = ["data=imagefolder", "data.root=/home/me/pets", "runs=runs", "machine.threads=1"]
    remember(load_study(str(tmp_path / "shares.yaml")), [Planned([], {}, id_) for id_ in ids], folder, words)
    return folder


@pytest.mark.parametrize("folder", [ROOT / "results", ROOT / "results" / "archive"], ids=lambda path: path.name)
def test_the_committed_results_follow_from_their_evidence(vitbench: Cli, folder: Path) -> None:
    done = vitbench("report", "check=true", f"results={folder}")
    assert done.code == 0, done.err


def test_a_study_becomes_a_folder_and_a_section(vitbench: Cli, runs: Path, tmp_path: Path) -> None:
    done = vitbench("report", "study=shares.yaml")
    assert done.code == 0, done.err
    made = tmp_path / "results" / "shares"
    assert {path.name for path in made.iterdir()} == {
        "runs.csv",
        "study.yaml",
        "accuracy.md",
        "accuracy.csv",
        "accuracy.tex",
        "errors.svg",
        "sha256sums.txt",
    }
    readme = (tmp_path / "results" / "README.md").read_text()
    assert (
        "## Shares &lt;of&gt; data" in readme
        and "**Which leads?**" in readme
        and "Expected beforehand: The CNN." in readme
    )
    assert "| resnet | - | 36.0" in readme and "shares/errors.svg" in readme and "18 runs, seeds 0, 1" in readme
    assert "2 of the 20 planned runs have no result: 1 failed, 1 missing" in readme
    assert "`vitbench sweep study=shares.yaml data=imagefolder data.root=FOLDER`" in readme and "/home/me" not in readme
    assert done.out.splitlines()[0] == "results/shares/accuracy.md"


def test_a_table_and_a_figure_that_have_no_run_yet_are_left_out(vitbench: Cli, runs: Path, tmp_path: Path) -> None:
    later = "  later: {where: {model: [mixer]}"
    study = STUDY.replace("figures:", f"{later}}}\nfigures:") + f"{later}, x: train_images}}\n"
    (tmp_path / "shares.yaml").write_text(study)
    done = vitbench("report", "study=shares.yaml")
    assert done.code == 0 and "study=shares: tables.later is left out: where.model=[mixer]: none of 18 runs" in done.err
    assert not list((tmp_path / "results" / "shares").glob("later.*"))
    assert "later.svg" not in (tmp_path / "results" / "README.md").read_text()
    assert vitbench("report", "check=true").code == 0


def test_a_ladder_of_one_network_so_far_is_left_out(vitbench: Cli, runs: Path, tmp_path: Path) -> None:
    later = "  ladder: {whole: resnet, where: {model: resnet}}\n"
    (tmp_path / "shares.yaml").write_text(STUDY.replace("figures:", f"{later}figures:") + later)
    done = vitbench("report", "study=shares.yaml")
    assert done.code == 0
    assert "tables.ladder is left out: whole=resnet: there is no other network to compare with it" in done.err
    assert not list((tmp_path / "results" / "shares").glob("ladder.*"))


def test_what_no_probe_has_measured_yet_is_left_out(vitbench: Cli, runs: Path, tmp_path: Path) -> None:
    behaviour = "  behaviour: {value: [test_accuracy, shift.crop.chance]}\n  moved: {value: shift.crop.chance}\n"
    figure = "  moved: {y: shift.crop.chance, x: train_images}\n"
    (tmp_path / "shares.yaml").write_text(STUDY.replace("figures:", f"{behaviour}figures:") + figure)
    done = vitbench("report", "study=shares.yaml")
    why = "no run has shift.crop.chance; `vitbench probe probe=shift` measures it"
    assert done.code == 0 and f"tables.moved is left out: value=shift.crop.chance: {why}" in done.err
    assert f"figures.moved is left out: y=shift.crop.chance: {why}" in done.err
    made = tmp_path / "results" / "shares"
    assert "36.0" in (made / "behaviour.md").read_text()
    assert why in vitbench("table", "study=shares.yaml", "name=behaviour").out
    assert not list(made.glob("moved.*")) and vitbench("report", "check=true").code == 0
    misspelt = vitbench("table", "value=[test_accuracy,test_acuracy]")
    assert misspelt.code == 2 and "did you mean test_accuracy" in misspelt.err


def test_names_of_a_study_are_in_its_tables_and_not_in_its_evidence(vitbench: Cli, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "shares.yaml").write_text(STUDY + "names: {pe: {none: blind}}\n")
    assert "blind" in vitbench("table", "study=shares.yaml", "where.pe=blind").out
    vitbench("report", "study=shares.yaml")
    made = tmp_path / "results" / "shares"
    assert "| vit | blind | 21.0" in (made / "accuracy.md").read_text()
    assert "vit,blind," not in (made / "runs.csv").read_text() and "vit,none," in (made / "runs.csv").read_text()
    assert vitbench("report", "check=true").code == 0


def test_names_of_a_study_are_in_captions_too_and_a_setting_that_is_none_is_named(
    vitbench: Cli, runs: Path, tmp_path: Path
) -> None:
    (tmp_path / "shares.yaml").write_text(STUDY + "names: {pe: {learned: table}}\n")
    out = vitbench("table", "study=shares.yaml", "where.pe=learned", "rows=model").out
    assert "pe=table" in out and "learned" not in out
    (tmp_path / "shares.yaml").write_text(STUDY + "names: {pee: {learned: table}}\n")
    assert "names.pee: did you mean pe" in vitbench("table", "study=shares.yaml").err


def test_runs_of_before_have_accuracy_by_cost(vitbench: Cli, runs: Path, tmp_path: Path) -> None:
    vitbench("report", "study=shares.yaml")
    path = tmp_path / "results" / "shares" / "runs.csv"
    path.with_name(SUMS).unlink()  # there was none
    lines = list(csv.reader(path.read_text().splitlines()))
    kept = [i for i, name in enumerate(lines[0]) if "_per_" not in name]
    assert len(kept) < len(lines[0])
    path.write_text("".join(",".join('"' + line[i].replace('"', '""') + '"' for i in kept) + "\n" for line in lines))
    loaded = read_evidence(path)
    assert {row["test_accuracy_per_million_parameters"] for row in loaded.rows if row["model"] == "resnet"} >= {
        next(row["test_accuracy"] for row in loaded.rows if row["model"] == "resnet") / 0.11
    }


def test_a_study_without_figures_has_a_report_that_holds(vitbench: Cli, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "shares.yaml").write_text(STUDY[: STUDY.index("figures:")])
    assert vitbench("report", "study=shares.yaml").code == 0
    assert vitbench("report", "check=true").code == 0
    assert not list((tmp_path / "results" / "shares").glob("*.svg")) and not (tmp_path / "results/shares/.svg").exists()


def test_a_fit_warns_of_the_runs_that_it_fitted(vitbench: Cli, runs: Path, tmp_path: Path) -> None:
    figure = "  errors: {x: train_images, y: test_loss, fit: true, where: {pe: [none, learned]}}\n"
    (tmp_path / "shares.yaml").write_text(STUDY[: STUDY.index("  errors:")] + figure)
    for path in runs.glob("None-*/record.json"):  # the ResNets, which the figure leaves out
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"commit": "other"}))
    for path in runs.glob("*/record.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"test_loss": 2 - record["test_accuracy"]}))
    assert vitbench("report", "study=shares.yaml").code == 0
    fitted = (tmp_path / "results" / "shares" / "fit.md").read_text()
    assert "test loss e over n" in fitted and "mixed commit" not in fitted
    assert "mixed commit" in (tmp_path / "results" / "shares" / "accuracy.md").read_text()


def test_results_are_made_again_without_the_runs(vitbench: Cli, runs: Path, tmp_path: Path) -> None:
    vitbench("report", "study=shares.yaml")
    results = tmp_path / "results"
    before = {path: path.read_bytes() for path in results.rglob("*.*")}
    shutil.rmtree(runs)
    for path in (results / "README.md", results / "shares" / "accuracy.md", results / "shares" / "errors.svg"):
        path.unlink()
    assert vitbench("report").code == 0
    assert {path: path.read_bytes() for path in results.rglob("*.*")} == before


def test_what_was_typed_comes_through_a_second_report(vitbench: Cli, runs: Path, tmp_path: Path) -> None:
    vitbench("report", "study=shares.yaml")
    first = (tmp_path / "results" / "shares" / "study.yaml").read_text()
    (tmp_path / "results" / "shares" / "study.yaml").unlink()
    shutil.rmtree(next(runs.glob("None-*")))  # so that its row is kept
    vitbench("report", "study=shares.yaml")
    assert (tmp_path / "results" / "shares" / "study.yaml").read_text() == first
    assert first.startswith("# $ vitbench sweep study=shares.yaml data=imagefolder data.root=FOLDER\ntitle:")


@pytest.mark.parametrize(
    ("typed", "again"),
    [
        ("./my studies/shares.yaml", "'study=my studies/shares.yaml'"),
        ("shares", "study=shares"),
        ("{elsewhere}/shares.yaml", "study=FOLDER/shares.yaml"),
        ("quickstart", "study=quickstart"),
        ("{shipped}", "study=quickstart"),
    ],
)
def test_a_study_of_ones_own_is_named_by_words_that_work(
    vitbench: Cli, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, typed: str, again: str
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for folder in (tmp_path / "my studies", tmp_path / "experiments", elsewhere):
        folder.mkdir(exist_ok=True)
        (folder / "shares.yaml").write_text(f"{STUDY}\nprobes: [probe=shift]\n")
    typed = typed.format(elsewhere=elsewhere, shipped=STUDY_DIR / "quickstart.yaml")
    folder = fake_runs.quickstart(tmp_path / "runs")
    ids = sorted(path.name for path in folder.iterdir())
    remember(load_study(typed), [Planned([], {}, id_) for id_ in ids], folder, [])
    done = vitbench("report", f"study={typed}")
    assert done.code == 0, done.err
    (written,) = (tmp_path / "results").glob("*/study.yaml")
    assert written.read_text().startswith(f"# $ vitbench sweep {again}\n")
    readme = (tmp_path / "results" / "README.md").read_text()
    assert f"`vitbench sweep {again}`" in readme and f"`vitbench probe {again}`" in readme
    assert str(elsewhere) not in readme


def test_notes_are_shown_and_kept(vitbench: Cli, runs: Path, tmp_path: Path) -> None:
    vitbench("report", "study=shares.yaml")
    notes = tmp_path / "results" / "shares" / "notes.md"
    notes.write_text("# What surprised\n\nNothing.\n")
    assert vitbench("report", "check=true").code == 3  # the README does not show it yet
    assert vitbench("report", "study=shares.yaml").code == 0
    assert "### What surprised\n\nNothing." in (tmp_path / "results" / "README.md").read_text()
    assert notes.read_text() == "# What surprised\n\nNothing.\n"
    assert vitbench("report", "check=true").code == 0


def test_what_was_found_stands_above_the_tables_and_what_was_expected_below_them(
    vitbench: Cli, runs: Path, tmp_path: Path
) -> None:
    vitbench("report", "study=shares.yaml")
    notes = "# What was found\n\n**It leads.** By far.\n\n## How sure\n\nVery.\n\n# Did it hold?\n\nYes.\n"
    (tmp_path / "results" / "shares" / "notes.md").write_text(notes)
    assert vitbench("report", "study=shares.yaml").code == 0
    readme = (tmp_path / "results" / "README.md").read_text()
    parts = [
        "**Which leads?**",
        "**It leads.**",
        "Very.",
        "| resnet | - |",
        "errors.svg",
        "Expected beforehand: The CNN.",
    ]
    places = [
        readme.index(part) for part in [*parts, "### Did it hold?\n\nYes.", "Nobody trained", "2 of the 20 planned"]
    ]
    assert places == sorted(places)


def test_what_holds_for_all_tables_of_a_study_is_said_once(vitbench: Cli, runs: Path, tmp_path: Path) -> None:
    second = "  loss: {rows: [model, pe], columns: data.fraction, value: test_loss}\nfigures:"
    (tmp_path / "shares.yaml").write_text(STUDY.replace("figures:", second))
    for path in runs.glob("None-*/record.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "other"}))
    assert vitbench("report", "study=shares.yaml").code == 0
    readme = (tmp_path / "results" / "README.md").read_text()
    assert "mixed commit" not in readme and readme.count("The runs differ in their commit: ") == 1
    assert all(
        "mixed commit" in (tmp_path / "results" / "shares" / f"{name}.md").read_text() for name in ("accuracy", "loss")
    )


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("shares/accuracy.md", "36.0", "36.1", "results/shares/accuracy.md line"),
        ("shares/accuracy.csv", "0.36,", "0.36001,", "results/shares/accuracy.csv line"),
        ("README.md", "Nobody trained", "Somebody trained", "results/README.md line"),
        ("shares/runs.csv", "0.605", "0.705", "results/shares/accuracy.md line"),
        ("shares/study.yaml", "value: test_accuracy", "value: test_error", "results/shares/accuracy.md line"),
    ],
)
def test_a_changed_number_fails_the_check(
    vitbench: Cli, runs: Path, tmp_path: Path, file: str, old: str, new: str, said: str
) -> None:
    vitbench("report", "study=shares.yaml")
    assert vitbench("report", "check=true").out.startswith("results: 4 files agree with the runs.csv of shares")
    path = tmp_path / "results" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    path.with_name(SUMS).unlink(missing_ok=True)  # so that the numbers speak
    done = vitbench("report", "check=true")
    assert (done.code, done.out) == (3, "") and done.err.startswith(f"vitbench: {said}") and done.err.count("\n") == 1


def test_rounding_in_the_last_digits_passes_the_check(vitbench: Cli, runs: Path, tmp_path: Path) -> None:
    vitbench("report", "study=shares.yaml")
    table = tmp_path / "results" / "shares" / "accuracy.csv"
    table.write_text(table.read_text().replace("0.36,", "0.3600000001,"))
    table.with_name(SUMS).unlink()  # as if another machine had made it
    assert vitbench("report", "check=true").code == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made: (made / "errors.svg").unlink(), "errors.svg is missing"),
        (lambda made: (made / "accuracy.tex").unlink(), "accuracy.tex cannot be read: No such file or directory"),
        (lambda made: (made / "old.md").write_text(""), "old.md: no report makes such a file; remove it"),
        (
            lambda made: (made / "study.yaml").unlink(),
            "study.yaml is missing; `vitbench report study=shares` writes it",
        ),
        (lambda made: (made / "runs.csv").write_text("a,b\n"), "runs.csv is no runs.csv"),
    ],
)
def test_a_file_too_few_or_too_many_fails_the_check(
    vitbench: Cli, runs: Path, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    vitbench("report", "study=shares.yaml")
    (tmp_path / "results" / "shares" / SUMS).unlink()
    change(tmp_path / "results" / "shares")
    done = vitbench("report", "check=true")
    assert done.code == 3 and said in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ("value: test_accuracy", "value: test_accuracies", "value=test_accuracies: did you mean test_accuracy"),
        ("errors: {", "errors: {labels: [One], ", "study=shares: figures.errors: labels=[One]: "),
    ],
)
def test_a_report_that_is_refused_leaves_the_one_before_as_it_was(
    vitbench: Cli, runs: Path, tmp_path: Path, right: str, wrong: str, line: str
) -> None:
    assert vitbench("report", "study=shares.yaml").code == 0
    made = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()}
    assert right in STUDY
    (tmp_path / "shares.yaml").write_text(STUDY.replace(right, wrong))
    done = vitbench("report", "study=shares.yaml")
    assert done.code == 2 and line in done.err.splitlines()[-1]
    assert made == {path: path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()}


def test_what_is_not_there_gets_one_line(vitbench: Cli, runs: Path) -> None:
    assert vitbench("report").err.startswith("vitbench: results=results: no study there; `vitbench report study=NAME`")
    assert "study=quickstrat: did you mean quickstart?" in vitbench("report", "study=quickstrat").err
    assert vitbench("report", "study=quickstart").code == 2
    vitbench("report", "study=shares.yaml")
    done = vitbench("report", "study=quickstart", "check=true")
    assert (done.code, done.err) == (2, "vitbench: study=quickstart: not in results; there: shares\n")
    assert vitbench("report", "study=shares.yaml", "check=true").code == 0
