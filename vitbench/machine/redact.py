"""What looks like a secret is taken out of words before they are stored or printed: keys, tokens and passwords.

A secret is known by its shape (`ghp_...`), by its place (`https://user:password@host`, `api_key=...`), or because a
variable of the environment with a name such as WANDB_API_KEY has it as its value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"
SHORTEST = 8  # letters; a value of the environment that is shorter may be any word

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
    """A text, or all texts in lists and mappings, without what looks like a secret; other values as they are."""
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
    """The values that are secrets by the names of their variables, longest first; a path is none."""
    values = (value for name, value in os.environ.items() if _NAME_OF_SECRET.search(name))
    return sorted((its for its in values if len(its) >= SHORTEST and its[0] not in "/~."), key=len, reverse=True)
