"""What each result is called for people, beside the name that one types.

A result has a long form for axes and captions, a short form for the heads of tables, and a unit where it has one. The
results of runs are listed one by one. The results of probes are put together from the words of a protocol
(`shift.crop`) and the words of a metric (`consistency`), because the same metrics are measured in several protocols.
`column_label` and `column_head` in vitbench/numbers/words.py write these names. docs/reference/result-names.md lists
them; `make reference` writes that page.

The names use a few words in one sense:

    small shift         up to an eighth of the image's width, unless `probe.shift.max_shift` says otherwise
    very small shift    up to a 32nd of the width, unless `probe.shift.worst` says otherwise
    circular shift      what leaves the image at one side comes back at the other
    mirrored shift      the image's own mirror image enters
    whole positions     the shift moves the maps of all layers by whole positions; it is called `on_lattice`
    parts of positions  any other shift; it is called `off_lattice`
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple


class ResultName(NamedTuple):
    """A result's name for people. The long form and the unit hold no comma, as a comma stands between them."""

    long: str
    short: str
    unit: str = ""


class Family(NamedTuple):
    """Protocols that have the same metrics; `{}` in the names of the metrics is what a protocol is called."""

    protocols: dict[str, tuple[str, str]]  # its words in a long form and in a short form, by the protocol
    metrics: dict[str, ResultName]


PERCENT, IMAGES_SHARE, COPIES_SHARE, PAIRS_SHARE = "%", "share of images", "share of copies", "share of pairs"
RATIO, EQUIVARIANT, PIXELS = "ratio", "0 is equivariant", "px"

# --------------------------------------------------------------------------------------------------- results of runs

RUNS = {
    "train_images": ResultName("training images", "images"),
    "val_images": ResultName("validation images", "validation images"),
    "test_images": ResultName("test images", "test images"),
    "steps": ResultName("optimizer steps", "steps"),
    "samples_seen": ResultName("samples seen in training", "samples"),
    "total_samples_seen": ResultName("samples seen in all training", "total samples"),
    "epochs_seen": ResultName("passes over the training images", "epochs"),
    "moved_share": ResultName("share of tiles that are moved", "tiles moved"),
    "test_accuracy": ResultName("test accuracy", "test accuracy", PERCENT),
    "test_error": ResultName("test error", "test error", PERCENT),
    "test_loss": ResultName("test loss", "test loss"),
    "test_balanced_accuracy": ResultName("balanced test accuracy", "balanced accuracy", PERCENT),
    "test_top5_accuracy": ResultName("top-5 test accuracy", "top-5 test accuracy", PERCENT),
    "test_calibration_error": ResultName("expected calibration error on test images", "calibration error", PERCENT),
    "val_accuracy": ResultName("validation accuracy", "validation accuracy", PERCENT),
    "val_loss": ResultName("validation loss", "validation loss"),
    "train_loss": ResultName("training loss of the last steps", "training loss"),
    "train_eval_accuracy": ResultName("accuracy on training images", "training accuracy", PERCENT),
    "train_eval_error": ResultName("error on training images", "training error", PERCENT),
    "train_eval_loss": ResultName("loss on training images after training", "loss on training images"),
    "test_accuracy_per_million_parameters": ResultName(
        "test accuracy per million parameters", "accuracy / M params", IMAGES_SHARE
    ),
    "test_accuracy_per_million_multiply_adds": ResultName(
        "test accuracy per million multiply-adds", "accuracy / M MACs", IMAGES_SHARE
    ),
    "test_accuracy_per_train_second": ResultName(
        "test accuracy per second of training", "accuracy / second", IMAGES_SHARE
    ),
    "recall": ResultName("recall", "recall", PERCENT),
    "precision": ResultName("precision", "precision", PERCENT),
    "confusion": ResultName("images of a class that are taken for another", "confusion", PERCENT),
    "spread": ResultName("spread of the features over the sphere", "spread of features", "0 is collapsed"),
    "parameters": ResultName("parameters", "params"),
    "multiply_adds": ResultName("multiply-adds of one image forward", "MACs"),
    "total_multiply_adds": ResultName("multiply-adds of all training", "total MACs"),
    "train_seconds": ResultName("training time", "seconds", "seconds"),
    "total_train_seconds": ResultName("training time with that of the networks it needed", "total seconds", "seconds"),
    "compile_seconds": ResultName("time of the first step of a compiled network", "compile seconds", "seconds"),
    "images_per_second": ResultName("training speed", "images/s", "images/s"),
    "diverged_step": ResultName("step at which training diverged", "diverged at"),
    "image_size": ResultName("width of an image", "image width", PIXELS),
    "channels": ResultName("channels of an image", "channels"),
    "results_version": ResultName("version of the results", "results version"),
    "hardware.threads": ResultName("threads of each process", "threads"),
    "hardware.processes": ResultName("processes that trained together", "processes"),
    "hardware.stacked": ResultName("runs that were trained as one model", "stacked runs"),
    "init.kept_parameters": ResultName("parameters that were taken over", "kept params"),
    "init.new_parameters": ResultName("parameters that were drawn anew", "new params"),
    "features.width": ResultName("numbers that describe an image", "feature width"),
    "features.penalty": ResultName("penalty that validation images chose", "penalty"),
    "features.neighbours": ResultName("number of neighbours that validation images chose", "neighbours"),
}

