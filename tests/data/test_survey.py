from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.test_similar import photograph
from vitbench.data import survey as survey_module
from vitbench.data.decode import decode
from vitbench.data.survey import Survey, survey


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photographs of several kinds, and two damaged files."""
    (tmp_path / "images").mkdir()
    image, exif = photograph((96, 72)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "images" / "a.png")
    image.save(tmp_path / "images" / "b.jpg", exif=exif)
    image.convert("CMYK").save(tmp_path / "images" / "c.jpg")
    image.convert("RGBA").save(tmp_path / "images" / "d.png")
    image.save(tmp_path / "images" / "e.gif", save_all=True, append_images=[photograph((96, 72))])
    (tmp_path / "images" / "f.jpg").write_bytes((tmp_path / "images" / "b.jpg").read_bytes()[:-400])
    (tmp_path / "images" / "g.png").write_text("no image")
    return tmp_path / "images"


def looked_at(folder: Path, **options: int) -> Survey:
    paths = sorted(folder.iterdir())
    stamps = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return survey([str(path) for path in paths], stamps, folder.parent / "cache", **options)


def test_facts_are_those_of_the_headers(folder: Path) -> None:
    a, b, c, d, e, *_ = looked_at(folder).facts
    assert (a.width, a.height, a.mode, a.format) == (96, 72, "RGB", "PNG")
    assert [facts.turned for facts in (a, b, c, d, e)] == [False, True, False, False, False]
    assert c.mode == "CMYK" and d.transparent and not a.transparent and e.frames == 2 and a.frames == 1
    assert all(facts.error is None for facts in (a, b, c, d, e))


def test_a_damaged_file_is_reported_and_its_thumbnail_is_black(folder: Path) -> None:
    found = looked_at(folder)
    assert found.facts[6].error == "not an image" and "truncated" in str(found.facts[5].error)
    assert found.facts[5].width == 96  # its header can be read
    assert not found.thumbnails[5:].any()


def test_a_thumbnail_is_what_a_network_of_32_px_gets(folder: Path) -> None:
    found = looked_at(folder)
    for row, name in enumerate(("a.png", "b.jpg", "c.jpg")):
        assert np.array_equal(found.thumbnails[row], decode(folder / name, 32))


def test_the_second_look_reads_the_cache_and_a_changed_file_is_looked_at_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, looks = looked_at(folder), []
    look_at = survey_module.look_at
    monkeypatch.setattr(survey_module, "look_at", lambda path: looks.append(path) or look_at(path))
    again = looked_at(folder)
    assert looks == [] and again.facts == first.facts and np.array_equal(again.thumbnails, first.thumbnails)
    os.utime(folder / "a.png", (1, 1))
    assert looked_at(folder).facts == first.facts and len(looks) == 7


def test_a_damaged_memory_is_made_anew(folder: Path) -> None:
    first = looked_at(folder)
    [kept] = (folder.parent / "cache" / "surveys").iterdir()
    for damage in (b"", b"no archive", kept.read_bytes()[:-100]):
        kept.write_bytes(damage)
        assert looked_at(folder).facts == first.facts


def test_a_memory_that_cannot_be_written_is_not_needed(folder: Path) -> None:
    (folder.parent / "cache").write_text("a file")
    assert len(looked_at(folder).facts) == 7


@pytest.mark.slow
def test_several_processes_see_what_one_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_module, "CHUNK", 2)
    alone = looked_at(folder, workers=1)
    (folder.parent / "cache").rename(folder.parent / "other")
    together = looked_at(folder, workers=2)
    assert together.facts == alone.facts and np.array_equal(together.thumbnails, alone.thumbnails)
