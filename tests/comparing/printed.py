"""What `vitbench table` prints, for tests that read it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

from vitbench.comparing import formats, table
from vitbench.comparing.select import select_runs

NASTY = ["<script>alert(1)</script>", "a_b%$#{}", "=cmd|'/C calc'!A0", "x\x1b[31m\ny", "[bold]no[/bold]", "ümläut"]


def groups_named(text: str) -> list[dict[str, object]]:
    return json.loads(text)["tables"][0]["groups"]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def printed(runs: Path, form: str = "text", **layout: object) -> str:
    """Returns what `vitbench table` prints, without going through the command line."""
    selected = select_runs(str(runs), {})
    return formats.render_tables(form, [table.build_table("", selected, **layout)], "", selected.notes)  # type: ignore[arg-type]


def command(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    code = (
        "import sys; from vitbench import cli; code = cli.run(sys.argv[1:]);"
        "sys.exit(code or ('torch is imported' if 'torch' in sys.modules else 0))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *words],
        cwd=cwd,
        capture_output=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done
