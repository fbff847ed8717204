"""The page of `vitbench report`: whole by itself, escaped, with the values of its figures and tables."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from tests import fake_runs
from tests.conftest import Output
from vitbench import reporting
from vitbench.reporting.page import linked
from vitbench.runs.plan import Planned, remember
from vitbench.runs.study import load_study, study_names

Cli = Callable[..., Output]
FOREIGN = "<script>alert(1)</script>"
STUDY = f"""\
title: Shares {FOREIGN}
question: Which leads?
expect: The CNN.
notes: "Nobody trained these. {FOREIGN}"
runs: ['model=vit pe=none,learned data.fraction=0.05,0.2,1 seed=0,1']
tables:
  accuracy: {{rows: [model, pe], columns: data.fraction, value: test_accuracy}}
figures:
  errors: {{x: train_images, y: test_error, log: xy}}
  beside: {{x: model, y: test_accuracy}}
"""
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Elements(HTMLParser):
    """Each element of a page with its attributes, its text, and whether all that was opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture
def page(vitbench: Cli, tmp_path: Path) -> str:
    folder = fake_runs.quickstart(tmp_path / "runs")
    (tmp_path / "shares.yaml").write_text(STUDY)
    ids = sorted(path.name for path in folder.iterdir())
    remember(load_study(str(tmp_path / "shares.yaml")), [Planned([], {}, id_) for id_ in ids], folder, [])
    done = vitbench("report", "study=shares.yaml")
    assert done.code == 0, done.err
    assert done.out.endswith("results/index.html\n")
    return (tmp_path / "results" / "index.html").read_text()


def test_the_page_is_whole_and_takes_nothing_from_elsewhere(page: str) -> None:
    elements = Elements(page)
    assert elements.open == [] and len(page) < 5_000_000
    for tag, attributes in elements.all:
        assert tag not in ("link", "iframe", "object", "base"), (tag, attributes)
        assert (attributes.get("src") or "data:image/").startswith("data:image/"), (tag, attributes)
        for name in ("href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest", page)


def test_each_id_is_there_once_and_each_link_has_its_target(page: str) -> None:
    elements = Elements(page)
    ids = Counter(attributes["id"] for _, attributes in elements.all if "id" in attributes)
    assert set(ids.values()) == {1}
    links = {attributes.get("href") or attributes.get("xlink:href") for _, attributes in elements.all} - {None}
    links |= {attributes["aria-labelledby"] for _, attributes in elements.all if "aria-labelledby" in attributes}
    assert {str(link).removeprefix("#") for link in links} <= ids.keys()
    assert {*re.findall(r"url\(#([^)]+)\)", page)} <= ids.keys()


def test_what_anyone_wrote_shows_as_text(page: str) -> None:
    elements = Elements(page)
    assert [tag for tag, _ in elements.all].count("script") == 1 and FOREIGN not in page
    assert f"Shares {FOREIGN}" in elements.text and f"Nobody trained these. {FOREIGN}" in elements.text


def test_points_of_figures_and_cells_of_tables_tell_their_values_and_their_n(page: str, tmp_path: Path) -> None:
    exact = {attributes["title"] for tag, attributes in Elements(page).all if tag == "td" and "title" in attributes}
    assert len(exact) == 9
    told = re.findall(r"<title>([^<]*)</title>", page)[1:]
    errors = [line for line in told if "training images" in line and "test error" in line]
    beside = [line for line in told if line.startswith(("ViT; ", "ResNet; ")) or "; ViT; " in line]
    assert len(errors) == 9 and beside and all("mean of 2 runs" in line for line in errors)
    (cell,) = [line for line in exact if line and line.startswith("mean 0.36")]  # resnet at 0.05
    mean = float(cell.split()[1].rstrip(","))
    (point,) = [
        line for line in errors if line.startswith("ResNet") and f"test error, % {100 * (1 - mean):.4g}" in line
    ]
    low, high = (float(end) for end in re.findall(r"interval ([\d.]+) to ([\d.]+)", cell)[0])
    assert f"95 % interval {100 * (1 - high):.4g} to {100 * (1 - low):.4g}" in point and cell.endswith("n=2")


