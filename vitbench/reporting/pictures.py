"""The pictures of a study: what a probe drew of one of its networks, which a report keeps beside the numbers.

A figure is drawn from the evidence, and anyone can draw it again. A picture shows what is inside a network, so it is
evidence itself. `vitbench probe study=NAME` leaves it in the run's folder, and `vitbench report study=NAME` copies it
from there. Where the run is gone, the copy of an earlier report stays.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.comparing.select import Runs
from vitbench.errors import DataError, NothingChosen, UserError, check_choice
from vitbench.machine.disk import read_file
from vitbench.numbers.words import printable
from vitbench.probes.menu import FIGURES, PIXELS
from vitbench.runs.probe_rows import picture_of
from vitbench.runs.study import Study

KINDS = {".svg": "svg+xml", ".png": "png"}
PNG, END_OF_PNG, SVG = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82", b"<svg"
RUNS_SOMETHING = re.compile(rb"<script|\bon[a-z]+\s*=|javascript:|<!ENTITY", re.IGNORECASE)


class Picture(NamedTuple):
    """A picture of results/."""

    name: str
    path: Path
    caption: str
    blob: bytes

    @property
    def width(self) -> int | None:
        """How wide a page shows it, in CSS pixels: half of its own pixels, so that it is sharp on dense screens."""
        return int.from_bytes(self.blob[16:20]) // 2 if self.path.suffix == ".png" else None

    @property
    def data_uri(self) -> str:
        """The whole picture as an address. A browser runs no script in a picture that it shows from such an address."""
        return f"data:image/{KINDS[self.path.suffix]};base64,{base64.b64encode(self.blob).decode()}"


def kept_pictures(study: Study, folder: Path) -> Iterator[Picture]:
    """Yields the pictures of a study that its folder in results/ has, in the order of study.yaml."""
    for name, layout in study.pictures.items():
        path = folder / f"{name}{_ending(study, name, layout)}"
        if path.is_file():
            caption = printable(layout.get("caption") or FIGURES[layout["probe"]].help)
            yield Picture(name, path, caption, picture_bytes(path))


def read_pictures(study: Study, runs: Runs, folder: Path, target: Path) -> dict[Path, bytes]:
    """Reads the pictures of a study from its runs in `folder`; returns them by their places in `target`.

    A picture that is in neither folder is left out, and a line says so. Raises UserError where it is not clear which
    picture is meant.
    """
    pictures = {}
    for name, layout in study.pictures.items():
        ending = _ending(study, name, layout)
        kept = target / f"{name}{ending}"
        try:
            row = _drawn_run(study, name, layout, runs)
        except NothingChosen as error:
            _leave_out(study, name, str(error))
            continue
        drawn = picture_of(folder / row["id"], layout["probe"], str(layout.get("checkpoint", "trained")), ending)
        try:
            if not drawn.resolve().is_relative_to((folder / row["id"]).resolve()):
                raise DataError("a link leads out of the run's folder")
            pictures[kept] = picture_bytes(drawn)
        except FileNotFoundError:
            if not kept.is_file():
                missing = f"{row['id']} has no probes/{drawn.name}"
                _leave_out(
                    study, name, f"{missing}; `vitbench probe study={study.name}` draws it where its weights are"
                )
        except DataError as error:
            _leave_out(study, name, str(error))
    return pictures


def picture_bytes(path: Path) -> bytes:
    """Reads a picture.

    Raises FileNotFoundError where there is none, and DataError for what no probe draws: another format, a file with a
    script, or one that is too large.
    """
    try:
        blob = read_file(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    is_whole = blob.startswith(PNG) and blob.endswith(END_OF_PNG) if path.suffix == ".png" else SVG in blob[:1000]
    if not is_whole or (path.suffix == ".svg" and RUNS_SOMETHING.search(blob)):
        raise DataError(f"{path} is no picture that a probe drew")
    return blob


def _leave_out(study: Study, name: str, reason: str) -> None:
    print(f"vitbench: study={study.name}: pictures.{name} is left out: {printable(reason)}", file=sys.stderr)


def _ending(study: Study, name: str, layout: Mapping[str, Any]) -> str:
    check_choice(f"study={study.name}: pictures.{name}: probe", layout["probe"], FIGURES)
    return ".png" if layout["probe"] in PIXELS else ".svg"


def _drawn_run(study: Study, name: str, layout: Mapping[str, Any], runs: Runs) -> Mapping[str, Any]:
    """Returns the run of the first seed among those that `where` chooses. Raises UserError where several are left."""
    rows = runs.filtered(layout.get("where") or {}).rows
    first = min(row["seed"] for row in rows)
    of_first = [row for row in rows if row["seed"] == first]
    if len(of_first) > 1:
        ids = [row["id"] for row in of_first]
        raise UserError(
            f"study={study.name}: pictures.{name}: where leaves {len(ids)} networks of seed {first}, and a picture is"
            f" of one: {', '.join(ids[:4])}{', ...' if len(ids) > 4 else ''}"
        )
    return of_first[0]
