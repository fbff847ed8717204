"""Along what a curve is fitted: the images, or one of three measures of how much training there was.

Training is all that a model cost, with the runs that it began from or learned from. Errors along images and errors
along training are different curves of the same runs, so a study that varies both has a surface.
"""

from __future__ import annotations

from typing import NamedTuple


class Axis(NamedTuple):
    column: str  # of a run's row
    heading: str  # above a column of numbers, and under the axis of a figure
    unit: str  # behind a number


IMAGES = Axis("train_images", "training images", "images")
AXES = {
    "train_images": IMAGES,
    "samples_seen": Axis("total_samples_seen", "samples seen in training", "samples"),
    "multiply_adds": Axis("total_multiply_adds", "multiply-adds of training", "multiply-adds"),
    "train_seconds": Axis("total_train_seconds", "seconds of training", "seconds"),
}
AXIS_OF_COLUMN = {axis.column: axis for axis in AXES.values()}
