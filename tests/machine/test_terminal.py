"""Nothing that stands in a name or a file commands the terminal."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from tests.conftest import process
from vitbench.comparing.formats import Table, print_rich
from vitbench.machine.progress import progress
from vitbench.machine.terminal import EscapedStream, beneath, escape_output, escaped

NAME = "a\x1b[2Jb\rc\x07d\u202ee\x9bf\u200bg\x7fh\udcffi"
ESCAPED = "a\\x1b[2Jb\\rc\\x07d\\u202ee\\x9bf\\u200bg\\x7fh\\udcffi"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_a_terminal_would_obey_is_printed_as_its_code() -> None:
    assert escaped(NAME) == ESCAPED
    assert escaped(ESCAPED) == ESCAPED
    assert escaped("Straße, 猫 ± 3 %\tx\n") == "Straße, 猫 ± 3 %\tx\n"


def test_all_that_is_printed_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    escape_output()
    escape_output()  # once is enough
    print(NAME)
    print(NAME, file=sys.stderr)
    sys.stdout.writelines([NAME])
    assert (out.getvalue(), err.getvalue()) == (f"{ESCAPED}\n{ESCAPED}", f"{ESCAPED}\n")
    assert sys.stdout.isatty() and beneath(sys.stdout) is out and beneath(out) is out


def test_tables_and_bars_colour_the_terminal_and_escape_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", EscapedStream(out))
    monkeypatch.setattr(sys, "stderr", EscapedStream(err))
    print_rich([Table("x", NAME, ["head"], [[NAME]], 1, [NAME], [], [], [])], NAME, [NAME])
    with progress(NAME, 2, "runs", True) as display:
        display.update(1, NAME)
        display.say(NAME)
        print(NAME)
        print(NAME, file=sys.stderr)
    for text in (out.getvalue(), err.getvalue()):
        assert "\x1b[" in text, "rich draws"
        assert not {"\x1b[2J", "\x07", "\u202e", "\x9b", "\u200b", "\x7f"} & {*text} and "\x1b[2J" not in text
        assert ESCAPED[:7] in text
    assert isinstance(sys.stdout, EscapedStream) and sys.stdout.stream is out


def test_a_folder_with_an_escape_in_its_name_does_not_clear_the_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "x\x1b[2J\r\u202ey"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{")
    for words in (["ls", "runs"], ["table"], ["no\x1b[2J"]):
        run = process(*words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
        out, err = run.communicate(timeout=300)
        assert "\x1b" in f"{folder}" and "\\x1b[2J" in out + err
        assert not {"\x1b", "\r", "\u202e"} & {*out, *err}
