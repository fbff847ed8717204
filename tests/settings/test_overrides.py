"""What people type becomes what Hydra takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitbench.errors import UserError
from vitbench.settings.overrides import PATHS, parsed, setting


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize(
    "path", ["~/pets", "pets (2024)", "Füße/größe", "a{b}[c]", "a=b&c", "it!", "/tmp/pets", r"C:\pets"]
)
def test_a_path_is_taken_with_all_its_letters(key: str, path: str) -> None:
    assert parsed(setting(f"{key}={path}")).value() == path


def test_several_paths_are_still_several() -> None:
    override = parsed(setting("data.root=~/a,~/b"))
    assert override.is_choice_sweep() and [*override.sweep_string_iterator()] == ['"~/a"', '"~/b"']


@pytest.mark.parametrize("typed", ["'~/a b'", '"~/pets"', "[a,b]", "choice(a,b)", "null"])
def test_what_is_quoted_or_hydras_own_stays(typed: str) -> None:
    assert setting(f"data.root={typed}") == f"data.root={typed}"


def test_a_folder_without_its_key_is_told_the_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"key=value, for example data.root={tmp_path}"):
        setting(str(tmp_path))
