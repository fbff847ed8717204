"""What a user can get wrong, one exception per exit code. Our own bugs are none of these and keep their traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FEW = 12  # choices that an error line lists beside its near misses


class UserError(Exception):
    """Usage, configuration or checkpoint: one line that names the setting as typed and what would be right."""

    exit_code = 2


class DoesNotApply(UserError):
    """A probe that has nothing to measure in a network: the line says what the network lacks."""


class NotInstalled(DoesNotApply):
    """A probe that needs a package which is not there: the line says how to install it."""


class NothingChosen(UserError):
    """A filter that nothing passes."""


class RunFailed(UserError):
    """A run failed or diverged."""

    exit_code = 1


class DataError(UserError):
    """Images or labels that are missing, unreadable or contradictory."""

    exit_code = 3


class StorageError(UserError):
    """The disk is full, read-only or failing, or a permission is missing."""

    exit_code = 4


class TryAgain(UserError):
    """Nothing is wrong: the work was saved after a signal, or another process holds the run."""

    exit_code = 75


def did_you_mean(typed: str, choices: Iterable[str]) -> str:
    """The second half of an error line: near misses of what was typed, and the choices where they are few or none is near."""
    names = sorted(choices)
    near = difflib.get_close_matches(typed, names, n=2, cutoff=0.6)
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    listed = "" if near and more else f"choices: {', '.join(names[:FEW])}{more}"
    return " ".join(part for part in (f"did you mean {' or '.join(near)}?" if near else "", listed) if part)
