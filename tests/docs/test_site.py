"""The site that `make docs` makes of docs/: whole, without a request to another host, and readable on a phone."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.commands import ROOT
from tests.pages.axe import needs_chromium, violations

DOCS = ROOT / "docs"
PHONE = 390  # pixels
# tells which elements stick out of a page, but for those in a box that scrolls
TELL = """<script>
const scrolls = element => /auto|scroll/.test(getComputedStyle(element).overflowX);
function isCut(element) {
  if (element.getBoundingClientRect().right <= innerWidth + 1) return false;
  for (let outer = element.parentElement; outer.tagName !== "ARTICLE"; outer = outer.parentElement)
    if (scrolls(outer)) return false;
  return true;
}
addEventListener("load", () => parent.postMessage(
  [NAME, [...document.querySelectorAll("article *")].filter(isCut).map(one => one.outerHTML.slice(0, 99))], "*"));
</script>"""
FRAMES = """<body><pre id="told"></pre><script>
const told = document.getElementById("told"), cut = {};
addEventListener("message", event => { cut[event.data[0]] = event.data[1]; told.textContent = JSON.stringify(cut); });
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, as `make docs` makes it: what Sphinx warns of is an error, such as a broken link."""
    pytest.importorskip("sphinx", reason="the site is made with the extra docs")
    folder = tmp_path_factory.mktemp("site")
    words = ["--fail-on-warning", "--keep-going", "--nitpicky", "--quiet", "-c", "docs", "-b", "html"]
    words = [sys.executable, "-m", "sphinx", *words, "-d", str(folder / "trees"), ".", str(folder / "html")]
    made = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder / "html"


def pages_of(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_every_page_of_docs_is_a_page_of_the_site_and_stands_in_its_menu(site: Path) -> None:
    names = {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md")}
    assert names <= {str(page.relative_to(site / "docs").with_suffix("")) for page in pages_of(site / "docs")}
    home = (site / "docs" / "index.html").read_text(encoding="utf-8")
    menu = re.findall(r'<a class="reference internal" href="([^"#]+)\.html">', home)
    assert names - {"index"} <= {*menu} and "../results/README" in menu


def test_the_address_of_the_site_leads_to_its_first_page(site: Path) -> None:
    (target,) = re.findall(r'http-equiv="refresh" content="0; url=([^"]+)"', (site / "index.html").read_text())
    assert (site / target).is_file()


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    loaded: list[str] = []
    for page in pages_of(site):
        text = page.read_text(encoding="utf-8")
        loaded += re.findall(r'\bsrc(?:set)?="([^"]*)"', text) + re.findall(r'<link\b[^>]*\bhref="([^"]*)"', text)
    for style in site.rglob("*.css"):
        loaded += re.findall(r"""(?:url\(|@import )["']?([^"')]+)""", style.read_text(encoding="utf-8"))
    assert len(loaded) > 100 and [address for address in loaded if re.match(r"(https?:)?//", address)] == []


def test_a_link_to_a_setting_leads_to_its_line(site: Path) -> None:
    records = (site / "docs" / "reference" / "records.html").read_text(encoding="utf-8")
    settings = (site / "docs" / "reference" / "settings.html").read_text(encoding="utf-8")
    anchors = {*re.findall(r'href="settings\.html#([^"]+)"', records)}
    assert len(anchors) > 50 and anchors <= {*re.findall(r'\bid="([^"]+)"', settings)}


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", "reference/settings.html"])
def test_a_page_has_nothing_serious_or_critical(site: Path, name: str, dark: bool) -> None:
    page = site / "docs" / name
    assert violations(page.read_text(encoding="utf-8"), page.parent, dark) == []


def in_browser(address: str) -> str:
    """What a page has become once it is loaded and its scripts have run."""
    words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000", "--dump-dom"]
    return subprocess.run([*words, address], capture_output=True, text=True, timeout=600).stdout


@pytest.mark.slow
@needs_chromium
def test_no_page_is_wider_than_a_phone_and_a_wide_one_would_be_told(site: Path) -> None:
    frames = FRAMES
    begins = (site / "docs" / "index.html").read_text(encoding="utf-8")
    (site / "wide.html").write_text(begins.replace("</h1>", "</h1><div style='width: 600px'>wide</div>", 1))
    for number, page in enumerate(pages_of(site)):
        name = str(page.relative_to(site))
        text = page.read_text(encoding="utf-8")
        copy = page.with_name(f"phone{number}.html")
        copy.write_text(text.replace("</body>", TELL.replace("NAME", json.dumps(name)) + "</body>"))
        frames += f'<iframe src="{copy.relative_to(site)}" width="{PHONE}" height="844"></iframe>'
    (site / "phone.html").write_text(frames)
    shown = re.findall('<pre id="told">(.*?)</pre>', in_browser((site / "phone.html").as_uri()))
    cut = json.loads(html.unescape(shown[0]))
    assert len(cut) > 20 and cut.pop("wide.html")
    assert {name: elements for name, elements in cut.items() if elements} == {}


@pytest.mark.slow
@needs_chromium
def test_the_search_works_without_a_server(site: Path) -> None:
    shown = in_browser(f"{(site / 'search.html').as_uri()}?q=certificate")
    found = shown.partition('class="search"')[2].partition("</ul>")[0]
    assert "reference/study-files.html" in found and "exit-codes.html" not in found
