"""The notebook of examples/ is executed as a reader would, and is kept without outputs, which would grow old."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "from_images_to_verdict.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def printed(cell: dict[str, Any]) -> str:
    """What a cell has printed, its warnings and progress not included."""
    return "".join("".join(output["text"]) for output in cell["outputs"] if output.get("name") == "stdout")


def test_the_notebook_is_kept_without_outputs() -> None:
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_the_links_of_the_notebook_lead_somewhere() -> None:
    text = "".join("".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert links and all((NOTEBOOK.parent / link).exists() for link in links)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*without encryption")
def test_the_notebook_goes_from_images_to_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    monkeypatch.setenv("VITBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parent.parent))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources=place
    ).execute()  # raises with a cell
    cells = {"".join(cell["source"]): cell for cell in notebook["cells"] if cell["cell_type"] == "code"}
    (verdict,) = [printed(cell) for source, cell in cells.items() if "found.sentences" in source]
    title, *sentences = verdict.splitlines()
    assert title.startswith("vit pe=sincos2d against resnet") and sentences
    assert re.match(r"- .*(error|errs|cannot|crossover|budget)", sentences[0]), sentences
    (notes,) = [printed(cell) for source, cell in cells.items() if "found.notes" in source]
    assert "only large differences" in notes
    images = [output for cell in cells.values() for output in cell["outputs"] if "image/png" in output.get("data", {})]
    assert len(images) == 2, "the sheet of images, and the curves"
    assert len(list((tmp_path / "runs").glob("*/record.json"))) == 18