def test_a_heading_comes_below_the_one_above_it_and_tables_have_heads_and_captions(page: str) -> None:
    elements = Elements(page)
    levels = [int(tag[1]) for tag, _ in elements.all if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and all(below - above <= 1 for above, below in pairwise(levels))
    tags = Counter(tag for tag, _ in elements.all)
    assert tags["table"] == tags["caption"] == tags["thead"]
    assert all(a.get("scope") in ("col", "row") for tag, a in elements.all if tag == "th")
    assert all(a.get("role") == "img" and a.get("aria-label") for tag, a in elements.all if tag == "svg")


def test_each_study_that_comes_with_vitbench_is_in_one_group_of_the_page() -> None:
    groups = yaml.safe_load((Path(reporting.__file__).parent / "templates" / "groups.yaml").read_text())
    assert sorted(name for group in groups for name in group["studies"]) == study_names()


def test_the_first_sentence_below_a_figure_stands_alone() -> None:
    for name in study_names():
        sentence = load_study(name).caveat
        assert 15 < len(sentence) < 140 and sentence[0].isupper() and sentence.endswith("."), (name, sentence)


def test_a_term_is_linked_where_it_stands_first_and_not_within_another_word() -> None:
    assert str(linked("A ViT, a ViT & <b>")).count("<a ") == 1
    assert "<a " not in linked("ViTs and model.pe=none") and "&lt;b&gt;" in linked("<b>")
    assert "<code>x</code>" in linked("type `x`")


def test_a_table_of_the_notes_scrolls_within_itself_and_what_was_found_stands_in_the_list(
    vitbench: Cli, page: str, tmp_path: Path
) -> None:
    notes = (
        "# What was found\n\n**It leads.** By far.\n\n| a | b |\n|--|--|\n| 1 | 2 |\n\n# Did it hold?\n\nYes indeed.\n"
    )
    for name in ("shares", "other"):
        folder = tmp_path / "results" / name
        if name == "other":
            shutil.copytree(tmp_path / "results" / "shares", folder)
        (folder / "notes.md").write_text(notes)
    assert vitbench("report").code == 0
    made = (tmp_path / "results" / "index.html").read_text()
    assert made.count('<div class="wide" tabindex="0"><table>') == 2
    contents = made[made.index('<h2 id="contents">') : made.index("</nav>")]
    assert contents.count(": It leads.</li>") == 2 and "By far" not in contents
    first = made[made.index('<section id="other"') :]
    parts = ["By far", "<figure id=", "<caption>", "What was expected", "Yes indeed", "What this cannot show"]
    assert [first.index(part) for part in parts] == sorted(first.index(part) for part in parts)


def test_file_is_a_page_of_one_study_alone(vitbench: Cli, page: str, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("mine")
    refused = vitbench("report", "study=shares.yaml", "file=mine.html")
    assert refused.code == 2 and (tmp_path / "mine.html").read_text() == "mine" and refused.err.count("\n") == 1
    assert vitbench("report", "study=shares.yaml", "file=page.html").code == 0
    one = (tmp_path / "page.html").read_text()
    assert "Which leads?" in one and 'id="contents"' not in one
    for words, line in ((["file=page.pdf"], "must end in .html"), (["file=p.html", "check=true"], "leave file= out")):
        refused = vitbench("report", "study=shares.yaml", *words)
        assert refused.code == 2 and line in refused.err


def test_a_page_that_somebody_else_wrote_stays(vitbench: Cli, page: str, tmp_path: Path) -> None:
    index = tmp_path / "results" / "index.html"
    index.write_text("my home page")
    refused = vitbench("report")
    assert refused.code == 2 and "index.html was not written by" in refused.err
    assert index.read_text() == "my home page"


CLICKS = """
<script>
addEventListener("error", () => { document.title = "ERROR"; });
addEventListener("load", () => {
  const table = document.querySelector("table"), heads = table.querySelectorAll("th button");
  const column = () => [...table.tBodies[0].rows].map(row => row.cells[2].textContent.split(" ")[0]).join(" ");
  heads[2].click(); const rising = column(); heads[2].click();
  const point = document.querySelector(".point"); point.dispatchEvent(new Event("click", {bubbles: true}));
  document.title = [rising, column(), document.getElementById("value").textContent].join(" | ");
});
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no Chromium here")
def test_in_a_browser_tables_sort_and_points_tell_their_values(page: str, tmp_path: Path) -> None:
    path = tmp_path / "clicked.html"
    path.write_text(page.replace("</head>", f"{CLICKS}</head>"))
    chromium = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", path.as_uri()]
    done = subprocess.run(chromium, capture_output=True, text=True, timeout=120, check=True)
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title is not None
    rising, falling, value = title[1].split(" | ")
    numbers = [float(word) for word in rising.split()]
    assert numbers == sorted(numbers) and falling.split() == rising.split()[::-1]
    assert "test error, %" in value and "mean of 2 runs" in value
