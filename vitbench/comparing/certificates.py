"""Certificates: runs that were done again with more samples, which shows whether the number of samples limited them."""

from __future__ import annotations

from typing import Any

from vitbench.comparing.grouping import IMAGES_KEY
from vitbench.comparing.select import CERTIFIES, SAMPLES_KEYS, UNIMPORTANT_KEYS, Row, Runs, as_begun
from vitbench.settings.choices import GROUPS

FACTOR = 2.0  # how many times the samples a certificate has, unless a study says otherwise
PRESETS = tuple(name for name, group in GROUPS.items() if group.menu is None)  # the names of recipes decide no number


def certificates_of(runs: Runs, factor: float = FACTOR) -> dict[str, Row]:
    """Returns the certificate of each run that has one, by the id of the run that it certifies.

    A certificate agrees with its run in the images, their number, both seeds and every setting that decides a number,
    and saw `factor` times the samples; of several equal ones the first by id is taken. One that a study planned, in
    `runs.certificates`, names its run and may have another factor. A certificate may have diverged.
    """
    keys = [key for key in runs.settings if key not in (*SAMPLES_KEYS, *UNIMPORTANT_KEYS, *PRESETS)]
    alike: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(runs.rows, key=lambda row: str(row["id"])):
        alike.setdefault(tuple(as_begun(row).get(key) for key in [*keys, IMAGES_KEY, "train_images"]), []).append(row)
    pairs: dict[str, Row] = {}
    for rows in alike.values():
        for row in rows:
            # a number of steps that follows from epochs was rounded up, in the run and in its certificate
            longer = (other for other in rows if abs(other["steps"] - factor * row["steps"]) < factor)
            certificate = next((other for other in longer if other["steps"] > row["steps"]), None)
            if certificate is not None:
                pairs[row["id"]] = certificate
    return pairs | {row[CERTIFIES]: row for row in runs.certificates}
