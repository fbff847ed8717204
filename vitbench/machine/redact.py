"""Removes keys, tokens and passwords from texts before they are stored or printed.

A secret is recognised by its form (`ghp_...`), by its place (`https://user:password@host`, `api_key=...`), or because
it is the value of an environment variable with a name such as WANDB_API_KEY.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"
SHORTEST = 8  # fewest characters of a secret; a shorter value of a variable may be an ordinary word

_SHAPES = re.compile(
    r"""(?<![A-Za-z0-9])(?:
        (?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,} | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_\w{20,} | glpat-[\w-]{16,}
        | hf_[A-Za-z0-9]{20,} | wandb_v\d+_\w{20,} | xox[abeprs]-[\w-]{10,} | (?:AKIA|ASIA)[0-9A-Z]{16}
        | AIza[\w-]{30,} | npm_\w{30,} | pypi-[\w-]{30,} | eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,}
        | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_IN_URL = re.compile(r"(?<=://)[^/\s@]*:[^/\s@]+(?=@)")
_KEY = r"(?:api|access|private|secret)[_-]?key(?:[_-]id)?"
_NAME = rf"(?:{_KEY}|secret|pass(?:word|wd|phrase)|credentials?)"
_NAMED = re.compile(
    rf"""((?:{_NAME}|(?:^|(?<=[\W_]))token)["']?(?:=|:\s?)["']?)(?!\[redacted\])[^\s"',;&)\]}}]{{{SHORTEST},}}(?<!:)""",
    re.IGNORECASE,
)
_NAME_OF_SECRET = re.compile(rf"(?:^|[_.-])(?:{_NAME}|token|key)$", re.I)


def redacted(value: Any) -> Any:
    """Returns a value without what looks like a secret, also in texts within lists and mappings."""
    if isinstance(value, str):
        return _redacted(value)
    if isinstance(value, Mapping):
        return {
            key: REDACTED if isinstance(inner, str) and _NAME_OF_SECRET.search(str(key)) else redacted(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(redacted(inner) for inner in value)
    return value


def _redacted(text: str) -> str:
    for secret in _of_environment():
        text = text.replace(secret, REDACTED)
    text = _IN_URL.sub(REDACTED, _SHAPES.sub(REDACTED, text))
    return _NAMED.sub(rf"\1{REDACTED}", text)


def _of_environment() -> list[str]:
    """Returns the values of variables whose names say that they are secrets, longest first, without paths."""
    values = (value for name, value in os.environ.items() if _NAME_OF_SECRET.search(name))
    return sorted((its for its in values if len(its) >= SHORTEST and its[0] not in "/~."), key=len, reverse=True)
