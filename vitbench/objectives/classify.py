"""Learns the classes of images by cross-entropy, and with a teacher also the teacher's output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitbench.data.augment import Augment
from vitbench.data.loader import Normalise
from vitbench.objectives.base import Objective


class Classify(Objective):
    classifies = True

    def __init__(self, label_smoothing: float, class_weights: Tensor | None) -> None:
        """`class_weights` (K,) multiply the loss of each image, or of each share if labels are shares of classes."""
        super().__init__()
        self.label_smoothing = label_smoothing
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)

    def views(self, images: Tensor, labels: Tensor, augment: Augment, normalise: Normalise) -> tuple[Tensor, ...]:
        images, labels = augment.mix(normalise.values(augment.pixels(images)), labels)
        return normalise.rearranged(images), labels

    def forward(self, model: Any, *views: Tensor) -> Tensor:
        images, labels = views
        return self.label_loss(model(images), labels)

    def label_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the cross-entropy of logits (B,K), for labels (B,) or shares of classes (B,K)."""
        if self.class_weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        # torch's own mean divides by the weights of the batch, so that parts of a batch would not add up to the whole.
        each = {"label_smoothing": self.label_smoothing, "reduction": "none"}
        return F.cross_entropy(logits, labels, self.class_weights, **each).mean()  # type: ignore[arg-type]


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Returns the weight n / (K n_k) of each class, (K,), from labels (n,); n_k images have class k.

    The mean of the weights over the images is 1.
    """
    counts = torch.bincount(labels, minlength=classes)
    return len(labels) / (classes * counts.clamp(min=1))


class Distill(Classify):
    """Distillation as in DeiT (Touvron et al. 2021, arXiv 2012.12877): learning from the labels and from a teacher.

    With s and t the logits of student and teacher, y the labels, a = `alpha` and T = `temperature`:

        soft, eq. 2   (1 - a) CE(s, y) + a T^2 KL(softmax(t / T) || softmax(s / T))
        hard, eq. 3   (1 - a) CE(s, y) + a CE(s, argmax t)        a = 1/2 in the paper

    KL is a sum over classes and a mean over images, as in Hinton et al. 2015 (arXiv 1503.02531); DeiT's code also
    divides by the number of classes. If a model has two heads, its class head learns from the labels and its
    distillation head from the teacher. The teacher sees the same augmented and mixed batch. Class weights apply only to
    the labels.
    """

    def __init__(
        self,
        label_smoothing: float,
        teacher: Callable[[Tensor], Tensor],
        kind: str,
        alpha: float,
        temperature: float | None,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(label_smoothing, class_weights)
        self.teacher = teacher  # a function and not a module, so it is neither trained nor saved
        self.kind, self.alpha, self.temperature = kind, alpha, temperature

    def forward(self, model: Any, *views: Tensor) -> Tensor:
        images, labels = views
        student = model(images)
        by_label, by_teacher = student if isinstance(student, tuple) else (student, student)
        with torch.no_grad():
            teacher = self.teacher(images)
        return (1 - self.alpha) * self.label_loss(by_label, labels) + self.alpha * self._teacher_loss(
            by_teacher, teacher
        )

    def _teacher_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the second term of eq. 2 or 3 without the factor a; both logits are (B,K)."""
        if self.kind == "hard":
            return F.cross_entropy(student, teacher.argmax(1))
        T = self.temperature
        assert T is not None
        log_student, log_teacher = (F.log_softmax(logits.float() / T, 1) for logits in (student, teacher))
        return T**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
