"""A dry run writes nothing, wherever its folders are, and refuses in one line what the sweep would refuse."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY, Output
from vitbench.sweeping import sweep

Cli = Callable[..., Output]
STUDY = "title: S\nquestion: Q?\nruns:\n  - model=vit pe=learned seed=range(2)\n"


@pytest.fixture
def dry(vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Output]:
    """`vitbench sweep dry_run=true` of two runs, without the estimate of their time."""
    monkeypatch.setattr(sweep, "expected", lambda *arguments: "")
    (tmp_path / "s.yaml").write_text(STUDY)
    return lambda *words: vitbench("sweep", "study=s.yaml", "dry_run=true", *TINY, *words)


def a_file(place: Path) -> None:
    place.write_text("x")


def a_link_to_nothing(place: Path) -> None:
    place.symlink_to("nowhere")


def a_loop(place: Path) -> None:
    place.symlink_to(place)


@pytest.mark.parametrize("make", [a_file, a_link_to_nothing, a_loop])
@pytest.mark.parametrize("words", [["runs={}"], ["data.cache={}"], ["results={}", "evidence=true"]])
@pytest.mark.parametrize("below", ["", "/deeper"])
def test_what_is_no_folder_is_one_line(
    make: Callable[[Path], None], words: list[str], below: str, dry: Callable[..., Output], tmp_path: Path
) -> None:
    make(tmp_path / "place")
    refused = dry(*(word.format(f"place{below}") for word in words))
    setting = words[0].partition("=")[0]
    assert refused.code == 4 and refused.out == "" and refused.err.count("\n") == 1
    assert refused.err.startswith(f"vitbench: {setting}=place{below}: place is a ")
    assert "where a folder is needed" in refused.err


@pytest.mark.parametrize("setting", ["runs", "data.cache"])
@pytest.mark.parametrize("make", [a_file, a_link_to_nothing, a_loop])
def test_training_refuses_the_same_in_one_line(
    make: Callable[[Path], None], setting: str, vitbench: Cli, tmp_path: Path
) -> None:
    make(tmp_path / "place")
    words = {"runs": "r", "data.cache": "c", setting: "place"}
    refused = vitbench("train", *TINY, *(f"{key}={value}" for key, value in words.items()))
    assert refused.code == 4 and refused.err.count("\n") == 1 and "place" in refused.err


def test_a_read_only_disk_is_enough(
    dry: Callable[..., Output], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk of the runs: whoever opens a file there to write, or makes one, fails."""
    name = dry("runs=r").out.split()[0]
    (tmp_path / "r" / name).mkdir(parents=True)
    (tmp_path / "r" / name / ".lock").touch()
    opened, made = os.open, os.mkdir

    def open_to_read(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(30, "Read-only file system", path)
        return opened(path, flags, *more, **options)

    def refused(path: Any, *more: Any, **options: Any) -> None:
        raise OSError(30, "Read-only file system", path)

    monkeypatch.setattr(os, "open", open_to_read)
    monkeypatch.setattr(os, "mkdir", refused)
    planned = dry("runs=r")
    monkeypatch.setattr(os, "mkdir", made)
    assert planned.code == 0 and "2 runs, 2 to do" in planned.out
