"""How much memory is free is what every limit around this process leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitbench.machine.limits import GROUP_FILES, left_by_control_groups, processor_quota


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
    assert list(left_by_control_groups(tmp_path, tmp_path / "own")) == [500]


@pytest.mark.parametrize(
    ("files", "own", "quota"),
    [
        ({"cpu/job/cpu.cfs_quota_us": "150000", "cpu/job/cpu.cfs_period_us": "100000"}, "4:cpu:/job/step", 1.5),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/", None),
        ({"job/cpu.max": "50000 100000", "cpu.max": "max 100000"}, "0::/job", 0.5),
        ({"job/cpu.max": "max 100000"}, "0::/job", None),
        ({"cpu.max": "torn"}, "0::/", None),
    ],
)
def test_the_smallest_quota_of_processors_counts(
    files: dict[str, str], own: str, quota: float | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    (tmp_path / "own").write_text(f"{own}\n")
    assert processor_quota(tmp_path, tmp_path / "own") == quota
