"""Nothing that stands in a file or in a name can command the terminal: what would is printed as its code.

This is done once, for all that a process prints. `numbers/text.py` replaces what stdout's encoding lacks.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# control characters but tab and line feed; what is invisible, turns the direction of writing or ends a line; and bytes
# of file names that are no text
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def escaped(text: str) -> str:
    """The text with the codes of what a terminal would obey: ESC becomes `\\x1b`, and nothing else changes."""
    return UNSAFE.sub(lambda unsafe: unsafe[0].encode("unicode_escape").decode(), text)


def shown_path(path: str | Path) -> str:
    """A name as text on one line, whatever bytes it has."""
    if (text := os.fspath(path)).isprintable():  # most are, and there may be many
        return text
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class EscapedStream:
    """stdout or stderr, to which everything is written escaped."""

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
    """Has all that this process prints escaped."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is not None and not isinstance(stream, EscapedStream):
            setattr(sys, name, EscapedStream(stream))


@contextmanager
def output_escaped() -> Iterator[None]:
    """The same for a while, in which something else has put streams of its own in place."""
    before = sys.stdout, sys.stderr
    escape_output()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def beneath(stream: Any) -> Any:
    """The stream itself, for rich, which commands the terminal and gets its words escaped."""
    return stream.stream if isinstance(stream, EscapedStream) else stream
