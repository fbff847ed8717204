"""JSON objects that carry their own SHA-256, so that a damaged one is not read as another one.

The checksum is over the canonical JSON of all other fields: an object that was only written in another layout is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"  # the field that holds the checksum


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The object with its checksum as its last field."""
    fields = {key: value for key, value in content.items() if key != SEAL}
    return {**fields, SEAL: digest(fields)}


def is_whole(content: Mapping[str, Any]) -> bool:
    """Whether the object is the one that was sealed."""
    return bool(content.get(SEAL) == digest(content))


def digest(content: Mapping[str, Any]) -> str:
    """The SHA-256 of all fields but the checksum."""
    fields = {key: value for key, value in content.items() if key != SEAL}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