# ------------------------------------------------------------------------------------------------- results of probes

_SHIFT = Family(
    {
        "shift.crop": ("small mirrored shifts", "mirrored"),
        "shift.circular": ("small circular shifts", "circular"),
        "shift.zero": ("small shifts with black edges", "black edges"),
    },
    {
        "consistency": ResultName("same class of two copies after {}", "steady, {}", PAIRS_SHARE),
        "conditional_consistency": ResultName(
            "same class after {} where the first copy is right", "steady if right, {}", PAIRS_SHARE
        ),
        "total_variation": ResultName("change of the softmax after {}", "softmax change, {}", "total variation"),
        "accuracy": ResultName("accuracy after {}", "accuracy, {}", COPIES_SHARE),
        "chance": ResultName("same class by chance after {}", "by chance, {}", PAIRS_SHARE),
        "degenerate": ResultName("nearly one class for all images after {}", "one class, {}", "1 is yes"),
    },
)
_WORST = Family(
    {
        "shift.worst": ("every very small mirrored shift", "every shift"),
        "shift.worst8": ("eight very small mirrored shifts", "8 shifts"),
    },
    {
        "accuracy": ResultName("right after {}", "right, {}", IMAGES_SHARE),
        "conditional_consistency": ResultName(
            "still right after {}", "still right, {}", "share of images right before"
        ),
    },
)
_LENGTH = Family(
    {"shift.length": ("a circular shift along one axis", "one axis")},
    {
        "consistency": ResultName("same class after {}", "steady, {}", IMAGES_SHARE),
        "total_variation": ResultName("change of the softmax after {}", "softmax change, {}", "total variation"),
        "lengths": ResultName("number of lengths of shifts that were measured", "shift lengths"),
    },
)
_ERROR_OF = {  # by the metric on the lattice and off it
    ("on_lattice", "off_lattice"): ("equivariance error of a layer", "map error"),
    ("invariance", "invariance_off_lattice"): ("invariance error of pooled features", "pooled error"),
    ("logits", "logits_off_lattice"): ("invariance error of the logits", "logits error"),
}
_EQUIVARIANCE = Family(
    {"equivariance.circular": ("circular shifts", "circular"), "equivariance.crop": ("mirrored shifts", "mirrored")},
    {
        metric: ResultName(f"{long} under {{}} by {positions}", f"{short}, {{}} {word}", EQUIVARIANT)
        for metrics, (long, short) in _ERROR_OF.items()
        for metric, positions, word in zip(
            metrics, ("whole positions", "parts of positions"), ("whole", "part"), strict=True
        )
    },
)
_ERROR = "local equivariance error"
_LIE = [
    Family(
        {f"{protocol}{motion}": (moving, f"{short}, {word}")},
        {
            "squared": ResultName(f"{whose}squared {_ERROR} of the softmax under {{}}", "squared {}", f"per {unit}²"),
            "abs": ResultName(f"{whose}{_ERROR} of the softmax under {{}}", "{}", f"per {unit}"),
            "logit": ResultName(f"{whose}{_ERROR} of the logits under {{}}", "logit {}", f"spreads per {unit}"),
        },
    )
    for protocol, whose, short in (("lee", "", "LEE"), ("lee.gruver", "Gruver's ", "Gruver LEE"))
    for motion, moving, word, unit in (
        ("", "translation", "shift", PIXELS if protocol == "lee" else "grid unit"),
        (".rotation", "rotation", "turn", "radian"),
        (".scaling", "scaling", "zoom", "factor e"),
    )
]
_DISTORTED = Family(
    {
        "shuffle": ("shuffled tiles", "shuffled tiles"),
        "occlusion": ("hidden tiles", "hidden tiles"),
        "resolution": ("other image sizes", "other sizes"),
        "rotation": ("rotation", "rotation"),
        "scale": ("smaller and larger content", "scaled content"),
        "corruption.noise": ("noise", "noise"),
        "corruption.blur": ("blur", "blur"),
        "corruption.contrast": ("lower contrast", "lower contrast"),
        "corruption.brightness": ("more brightness", "more brightness"),
        "corruption.jpeg": ("JPEG compression", "JPEG"),
    },
    {
        # of the whole probe these images are untouched, and at a level they are distorted
        "accuracy": ResultName("accuracy in the probe of {}", "accuracy, {}", IMAGES_SHARE),
        "agreement": ResultName("class unchanged by {}", "unchanged, {}", IMAGES_SHARE),
        "relative_drop": ResultName("accuracy lost to {}", "lost to {}", "1 is down to guessing"),
        "area": ResultName("accuracy kept on average with {}", "kept with {}", "1 is all of it"),
    },
)
_SPEEDS = {
    "inference_images_per_second": ResultName("speed of inference{}", "inference speed{}", "images/s"),
    "training_images_per_second": ResultName("speed of training steps{}", "training speed{}", "images/s"),
    "peak_memory": ResultName("peak memory of a training step{}", "peak memory{}", "bytes"),
}
_COUNTS = {
    "multiply_adds": ResultName("multiply-adds that the probe counts{}", "MACs (probe){}"),
    "attention_share": ResultName("multiply-adds in products of attention{}", "attention share{}", "share of all"),
    "tokens": ResultName("patches of an image{}", "tokens{}"),
}
_COSTS = [
    Family({"cost": ("", ""), "cost.size": (" by image width", " by width")}, _COUNTS | _SPEEDS),
    Family({"cost.batch": (" by batch", " by batch")}, _SPEEDS),
]
_ATTENTION = Family(
    {"attention_distance": ("attention distance", "attention")},
    {
        "distance": ResultName("{} of a head", "{}, head", PIXELS),
        "distance_raw": ResultName("{} of a head with prefix tokens counted as 0", "{}, head, raw", PIXELS),
        "distance_central": ResultName("{} of a head from the four central patches", "{}, head, central", PIXELS),
        "share_of_width": ResultName("{} of a head over the image's width", "{} / width", RATIO),
        "of_uniform": ResultName("{} of a head over that of uniform attention", "{} / uniform", RATIO),
        "smallest_head": ResultName("shortest {} of a head", "shortest {}", PIXELS),
        "median_head": ResultName("median {} of the heads", "median {}", PIXELS),
        "mean": ResultName("mean {} of the heads", "mean {}", PIXELS),
        "mean_central": ResultName("mean {} from the four central patches", "mean {}, central", PIXELS),
        "smallest_head_of_uniform": ResultName(
            "shortest {} of a head over that of uniform attention", "shortest / uniform", RATIO
        ),
        "mean_of_uniform": ResultName("mean {} over that of uniform attention", "mean / uniform", RATIO),
        "uniform": ResultName("{} of uniform attention", "uniform {}", PIXELS),
        "uniform_central": ResultName(
            "{} of uniform attention from the four central patches", "uniform {}, central", PIXELS
        ),
    },
)
_FIELD = Family(
    {"receptive_field": ("", "")},
    {
        f"{metric}{suffix}": ResultName(long.format(field), short.format(word), unit)
        for suffix, field, word in (
            ("", "the receptive field", "field"),
            ("_before", "the receptive field of a layer's branch", "branch field"),
        )
        for metric, long, short, unit in (
            ("radius", "mean radius of {}", "{} radius", PIXELS),
            ("of_uniform", "radius of {} over a uniform one", "{} / uniform", RATIO),
            ("half_mass", "side of the square with half of {}", "half of the {}", PIXELS),
            ("luo", "size of {} above 4.55 % of its peak", "{} size", PIXELS),
        )
    },
)
_GATE = Family(
    {"gate": ("by position alone", "by position")},
    {
        "share": ResultName("attention of a head {}", "{}, head", "share of attention"),
        "mean": ResultName("mean attention of the heads {}", "{}, mean", "share of attention"),
        "smallest_head": ResultName("least attention of a head {}", "{}, least", "share of attention"),
        "largest_head": ResultName("most attention of a head {}", "{}, most", "share of attention"),
    },
)
_FILTERS = Family(
    {"filters": ("the first layer's filters", "filters")},
    {
        "variance_share": ResultName("variance of {} in their first components", "{}: variance", "share of variance"),
        "effective_components": ResultName("effective number of components of {}", "{}: components"),
        "mean_frequency": ResultName("mean frequency of {}", "{}: frequency", "cycles/px"),
        "colour_share": ResultName("part of colour in {}", "{}: colour", "share of energy"),
    },
)
_CKA = {  # `{}` is what the other network is called
    "similarity": ResultName("CKA of a layer with each layer of {}", "CKA with {}", "1 is the same"),
    "best": ResultName("CKA of a layer with the layer of {} most like it", "best CKA with {}", "1 is the same"),
    "best_at": ResultName("relative depth in {} of the layer most like it", "best depth in {}", "0 first and 1 last"),
    "mean_best": ResultName("mean over layers of the best CKA with {}", "mean best CKA, {}", "1 is the same"),
    "last": ResultName("CKA of the features before the head with those of {}", "last CKA, {}", "1 is the same"),
    "diagonal": ResultName("mean CKA of layers of one name with {}", "layerwise CKA, {}", "1 is the same"),
    "between": ResultName("mean CKA of two different layers of {}", "CKA between layers", "1 is the same"),
}
_SHOTS = ResultName("accuracy of a linear classifier from {} a class", "linear, {}", IMAGES_SHARE)
_CURVES = {
    "deletion": ResultName("mean probability of the class as tiles are deleted by {}", "deletion, {}", "0 to 1"),
    "insertion": ResultName("mean probability of the class as tiles are inserted by {}", "insertion, {}", "0 to 1"),
    "deletion_curve": ResultName("probability of the class as tiles are deleted by {}", "deleted, {}", "0 to 1"),
    "insertion_curve": ResultName("probability of the class as tiles are inserted by {}", "inserted, {}", "0 to 1"),
}
_GAIN = {"over_random": ResultName("insertion minus deletion by {} above random", "gain, {}", "0 is random")}
_ATTRIBUTION = [
    Family(
        {
            "attribution.rollout": ("attention rollout", "rollout"),
            "attribution.grad_cam": ("Grad-CAM", "Grad-CAM"),
            "attribution.integrated_gradients": ("integrated gradients", "int. gradients"),
        },
        _CURVES | _GAIN,
    ),
    Family({"attribution.random": ("a random order", "random")}, _CURVES),
]
FAMILIES = [
    *[_SHIFT, _WORST, _LENGTH, _EQUIVARIANCE, *_LIE, _DISTORTED, _ATTENTION, _FIELD, _GATE, _FILTERS, *_ATTRIBUTION],
    *_COSTS,
]
OTHERS = {  # results of protocols that share no metric with another
    "shuffle.token_grid": ResultName("number of tiles that are the patches of the ViT", "patches"),
    "corruption.accuracy": ResultName("accuracy in the probe of corruptions", "accuracy, corruptions", IMAGES_SHARE),
    "corruption.relative_drop": ResultName(
        "accuracy lost to corruptions", "lost to corruptions", "1 is down to guessing"
    ),
    "lee.attribution": ResultName("squared local equivariance error that a layer adds", "LEE added", "per px²"),
    "frequency.hybrid.low_share": ResultName(
        "hybrid images given the class of the low frequencies", "low frequencies win", "share of the decided"
    ),
    "frequency.hybrid.decided": ResultName(
        "hybrid images given one of their two classes", "hybrids decided", IMAGES_SHARE
    ),
    "frequency.hybrid.balance": ResultName(
        "cut-off at which low and high frequencies decide alike", "balance of frequencies", "cycles/image"
    ),
    "frequency.spectrum.log_amplitude": ResultName(
        "amplitude of a frequency in a layer over that of frequency 0", "log amplitude", "natural logarithm"
    ),
    "pe_similarity.spearman": ResultName(
        "rank correlation of similarity and nearness of positions", "similar where near"
    ),
    "pe_similarity.row_excess": ResultName("extra similarity of positions in one row", "extra in a row"),
    "pe_similarity.column_excess": ResultName("extra similarity of positions in one column", "extra in a column"),
    "pe_similarity.decay_length": ResultName(
        "distance at which similarity of positions is down to 1/e", "similarity decay", PIXELS
    ),
    "linear.accuracy": ResultName(
        "accuracy of a linear classifier on a layer's features", "linear accuracy", IMAGES_SHARE
    ),
    "linear.half_depth": ResultName(
        "depth with half of the last linear accuracy above chance", "half depth", "0 first and 1 last"
    ),
    "linear.images": ResultName("images that linear classifiers learn from", "linear images"),
    "cost.parameters": ResultName("parameters that the probe counts", "params (probe)"),
}
_FAMILY_OF_PROTOCOL = {protocol: family for family in FAMILIES for protocol in family.protocols}


