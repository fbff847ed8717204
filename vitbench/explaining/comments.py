"""Reads the sentences beside settings: comments in the schemas and, for the options of a choice, in `conf/`.

A sentence is the comment at the end of a setting's line or, if it needs more room, the comment right above the line.
The comments are read from the source, which every installation has (vitbench/menu.py reads it, too).
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from vitbench.settings.compose import CONF_DIR

_YAML_KEY = re.compile(r"(\w+):")
_YAML_COMMENT = re.compile(r"(?:^|\s)#\s(.*)")


def sentences_of_schema(schema: type) -> dict[str, str]:
    """Returns the sentence of each field of a dataclass, inherited ones included. A field without one has ""."""
    found: dict[str, str] = {}
    for base in reversed(schema.__mro__):
        if (path := getattr(sys.modules[base.__module__], "__file__", None)) and base is not object:
            found |= _sentences_of_classes(Path(path)).get(base.__name__, {})
    return found


def sentences_of_choice(group: str, member: str) -> dict[str, str]:
    """Returns the sentence of each option in the file of a choice. The sentence of a preset is beside its name."""
    lines = (CONF_DIR / group / f"{member}.yaml").read_text(encoding="utf-8").splitlines()
    comments = {n: found[1] for n, line in enumerate(lines) if (found := _YAML_COMMENT.search(line))}
    alone = {n for n in comments if lines[n].startswith("#")}
    keys = {n: found[1] for n, line in enumerate(lines) if (found := _YAML_KEY.match(line))}
    return {key: text for n, key in keys.items() if (text := _sentence(n, n, comments, alone))}


@cache
def _sentences_of_classes(path: Path) -> dict[str, dict[str, str]]:
    """Returns the sentences of the fields of each class in a file."""
    source = path.read_text(encoding="utf-8")
    comments: dict[int, str] = {}
    alone = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ")
            if not token.line[: token.start[1]].strip():
                alone.add(token.start[0])
    return {
        node.name: {
            field.target.id: _sentence(field.lineno, field.end_lineno or field.lineno, comments, alone)
            for field in node.body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        }
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }


def _sentence(first: int, last: int, comments: Mapping[int, str], alone: set[int]) -> str:
    """Returns the comment at the end of the last line, or else the comment lines right above the first line."""
    if last in comments:
        return comments[last]
    above = []
    while (first := first - 1) in alone:
        above.append(comments[first])
    return " ".join(reversed(above))
