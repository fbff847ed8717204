"""Ridge regression of features to classes, in closed form, at all penalties at once.

Features X are standardised by the images that are fitted on, targets T are +1 for the class and -1 for the others, and
the weights W minimise

    |X W - (T - mean T)|^2 + penalty |W|^2

The intercept is mean T and free of the penalty. The 30 penalties are those of big_vision's fewshot_lsr.py.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

PENALTIES = torch.tensor([2.0**k for k in range(-10, 20)], dtype=torch.float64)


class Ridge(NamedTuple):
    """What was fitted, at each of PENALTIES."""

    mean: Tensor  # (D,), of the features
    deviation: Tensor  # (D,)
    to_basis: Tensor  # (D, R)
    weights: Tensor  # (penalties, R, K)
    intercept: Tensor  # (K,)

    @classmethod
    def fit(cls, X: Tensor, labels: Tensor, classes: int) -> Ridge:
        """Fits features X (n, D), as precise as they are, to labels (n,).

        It solves the smaller of two systems, that of the D features or that of the n images.
        """
        mean, deviation = X.mean(0), X.std(0, correction=0) + 1e-5
        X = (X - mean) / deviation
        T = 2.0 * torch.nn.functional.one_hot(labels, classes).to(X) - 1
        intercept = T.mean(0)
        n, D = X.shape
        eigenvalues, basis = torch.linalg.eigh(X.T @ X if n >= D else X @ X.T)
        scale = 1 / (eigenvalues.clamp(min=0) + PENALTIES.to(X)[:, None])  # (penalties, eigenvalues)
        weights = scale[:, :, None] * (basis.T @ (X.T @ (T - intercept) if n >= D else T - intercept))
        return cls(mean, deviation, basis if n >= D else X.T @ basis, weights, intercept)

    def outputs(self, values: Tensor, penalty: int | slice = slice(None)) -> Tensor:
        """The outputs for features (M, D): (penalties, M, K), or (M, K) of the penalty at one place of PENALTIES."""
        return (values - self.mean) / self.deviation @ self.to_basis @ self.weights[penalty] + self.intercept


def ridge(X: Tensor, labels: Tensor, inputs: list[Tensor], classes: int) -> list[Tensor]:
    """Fits features X (n, D) to labels (n,); the outputs (penalties, M, K) for each of the inputs (M, D)."""
    fitted = Ridge.fit(X, labels, classes)
    return [fitted.outputs(values) for values in inputs]
