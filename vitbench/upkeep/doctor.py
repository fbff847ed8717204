"""`vitbench doctor`: finds what is wrong with a machine: versions, hardware, limits, folders, locks, variables.

Each line is `good`, `look` or `wrong`. A line that is not good says what that means and what to type. The exit code is
0 where nothing is wrong, 4 where a folder, a disk or a permission is, and 2 otherwise. doctor changes nothing, and
imports torch in another process.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from vitbench.errors import check_choice
from vitbench.numbers.text import say
from vitbench.settings.compose import cache_folder
from vitbench.upkeep import folder_findings, machine_findings
from vitbench.upkeep.finding import GOOD, LOOK, WRONG, Finding
from vitbench.upkeep.printing import Line, print_lines

FORMATS = ("text", "json")
STYLES = {GOOD: "green", LOOK: "yellow", WRONG: "bold red"}

Parts = dict[str, list[Finding]]  # what was found, by the part of the machine


def main(config: Any) -> int:
    """Prints what was found; returns the exit code."""
    from omegaconf import OmegaConf

    asked: Any = OmegaConf.to_container(config, resolve=True)
    check_choice("format", asked["format"], FORMATS)
    parts = examine(
        runs=Path(asked["runs"]).expanduser(),
        results=Path(asked["results"]).expanduser(),
        cache=Path(cache_folder(asked["data"]["cache"])),
    )
    if asked["format"] == "json":
        say(_json(parts))
    else:
        lines = {part: [_line(finding) for finding in findings] for part, findings in parts.items()}
        print_lines(lines, ("", "what", "found"), _summary(parts), STYLES)
    return exit_code(parts)


def examine(*, runs: Path, results: Path, cache: Path) -> Parts:
    """Looks at the machine and at these folders."""
    packages = machine_findings.look_at_packages()
    folders = {"runs": runs, "data.cache": cache, "results": results}
    return {
        "versions": [*machine_findings.of_versions(packages)],
        "machine": [*machine_findings.of_hardware(packages), *folder_findings.of_system_folders()],
        "folders": [
            *(folder_findings.of_folder(name, folder) for name, folder in folders.items()),
            *folder_findings.of_locks(runs, cache),
        ],
        "environment": [*machine_findings.of_environment(os.environ, packages.threads)],
    }


def exit_code(parts: Parts) -> int:
    """Returns 0 where nothing is wrong, otherwise the largest exit code of what is."""
    return max((finding.exit_code for finding in _all(parts) if finding.verdict == WRONG), default=0)


def _all(parts: Parts) -> list[Finding]:
    return [finding for findings in parts.values() for finding in findings]


# ------------------------------------------------------------------------------------------------------------ printing


def _summary(parts: Parts) -> str:
    counts = Counter(finding.verdict for finding in _all(parts))
    told = [f"{counts[WRONG]} wrong", f"{counts[LOOK]} to look at", f"{counts[GOOD]} good"]
    return ", ".join(told) + ". `vitbench check` finds damaged files; `vitbench clean` lists what can be deleted."


def _line(finding: Finding) -> Line:
    """Makes a line of the table. What a finding means and what to type are shown below it."""
    below = [finding.means, f"type: {finding.type}" if finding.type else ""]
    return Line(finding.verdict, finding.what, finding.found, [words for words in below if words])


def _json(parts: Parts) -> str:
    report = {
        "exit_code": exit_code(parts),
        "versions": machine_findings.versions(),
        "findings": [
            {
                "part": part,
                "what": one.what,
                "found": one.found,
                "verdict": one.verdict,
                "means": one.means or None,
                "type": one.type or None,
            }
            for part, findings in parts.items()
            for one in findings
        ],
    }
    return json.dumps(report, indent=1) + "\n"
