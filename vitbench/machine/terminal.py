"""Escapes control characters in all output, so that no text in a file or a name can control the terminal.

This is done once, for everything that a process prints. `numbers/text.py` replaces characters that stdout's encoding
lacks.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Control characters but tab and line feed; characters that are invisible, change the direction of writing or end a
# line; and bytes of file names that are not text.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def escaped(text: str) -> str:
    """Returns the text with codes in place of unsafe characters: ESC becomes `\\x1b`, and nothing else changes."""
    return UNSAFE.sub(lambda unsafe: unsafe[0].encode("unicode_escape").decode(), text)


def shown_path(path: str | Path) -> str:
    """Returns a path as printable text on one line, whatever bytes it has."""
    if (text := os.fspath(path)).isprintable():  # the usual case, which should be fast
        return text
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class EscapedStream:
    """A stream such as stdout that escapes everything that is written to it."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        return int(self.stream.write(escaped(text)))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def escape_output() -> None:
    """Makes stdout and stderr of this process escape their output."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is not None and not isinstance(stream, EscapedStream):
            setattr(sys, name, EscapedStream(stream))


@contextmanager
def output_escaped() -> Iterator[None]:
    """Does the same within a `with` block, in which other code has replaced the streams."""
    before = sys.stdout, sys.stderr
    escape_output()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def beneath(stream: Any) -> Any:
    """Returns the stream without escaping, for rich, which has to control the terminal and gets escaped texts."""
    return stream.stream if isinstance(stream, EscapedStream) else stream
