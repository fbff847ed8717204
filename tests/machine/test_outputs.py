"""An output replaces what vitbench wrote, and nothing else."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from vitbench.errors import UserError
from vitbench.machine.outputs import check_output, known_outputs, write_output


@pytest.fixture(autouse=True)
def own_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VITBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "outputs.txt"


def refused(path: Path, blob: bytes = b"new") -> str:
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(UserError) as error:
        write_output(path, blob)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)
    assert before is None or path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir() if each.name.endswith(".tmp")] == []
    return str(error.value)


@pytest.mark.parametrize("name", ["a.csv", "a.md", "a.tex", "a.svg", "a.png", "a.pdf", "a.json", "a.html", "a.onnx"])
def test_a_file_of_somebody_else_stays_whatever_its_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"76 lines of evidence")
    assert refused(path).startswith(f"file={path}: exists already, and vitbench did not write it")
    write_output(path, b"new", replace=True)
    assert path.read_bytes() == b"new"


def test_an_own_file_is_replaced_until_somebody_changes_it(tmp_path: Path) -> None:
    path = tmp_path / "below" / "a.md"
    for blob in (b"first", b"second", b"third"):
        write_output(path, blob)
    path.write_bytes(path.read_bytes() + b" and my own words")
    assert "or it was changed since; type another name, or replace=true" in refused(path)


def test_own_files_are_known_by_what_they_hold_wherever_they_lie(tmp_path: Path, own_list: Path) -> None:
    write_output(tmp_path / "a.csv", b"ours")
    (tmp_path / "a.csv").rename(tmp_path / "moved.csv")
    write_output(tmp_path / "moved.csv", b"ours, again")
    assert len(known_outputs()) == 2 and own_list.read_text().splitlines()[0].endswith(f"  {tmp_path / 'a.csv'}")


def test_the_same_content_is_no_loss_where_the_list_is_gone(tmp_path: Path, own_list: Path) -> None:
    write_output(tmp_path / "a.csv", b"ours")
    own_list.unlink()
    write_output(tmp_path / "a.csv", b"ours")
    own_list.unlink()
    refused(tmp_path / "a.csv", b"other")


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link"])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.csv"
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "dangling link": lambda: path.symlink_to("nothing")}[kind]()
    assert refused(path).endswith("exists already and is not a file; type another name")
    with pytest.raises(UserError, match="is not a file"):
        check_output(path, replace=True)


def test_a_link_to_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_bytes(b"evidence")
    (tmp_path / "a.csv").symlink_to("mine.csv")
    refused(tmp_path / "a.csv")


def test_a_file_that_appears_while_the_output_is_made_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, written = tmp_path / "a.csv", []

    def note_late(*given: object) -> None:
        path.write_bytes(b"evidence")
        written.append(given)

    monkeypatch.setattr("vitbench.machine.outputs._note", note_late)
    refused(path)
    assert written and path.read_bytes() == b"evidence"


def test_two_that_write_one_file_at_once_leave_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, blobs = tmp_path / "a.bin", [bytes([k]) * 100_000 for k in range(8)]
    faults: list[Exception] = []
    pids = threading.local()
    monkeypatch.setattr(os, "getpid", lambda: pids.value)  # threads stand for processes, of which each has its own

    def write_one(k: int) -> None:
        pids.value = 1000 + k
        try:
            for _ in range(5):
                write_output(path, blobs[k])
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=write_one, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and path.read_bytes() in blobs
    assert len(known_outputs()) == 8 and {each.name for each in tmp_path.iterdir()} == {"a.bin", "cache"}


@pytest.mark.parametrize("home", [True, False])
def test_without_a_place_for_the_list_a_file_is_written_once_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    if home:
        (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    else:
        monkeypatch.delenv("VITBENCH_CACHE")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    write_output(tmp_path / "a.csv", b"ours")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cannot be noted as written by vitbench" in said and "replace=true" in said
    assert not (tmp_path / "~").exists()
    refused(tmp_path / "a.csv")
