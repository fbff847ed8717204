from __future__ import annotations

import ast
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
TREE = re.search(r"## The code\n\n((?:    .*\n|\n)+)", (ROOT / "CONTRIBUTING.md").read_text())


def test_the_map_of_the_code_names_every_room_and_every_file_at_the_root_and_no_other() -> None:
    assert TREE is not None
    package = ROOT / "vitbench"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    files = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"^ {6}(\w+)/", TREE[1], re.MULTILINE)) == rooms
    assert set(re.findall(r"\b(\w+\.py)", TREE[1])) == files
    assert all((ROOT / folder).is_dir() for folder in re.findall(r"^ {4}(\w+)/", TREE[1], re.MULTILINE))


def test_tests_lie_in_the_rooms_of_what_they_test() -> None:
    rooms = {path.parent.name for path in (ROOT / "vitbench").glob("*/__init__.py")}
    assert {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")} == rooms | {
        "gpu",
        "fuzz",
        "docs",
    }  # what needs a GPU, what reads files of all rooms, and the documents


def test_no_function_has_more_than_80_lines() -> None:
    long = []
    for path in [*ROOT.glob("vitbench/**/*.py"), *ROOT.glob("hydra_plugins/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                long += [f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"] if lines > 80 else []
    assert not long


def test_links_of_the_documentation_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_of_the_readme_exist() -> None:
    from vitbench.cli import COMMANDS

    for command in re.findall(r"^ +vitbench (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert command in COMMANDS


def test_no_file_names_a_machine() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for name in files or [str(path.relative_to(ROOT)) for path in ROOT.glob("vitbench/**/*.py")]:
        if (ROOT / name).suffix in (".py", ".md", ".yaml", ".toml"):
            assert "/work/" not in (ROOT / name).read_text().replace('"/work/"', ""), name


def test_the_citation_and_the_changelog_name_the_version() -> None:
    from vitbench.version import __version__

    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    assert re.search(r"^## (\S+) ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == __version__  # type: ignore[index]


def test_the_dockerfile_copies_what_is_there_and_what_the_build_may_see() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert sources and all((ROOT / source).exists() for source in sources)
    seen = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert seen == sources


@pytest.mark.slow
def test_wheel_and_source_distribution_can_be_uploaded(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "build", "--outdir", tmp_path, ROOT], check=True, capture_output=True)
    files = [*tmp_path.glob("*")]
    assert {path.suffix for path in files} == {".whl", ".gz"}
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True)


@pytest.mark.slow
def test_the_wheel_works_from_another_folder(tmp_path: Path) -> None:
    """The wheel is built, installed into a new environment that borrows the dependencies, and run there."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True, capture_output=True)
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(dependencies) + "\n")
    program = tmp_path / "env" / "bin" / "vitbench"

    def vitbench(*words: str) -> str:
        return subprocess.run([program, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    where = subprocess.run(
        [python, "-c", "import vitbench; print(vitbench.__file__)"], cwd=tmp_path, capture_output=True, text=True
    )
    assert str(site) in where.stdout
    assert "quickstart" in vitbench("ls", "studies")
    assert "peak learning rate" in vitbench("train", "--help"), "the wheel has the source that the sentences stand in"
    assert "finished" in vitbench("train", "pe=rope", "data.train_images=100", "data.test_images=20", "optim.steps=2")
    assert "27 to do" in vitbench("sweep", "study=quickstart", "dry_run=true", "hydra/launcher=stacked")
