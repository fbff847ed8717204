"""The forms in which tables are printed and written, and that no name breaks one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fake_runs
from tests.comparing.printed import NASTY, command, groups_named, printed, rows_of
from tests.conftest import Output
from vitbench.comparing import formats, table
from vitbench.comparing.select import select_runs
from vitbench.errors import UserError, check_choice
from vitbench.numbers.words import printable, shown_number

Cli = Callable[..., Output]


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    for i, name in enumerate(NASTY):
        fake_runs.write(tmp_path / "runs", str(i), 0.5, **{"data.name": name})
    return tmp_path / "runs"


@pytest.mark.parametrize("form", ["text", "md", "csv", "tex", "json"])
def test_a_file_holds_what_would_be_printed(tmp_path: Path, vitbench: Cli, form: str) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    text = vitbench("table", f"format={form}").out
    ending = next(ending for ending, name in formats.TABLE_ENDINGS.items() if name == form)
    done = vitbench("table", f"file=out/t{ending}")
    kept = (tmp_path / "out" / f"t{ending}").read_text()
    assert done.out == f"out/t{ending}\n" and kept.replace("{tab:t-", "{tab:") == text
    assert os.listdir(tmp_path / "out") == [f"t{ending}"]


def test_markdown_keeps_names_as_text(nasty: Path) -> None:
    out = printed(nasty, "md")
    assert "<" not in out and "&lt;script&gt;" in out and r"a\_b%\$\#{}" in out and r"=cmd\|'/C calc'!A0" in out
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert len({row.replace(r"\|", "").count("|") for row in rows}) == 1 and "\x1b" not in out


def test_latex_keeps_names_as_text(nasty: Path) -> None:
    out = printed(nasty, "tex")
    assert r"a\_b\%\$\#\{\}" in out and r"\textless{}script\textgreater{}" in out
    assert r"{[}bold{]}no" in out and "\x1b" not in out


def test_csv_starts_no_formula(nasty: Path) -> None:
    names = {row["data"] for row in rows_of(printed(nasty, "csv"))}
    assert names == {"'" + NASTY[2] if name == NASTY[2] else printable(name) for name in NASTY}


def test_json_holds_names_and_numbers_unchanged(nasty: Path) -> None:
    fake_runs.write(nasty, "precise", 0.123456789012345, **{"data.name": "z"})
    found = {group["settings"]["data"]: group for group in groups_named(printed(nasty, "json"))}  # type: ignore[index]
    assert set(found) == {*NASTY, "z"} and found["z"]["test_accuracy_mean"] == 0.123456789012345
    assert found["z"]["test_accuracy_ci95_low"] is None


def test_several_tables_are_no_csv(vitbench: Cli, tmp_path: Path) -> None:
    text = "runs: [model=vit seed=0]\ntables: {a: {}, b: {value: test_loss}}\n"
    (tmp_path / "two.yaml").write_text(text)
    fake_runs.write(tmp_path / "runs", planned_id(tmp_path / "two.yaml"), 0.5)
    assert "choose with name=: a, b" in vitbench("table", "study=two.yaml", "format=csv").err
    assert vitbench("table", "study=two.yaml", "format=csv", "name=b").out.count("test_loss") == 1
    both = vitbench("table", "study=two.yaml").out
    assert "\na: test accuracy in %" in both and "\nb: test loss" in both


def planned_id(path: Path) -> str:
    from vitbench.runs.plan import planned_ids
    from vitbench.runs.study import load_study

    return planned_ids(load_study(str(path)), path.parent / "runs")[0]


@pytest.mark.parametrize("width", [200, 100, 80])
def test_a_terminal_gets_every_number_whole(
    tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    runs = select_runs(str(fake_runs.quickstart(tmp_path)), {})
    made = table.build_table("", runs, rows=["model", "pe"], columns="data.fraction")
    formats.print_rich([made], "[bold]title[/bold]", [])
    out = capsys.readouterr().out
    assert out.startswith("[bold]title[/bold]\n") and max(map(len, out.splitlines())) <= width
    assert all(cell in out for line in made.lines for cell in line)


@pytest.mark.parametrize("width", [40, 10])
def test_a_narrow_terminal_folds_and_cuts_nothing(
    tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    made = table.build_table("", select_runs(str(fake_runs.quickstart(tmp_path)), {}), columns="data.fraction")
    formats.print_rich([made], "", [])
    out = capsys.readouterr().out
    words = {word for line in made.lines for cell in line for word in cell.split()} - {"-"}  # no column is called -
    assert "…" not in out and words <= {*out.split()}


def test_a_pipe_in_an_ascii_locale_gets_everything_without_torch_or_folders(nasty: Path) -> None:
    for name, accuracy in (("a", 0.49), ("b", 0.51)):
        fake_runs.write(nasty, name, accuracy, seed=int(name == "b"))
    before = sorted(nasty.parent.rglob("*"))
    done = command("table", cwd=nasty.parent, LC_ALL="C", PYTHONIOENCODING="ascii", COLUMNS="20")
    assert done.stderr == b"" and b"50.0 +- n/a" in done.stdout and b"\\xfcml\\xe4ut" in done.stdout
    assert b"\x1b" not in done.stdout and sorted(nasty.parent.rglob("*")) == before


def test_numbers_for_people_keep_their_size() -> None:
    assert [shown_number("multiply_adds", n, 0) for n in (450_000, 14_900_000, 1_297_829_888, 4_000)] == [
        "0.45 M",
        "14.9 M",
        "1,298 M",
        "0.004 M",
    ]
    with pytest.raises(UserError, match="did you mean"):
        check_choice("value", "test_acuracy", ["test_accuracy"])
