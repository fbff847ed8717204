"""How much memory is free is what every limit around this process leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitbench.machine.memory import GROUP_FILES, _left_by_control_groups


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_control_group_around_this_one_counts(version: int, tmp_path: Path) -> None:
    top = tmp_path / ("memory" if version == 1 else "")
    (top / "job" / "step").mkdir(parents=True)
    limit, use, reclaimable = GROUP_FILES[2 - version]
    (top / "job" / limit).write_text("1000\n")
    (top / "job" / use).write_text("700\n")
    (top / "job" / "memory.stat").write_text(f"anon 5\n{reclaimable} 200\n")
    (top / "job" / "step" / limit).write_text("max\n")
    (top / "job" / "step" / use).write_text("600\n")
    (tmp_path / "own").write_text("4:memory:/job/step\n3:cpu:/job\n" if version == 1 else "0::/job/step\n")
    assert list(_left_by_control_groups(tmp_path, tmp_path / "own")) == [500]
