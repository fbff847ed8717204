"""Exceptions for what a user can get wrong, one for each exit code. Our own bugs raise others and keep their
traceback."""

from __future__ import annotations

from collections.abc import Collection, Iterable

FEW = 12  # an error line lists at most so many choices


class UserError(Exception):
    """Something that was typed, a configuration or a checkpoint is wrong. The message is one line that says what would
    be right."""

    exit_code = 2


class DoesNotApply(UserError):
    """A probe has nothing to measure in a network; the message says what the network lacks."""


class NotInstalled(DoesNotApply):
    """A probe needs a package that is not installed; the message says how to install it."""


class NothingChosen(UserError):
    """A filter matches nothing."""


class RunFailed(UserError):
    """A run failed or diverged."""

    exit_code = 1


class DataError(UserError):
    """Images or labels are missing, unreadable or contradictory."""

    exit_code = 3


class StorageError(UserError):
    """The disk is full, read-only or failing, or a permission is missing."""

    exit_code = 4


class TryAgain(UserError):
    """Nothing is wrong, but it is not done: a signal ended it, another process holds it, or timing was disturbed."""

    exit_code = 75


def did_you_mean(typed: str, choices: Iterable[str]) -> str:
    """Writes the end of an error line: near misses of what was typed, and the choices if there are few or no near
    misses."""
    import difflib

    ordered = sorted(choices)
    near = difflib.get_close_matches(typed, ordered, n=2, cutoff=0.6)
    more = f" and {len(ordered) - FEW} more" if len(ordered) > FEW else ""
    listed = "" if near and more else f"choices: {', '.join(ordered[:FEW])}{more}"
    return " ".join(part for part in (f"did you mean {' or '.join(near)}?" if near else "", listed) if part)


def check_choice(setting: str, typed: str, choices: Collection[str]) -> str:
    """Returns what was typed for a setting. Raises UserError where it is none of the choices."""
    if typed not in choices:
        raise UserError(f"{setting}={typed}: {did_you_mean(typed, choices)}")
    return typed
