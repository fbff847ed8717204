"""The pages of docs/reference/ that are written by hand name everything that there is."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from textwrap import dedent

import pytest

import vitbench
from tests.docs.commands import ROOT
from vitbench import errors
from vitbench.comparing.table import TABLE_KEYS
from vitbench.plot import FIGURE_KEYS
from vitbench.runs.plan import plan
from vitbench.runs.study import CERTIFY_FIELDS, FIELDS, PICTURE_KEYS, RESERVED, Study, load_study

REFERENCE = ROOT / "docs" / "reference"
KEYS = {
    "The keys of the file": FIELDS,
    "certify": CERTIFY_FIELDS,
    "tables": [*TABLE_KEYS, "where"],
    "figures": [*FIGURE_KEYS, "where"],
    "pictures": PICTURE_KEYS,
}


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """The part of a page below a heading, up to the next heading."""
    return re.split(rf"^#+ {re.escape(title)}\n", text, flags=re.MULTILINE)[1].partition("\n#")[0]


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The study that docs/reference/study-files.md shows, in the place that it names."""
    (text,) = re.findall(r"```yaml\n(.*?)```", page("study-files.md"), re.DOTALL)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return load_study("mine")


@pytest.mark.parametrize("title", KEYS)
def test_every_key_of_a_study_file_has_a_line(title: str) -> None:
    assert sorted(first_cells(section(page("study-files.md"), title))) == sorted(KEYS[title])


def test_the_example_has_every_key_of_the_file(example: Study) -> None:
    keys = {"with" if key == "common" else key for key, value in vars(example).items() if value}
    assert keys - {"name"} == {*FIELDS}


def test_the_example_has_as_many_runs_as_the_page_says(example: Study) -> None:
    planned = plan(example)
    certificates = [run for run in planned if run.certifies]
    said = f"It has {len(planned) - len(certificates)} runs and {len(certificates)} certificates"
    assert said in page("study-files.md")


def test_the_layouts_of_the_example_are_those_that_table_and_plot_take(example: Study) -> None:
    assert all({*layout} <= {*TABLE_KEYS, "where"} for layout in example.tables.values())
    assert all({*layout} <= {*FIGURE_KEYS, "where"} for layout in example.figures.values())


def test_names_that_no_table_can_have_are_named() -> None:
    assert all(f"`{name}`" in section(page("study-files.md"), "tables") for name in RESERVED)


def test_every_exit_code_has_a_line() -> None:
    lines = re.findall(r"^\| (\d+) \|", page("exit-codes.md"), re.MULTILINE)
    raised = {kind.exit_code for kind in vars(errors).values() if inspect.isclass(kind) and hasattr(kind, "exit_code")}
    assert {*map(int, lines)} == raised | {0, 130, 143}


def test_every_variable_of_the_environment_that_vitbench_has_is_named() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "vitbench").rglob("*.py"))
    own = {*re.findall(r"""["'](VITBENCH_[A-Z]+)["']""", sources)}
    assert own and own <= {*first_cells(section(page("exit-codes.md"), "Environment variables"))}


def test_every_function_of_the_package_has_a_line_with_its_arguments() -> None:
    declared = []
    for name in vitbench.__all__:
        if inspect.isfunction(its := getattr(vitbench, name)):
            signature = inspect.signature(its)
            bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
            declared.append(f"{name}{inspect.Signature(bare)}")
    assert sorted(declared) == sorted(first_cells(section(page("python.md"), "The functions")))


def test_the_python_that_the_page_shows_calls_what_there_is() -> None:
    blocks = re.findall(r"(?:^    .*\n|^\n)+", page("python.md"), re.MULTILINE)
    called = set()
    for block in filter(str.strip, blocks):
        nodes = ast.walk(ast.parse(dedent(block)))
        called |= {
            node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "vitbench"
        }
    assert called == {"train", "sweep", "runs", "fit", "probe", "load", "UserError"}
