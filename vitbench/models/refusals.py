"""What a model cannot be combined with: functions that the menu names, of flat settings. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitbench.errors import UserError


def resnet(flat: Mapping[str, Any]) -> None:
    if flat["freeze"] == "none":  # else its norms stand still
        refuse_parts(flat, "model=resnet")


def refuse_parts(flat: Mapping[str, Any], typed: str) -> None:
    """Refuses a batch in parts for what has batch norm, as `typed` does."""
    part = flat["machine.microbatch"]
    if part and part < flat["optim.batch_size"]:
        raise UserError(
            f"machine.microbatch={part}: {typed} has batch norm, whose statistics are of the whole batch; drop "
            f"machine.microbatch, or give optim.batch_size={part}, which is another run"
        )
