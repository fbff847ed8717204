"""What a probe drew of a network stays with a study's results, on its page, and outlives the run."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fake_runs
from tests.conftest import Output
from vitbench.reporting.pictures import END_OF_PNG
from vitbench.runs.plan import Planned, remember
from vitbench.runs.study import load_study

Cli = Callable[..., Output]
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8) + b"\0\0\4\0" + b"as a probe left it"
STUDY = """\
title: Inside
question: What is in there?
runs: ['model=vit pe=none,learned data.fraction=0.05,0.2,1 seed=0,1']
tables:
  accuracy: {rows: [model, pe], columns: data.fraction, value: test_accuracy}
pictures:
  two_paths: {probe: equivariance, where: {model: resnet, data.fraction: 0.2}, caption: Two <paths>}
  encoding: {probe: pe_similarity, where: {pe: learned, data.fraction: 0.2}, checkpoint: init}
"""


def write_study(tmp_path: Path, text: str = STUDY) -> None:
    """Writes a study of fake runs, of which nobody drew a picture yet."""
    folder = fake_runs.quickstart(tmp_path / "runs")
    (tmp_path / "inside.yaml").write_text(text)
    ids = sorted(path.name for path in folder.iterdir())
    remember(load_study(str(tmp_path / "inside.yaml")), [Planned([], {}, id_) for id_ in ids], folder, [])


def draw(tmp_path: Path, pattern: str, name: str, blob: bytes) -> None:
    """Leaves a picture where `vitbench probe` does, in each run of a name."""
    folders = [*(tmp_path / "runs").glob(pattern)]
    assert folders
    for folder in folders:
        (folder / "probes").mkdir(exist_ok=True)
        (folder / "probes" / name).write_bytes(
            blob + folder.name.encode() + END_OF_PNG if name.endswith(".png") else blob
        )


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    write_study(tmp_path)
    draw(tmp_path, "None-0.2-*", "equivariance.svg", SVG)
    draw(tmp_path, "learned-0.2-*", "pe_similarity.init.png", PNG)
    return tmp_path / "results" / "inside"


def test_pictures_of_the_first_seed_stand_with_the_numbers_and_on_the_page(
    vitbench: Cli, drawn: Path, tmp_path: Path
) -> None:
    done = vitbench("report", "study=inside.yaml")
    assert done.code == 0 and "left out" not in done.err, done.err
    assert (drawn / "two_paths.svg").read_bytes() == SVG
    first = tmp_path / "runs" / "learned-0.2-0"
    assert (drawn / "encoding.png").read_bytes() == PNG + first.name.encode() + END_OF_PNG
    page = (tmp_path / "results" / "index.html").read_text()
    held = {base64.b64decode(text) for text in re.findall(r'src="data:image/[a-z+]+;base64,([^"]+)"', page)}
    assert held == {SVG, (drawn / "encoding.png").read_bytes()}
    assert "Two &lt;paths&gt;" in page and 'width="512"' in page
    assert "](inside/two_paths.svg)" in (tmp_path / "results" / "README.md").read_text()
    assert vitbench("report", "check=true").code == 0


def test_a_picture_outlives_its_run_and_a_changed_one_is_noticed(vitbench: Cli, drawn: Path, tmp_path: Path) -> None:
    assert vitbench("report", "study=inside.yaml").code == 0
    for folder in (tmp_path / "runs").glob("None-0.2-*"):
        shutil.rmtree(folder)
    assert vitbench("report", "study=inside.yaml").code == 0
    assert (drawn / "two_paths.svg").read_bytes() == SVG
    (drawn / "two_paths.svg").write_bytes(SVG[:-1])
    done = vitbench("report", "check=true")
    assert done.code != 0 and "two_paths.svg" in done.err


def test_a_picture_that_nobody_drew_is_left_out_with_the_command_that_draws_it(vitbench: Cli, tmp_path: Path) -> None:
    write_study(tmp_path)
    done = vitbench("report", "study=inside.yaml")
    assert done.code == 0
    assert "pictures.two_paths is left out" in done.err and "`vitbench probe study=inside`" in done.err
    assert vitbench("report", "check=true").code == 0


def link_out(path: Path) -> None:
    secret = path.parents[3] / "secret.svg"
    secret.write_bytes(SVG + b"secret")
    path.unlink()
    path.symlink_to(secret)


def make_huge(path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(17_000_000)


@pytest.mark.parametrize(
    "spoil",
    [
        link_out,
        make_huge,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"root:x:0:0"),
        lambda path: path.write_bytes(SVG.replace(b"<path", b"<script>alert(1)</script><path")),
        lambda path: path.write_bytes(SVG.replace(b"<path", b'<path onload="alert(1)"')),
    ],
    ids=["link", "huge", "empty", "text", "script", "handler"],
)
def test_what_no_probe_drew_is_left_out(
    vitbench: Cli, drawn: Path, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    spoil(tmp_path / "runs" / "None-0.2-0" / "probes" / "equivariance.svg")
    done = vitbench("report", "study=inside.yaml")
    assert done.code == 0 and done.err.count("pictures.two_paths is left out") == 1, done.err
    assert not (drawn / "two_paths.svg").exists() and (drawn / "encoding.png").exists()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("probe: equivariance", "probe: shift", "pictures.two_paths: probe=shift"),
        ("probe: equivariance", "probe: [equivariance]", "pictures.two_paths.probe"),
        ("probe: equivariance, ", "", "pictures.two_paths must say which probe"),
        ("caption: Two", "captoin: Two", "did you mean caption?"),
        ("where: {model: resnet, data.fraction: 0.2}", "where: {model: resnet}", "a picture is of one"),
        ("where: {model: resnet,", "where: {modle: resnet,", "did you mean model?"),
        ("  two_paths:", "  ../two_paths:", "is the name of a file"),
        ("  two_paths:", f"  {'a' * 101}:", "up to 100 letters"),
        ("checkpoint: init", "checkpoint: /../../x", "pictures.encoding.checkpoint"),
    ],
)
def test_a_wrong_picture_is_one_line(
    vitbench: Cli, drawn: Path, tmp_path: Path, before: str, after: str, said: str
) -> None:
    assert before in STUDY
    (tmp_path / "inside.yaml").write_text(STUDY.replace(before, after, 1))
    done = vitbench("report", "study=inside.yaml")
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1, done.err
    assert not (tmp_path / "results").exists()
