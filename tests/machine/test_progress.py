from __future__ import annotations

import pytest

from vitbench.machine import progress as module
from vitbench.machine.progress import progress


@pytest.mark.parametrize(
    ("done", "total", "line"),
    [
        (45_312, 1_000_000, "45,312 of 1,000,000 images"),
        (0.1 + 0.2, 21, "0.3 of 21 images"),
        (4.7, 21, "4.7 of 21 images"),
    ],
)
def test_a_plain_line_has_whole_counts_with_commas(
    done: float, total: float, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setenv("CI", "1")
    with progress("looking", total, "images") as display:
        display.update(done)
    assert capsys.readouterr().err.startswith(f"looking: {line}, ")
