"""Made-up results with known answers: what the advice says of them, and what it does not say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fake_runs import write
from vitbench.advising.results import Network, Results, difference, read_results
from vitbench.advising.words import judged_pairs, sections
from vitbench.comparing.select import select_runs

CLASSES, IMAGES = 4, 400


def answers(accuracy: float, seed: int, labels: np.ndarray, same: float = 0.8) -> np.ndarray:
    """Predictions that are right in this share of the images; networks are mostly right in the same ones."""
    ease = np.random.default_rng(1).random(len(labels)) * same
    ease += np.random.default_rng((2, seed)).random(len(labels)) * (1 - same)
    right = np.argsort(ease)[: round(accuracy * len(labels))]
    given = (labels + 1) % CLASSES
    given[right] = labels[right]
    return given


def made(
    runs: Path,
    accuracies: dict[str, dict[int, Sequence[float]]],
    labels: np.ndarray | None = None,
    predictions: dict[str, np.ndarray] | None = None,
    trained: float = 0.9,
    planned: int = 0,
) -> Results:
    """Runs with these accuracies, by network, number of images and seed."""
    labels = np.arange(IMAGES) % CLASSES if labels is None else labels
    for model, by_size in accuracies.items():
        for n, values in by_size.items():
            for seed, accuracy in enumerate(values):
                given = (predictions or {}).get(model)
                given = answers(accuracy, seed, labels) if given is None else given
                results: dict[str, Any] = {
                    "result_classes": [f"class {k}" for k in range(CLASSES)],
                    "result_test_images": len(labels),
                    "result_train_eval_accuracy": trained,
                    "result_train_images": n,
                    "result_data_fingerprint": "same",
                }
                settings: dict[str, Any] = {"model.name": model, "seed": seed, "data.count": n}
                folder = write(runs, f"{model}-{n}-{seed}", float((given == labels).mean()), **settings, **results)
                np.save(folder / "predictions.npy", given)
                np.save(folder / "labels.npy", labels)
    counts = np.bincount(labels, minlength=CLASSES).tolist()
    return read_results(select_runs(str(runs), {}), runs, counts, planned)


def said(results: Results, title: str = "") -> str:
    return "\n".join(
        sentence for section in sections(results) if title in section.title for sentence in section.sentences
    )


def test_a_clear_winner_is_named_with_its_points_and_both_intervals(tmp_path: Path) -> None:
    words = said(made(tmp_path, {"vit": {900: [0.50, 0.51, 0.49]}, "resnet": {900: [0.70, 0.71, 0.695]}}), "Which")
    assert words.startswith("ResNet is better than ViT by 20.2 points (percentage points): ResNet gets 70.2 % of")
    assert "over 3 seeds" in words and "over the 400 test images" in words and "agrees in 3 of 3 seeds" in words


def test_a_tie_cannot_be_told(tmp_path: Path) -> None:
    results = made(tmp_path, {"vit": {900: [0.60, 0.64, 0.58]}, "resnet": {900: [0.62, 0.60, 0.61]}})
    words = said(results, "Which")
    assert "these runs cannot tell" in words.splitlines()[0] and " is better " not in words
    assert "more seeds" in said(results, "cannot tell")


def test_one_seed_cannot_tell_even_a_large_difference(tmp_path: Path) -> None:
    words = said(made(tmp_path, {"vit": {900: [0.40]}, "resnet": {900: [0.70]}}), "Which")
    assert "Each was trained only once, which cannot tell the better network from the lucky one" in words
    assert "McNemar" in words and " better than " not in words


def test_few_test_images_leave_open_what_seeds_agree_on(tmp_path: Path) -> None:
    labels = np.arange(24) % CLASSES
    accuracies = {"vit": {900: [0.50, 0.505, 0.495]}, "resnet": {900: [0.584, 0.583, 0.585]}}
    results = made(tmp_path, accuracies, labels)
    (asked,) = judged_pairs(results)
    assert asked.verdict != "sure" and "these runs cannot tell" in said(results, "Which")


def test_an_observed_crossover_is_told(tmp_path: Path) -> None:
    vit = {100: [0.30, 0.31, 0.305], 300: [0.50, 0.51, 0.52], 900: [0.80, 0.81, 0.80]}
    resnet = {100: [0.455, 0.45, 0.46], 300: [0.54, 0.53, 0.535], 900: [0.65, 0.645, 0.66]}
    words = said(made(tmp_path, {"vit": vit, "resnet": resnet}), "How many images")
    assert "Crossover observed: ViT overtakes ResNet at about" in words


def test_a_steady_curve_says_what_twice_the_images_would_bring(tmp_path: Path) -> None:
    curve = {n: [1 - e * n**-0.3 for e in (2.6, 2.62, 2.58)] for n in (100, 300, 900)}
    words = said(made(tmp_path, {"resnet": curve}), "What more images")
    assert "ResNet with 1,800 images, twice as many, would get about 72." in words and "extrapolation" in words


def test_a_noisy_curve_is_not_extrapolated(tmp_path: Path) -> None:
    noisy = {100: [0.30, 0.60, 0.45], 300: [0.65, 0.35, 0.50], 900: [0.42, 0.66, 0.40]}
    words = said(made(tmp_path, {"resnet": noisy}), "What more images")
    assert "these runs cannot tell" in words and "twice" not in words


def test_without_curves_nothing_is_said_of_more_images(tmp_path: Path) -> None:
    results = made(tmp_path, {"vit": {900: [0.5, 0.5, 0.52]}, "resnet": {900: [0.7, 0.71, 0.72]}})
    assert said(results, "What more images") == ""
    assert "three shares of the images" in said(results, "cannot tell")


def test_a_network_that_only_answers_the_largest_class_is_called_out(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2, 3], [280, 40, 40, 40])
    lazy = {"vit": np.zeros(400, np.int64)}
    accuracies = {"vit": {900: [0.7, 0.7, 0.7]}, "resnet": {900: [0.72, 0.73, 0.71]}}
    results = made(tmp_path, accuracies, labels, lazy)
    words = said(results, "Which")
    assert "ViT calls nearly every image class 0: it has learned nothing" in words
    assert "always answering class 0 would get 70.0 %" in words and "not clearly more than that" in words


def test_uneven_classes_show_where_accuracy_hides_them(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2, 3], [340, 20, 20, 20])
    given = labels.copy()
    given[350:] = 0
    results = made(tmp_path, {"vit": {900: [0.8]}}, labels, {"vit": given})
    assert "the accuracy hides it: its mean over classes is 37.5 %, not 87.5 %" in said(results)


@pytest.mark.parametrize(
    ("accuracy", "trained", "words"),
    [
        (0.60, 1.00, "longer training on the same images would hardly help"),
        (0.60, 0.62, "longer training or a larger network would probably help"),
        (0.95, 1.00, "little is left to learn from these images"),
        (0.70, 0.85, "these runs cannot tell whether longer training would help"),
    ],
)
def test_training_images_tell_whether_more_time_would_help(
    tmp_path: Path, accuracy: float, trained: float, words: str
) -> None:
    results = made(tmp_path, {"vit": {900: [accuracy, accuracy + 0.01, accuracy - 0.01]}}, trained=trained)
    assert words in said(results, "What longer training")


def test_runs_that_are_missing_are_named(tmp_path: Path) -> None:
    assert "4 of 6 planned runs are not done" in said(made(tmp_path, {"vit": {900: [0.5, 0.6]}}, planned=6))


def network(name: str, accuracies: Sequence[float], arch: str = "", pretrained: bool = False) -> Network:
    labels = np.arange(IMAGES) % CLASSES
    its = {seed: answers(accuracy, seed, labels) for seed, accuracy in enumerate(accuracies)}
    row = {"model.arch": arch} if arch else {}
    return Network(name, dict(enumerate(accuracies)), its, pretrained=pretrained, row=row)


def test_the_best_pretrained_network_is_compared_with_the_other_one_at_its_best() -> None:
    networks = [
        network("atto, tuned", [0.80, 0.81, 0.79], "atto", True),
        network("atto, frozen", [0.70, 0.71, 0.69], "atto", True),
        network("tiny, frozen", [0.60, 0.61, 0.595], "tiny", True),
        network("tiny, tuned", [0.50, 0.51, 0.49], "tiny", True),
        network("ViT", [0.40, 0.41, 0.39]),
    ]
    results = Results(networks, np.arange(IMAGES) % CLASSES, ["a", "b", "c", "d"], 900, [100] * CLASSES)
    pairs = [(one.found.a.name, one.found.b.name) for one in judged_pairs(results)]
    assert ("atto, tuned", "tiny, frozen") in pairs and len(pairs) == 5
    assert "atto, tuned is better than tiny, frozen by 19.8 points" in said(results, "What pretraining brings")


def test_points_and_accuracies_are_those_of_the_seeds_that_both_have() -> None:
    a, b = network("a", [0.5, 0.5, 0.8]), network("b", [0.4, 0.4])
    found = difference(a, b, np.arange(IMAGES) % CLASSES)
    assert found is not None and (found.of_a, found.of_b) == pytest.approx((0.5, 0.4))
    assert found.mean == pytest.approx(0.1)