@cache
def name_of(column: str) -> ResultName | None:
    """The name of a result for people; None of a setting, or of a result that nothing here knows."""
    if name := RUNS.get(column) or OTHERS.get(column):
        return name
    checkpoint, _, rest = column.partition(".")
    if checkpoint == "init" or checkpoint.isdecimal():
        if not (name := name_of(rest)) or rest in RUNS:
            return None
        when = "before training" if checkpoint == "init" else f"after {checkpoint} steps"
        short = "untrained" if checkpoint == "init" else f"step {checkpoint}"
        return ResultName(f"{name.long} ({when})", f"{short}: {name.short}", name.unit)
    protocol, _, metric = column.rpartition(".")
    if family := _FAMILY_OF_PROTOCOL.get(protocol):
        its = family.metrics.get(metric)
        return its and _filled(its, *family.protocols[protocol])
    if protocol.startswith("cka.") and metric in _CKA:
        label = protocol.removeprefix("cka.")
        other = {"self": "the same network", "other": "the other run"}.get(label, label)
        return _filled(_CKA[metric], other, label)
    if shots := re.fullmatch(r"linear\.shots\.accuracy(?:_(\d+))?", column):
        images = {None: "few images", "1": "1 image"}.get(shots[1], f"{shots[1]} images")
        return _filled(_SHOTS, images, images)
    return None


def probe_of(column: str) -> tuple[str, str] | None:
    """The probe that gives a result, and the checkpoint that it then measures; None where no probe does."""
    if column in RUNS or name_of(column) is None:
        return None
    checkpoint, _, rest = column.partition(".")
    is_trained = checkpoint != "init" and not checkpoint.isdecimal()
    protocol = checkpoint if is_trained else rest.partition(".")[0]
    return "lie" if protocol == "lee" else protocol, "trained" if is_trained else checkpoint


def _filled(name: ResultName, long: str, short: str) -> ResultName:
    return ResultName(name.long.replace("{}", long), name.short.replace("{}", short), name.unit)


def columns_of_probes() -> list[str]:
    """The results of all probes; those that compare with another network call it `other`."""
    shots = ["linear.shots.accuracy", *(f"linear.shots.accuracy_{count}" for count in (1, 5, 10, 25))]
    similar = [f"cka.{'self' if metric == 'between' else 'other'}.{metric}" for metric in _CKA]
    families = [f"{protocol}.{metric}" for its in FAMILIES for protocol in its.protocols for metric in its.metrics]
    return sorted([*families, *OTHERS, *shots, *similar])
