"""JSON objects that contain their own SHA-256, so that damage is noticed.

The checksum covers the canonical JSON of all other fields, so another layout of the same object is intact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"  # the field that holds the checksum


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the object with its checksum as its last field."""
    fields = {key: value for key, value in content.items() if key != SEAL}
    return {**fields, SEAL: digest(fields)}


def is_whole(content: Mapping[str, Any]) -> bool:
    """Returns whether the object agrees with its checksum."""
    return bool(content.get(SEAL) == digest(content))


def digest(content: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of all fields but the checksum."""
    fields = {key: value for key, value in content.items() if key != SEAL}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
