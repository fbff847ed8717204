"""The schema of every command: its settings, their types and their defaults.

`model`, `pe`, `objective` and `probe` are open here: their options are those of the class or function that the menu
names (vitbench/menu.py), and vitbench/settings/options.py compares with them what was typed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any


@dataclass
class DataConfig:
    source: str = "shapes"  # the menu's name
    name: str | None = None  # what tables and run ids call these images; null: the source, or the folder's name
    root: str = "data"  # where the files are, or are downloaded to
    cache: str | None = None  # decoded images; null: $VITBENCH_CACHE, else ~/.cache/vitbench
    image_size: int | None = None  # pixels; null: the source's own
    fraction: float = 1.0  # share of the training images that are left after validation
    count: int | None = None  # the same as a number of images
    subset_seed: int | None = None  # which images; null: follows seed
    val_fraction: float = 0.1  # cut from the training images first
    flip: bool = True  # whether a mirror image keeps its label
    classes: list[int] | None = None  # only these, by their numbers, which become 0, 1, ...; null: all
    permute: str = "none"  # tiles or pixels: places that are rearranged in one way for all images (docs/datasets.md)
    permute_share: float = 1.0  # of the tiles that move
    permute_tile: int = 4  # pixels a side
    permute_seed: int | None = None  # which rearrangement; null: follows seed


@dataclass
class FolderConfig(DataConfig):
    labels: str | None = None  # a table of file and class, labels.csv, in place of class folders
    test_fraction: float = 0.2  # share of the images that become test images, where there are none
    split_seed: int = 0  # which ones; it does not follow seed, so that all runs share one test set
    fit: str = "crop"  # what becomes of images that are not square: crop, pad or squash
    skip_broken: bool = False
    follow_links: bool = False


@dataclass
class TestShapes:
    """What differs in the test images of `shapes`; null: as in training."""

    x: tuple[float, float] | None = None
    y: tuple[float, float] | None = None
    rotation: tuple[float, float] | None = None
    radius: tuple[float, float] | None = None
    background: float | None = None
    texture: float | None = None
    contrast: float | None = None
    noise: float | None = None


@dataclass
class ShapesConfig(DataConfig):
    task: str = "shape"
    train_images: int = 10_000
    test_images: int = 2_000
    image_seed: int = 0
    online: bool = False  # draw training images anew for every step and repeat none (docs/datasets.md)
    # nuisances; null: the task's own (vitbench/data/shapes.py)
    x: tuple[float, float] | None = None  # place of the object, share of the room it has
    y: tuple[float, float] | None = None
    rotation: tuple[float, float] | None = None  # degrees
    radius: tuple[float, float] | None = None  # share of half the image's width
    background: float | None = None
    texture: float | None = None
    contrast: float | None = None
    noise: float | None = None
    test: TestShapes = field(default_factory=TestShapes)


SCHEMA_OF_SOURCE: dict[str, type[DataConfig]] = {"shapes": ShapesConfig, "imagefolder": FolderConfig}  # else DataConfig


@dataclass
class OptimConfig:
    name: str = "vit"  # the recipe
    optimizer: str = "adamw"  # or sgd
    lr: float = 1e-3
    weight_decay: float = 0.05
    momentum: float = 0.9  # sgd only
    beta2: float = 0.999  # adamw only
    steps: int | None = 1000
    epochs: float | None = None  # instead of steps
    min_steps: int | None = None  # beside epochs: at least so many steps, however few the images
    batch_size: int = 64
    schedule: str = "cosine"  # of the learning rate after warm-up; constant, or wsd: constant, then decay
    warmup: float | None = 0.1  # share of the steps
    warmup_steps: int | None = None  # instead of warmup
    decay: float = 0.2  # wsd only: share of the steps
    label_smoothing: float = 0.0
    class_weights: str = "none"  # balanced: images of rare classes count more (docs/budgets.md)
    clip: float | None = None  # largest norm of the gradient
    ema: float | None = None  # decay a step of the averaged weights, which are then the ones evaluated
    layer_decay: float = 1.0  # a layer's learning rate is that of the layer above it times this (docs/transfer.md)


@dataclass
class AugmentConfig:
    name: str = "none"
    area: float = 1.0  # least share of the image that a random crop shows, at the image's size; 1: no crop
    crop: float = 0.0  # shifts: reflection padding before a random crop, share of the image's width
    rotate: float = 0.0  # largest angle, degrees
    scale: float = 0.0  # factors from 1/(1 + scale) to 1 + scale
    flip: bool = False  # where the data allow it
    randaugment: int = 0  # operations an image
    draw: str = "chunk"  # of RandAugment: for 8 images at once, by torchvision; image: for each, on the device
    magnitude: int = 9  # of RandAugment, 0 to 30
    mixup: float = 0.0  # alpha; 0: off
    cutmix: float = 0.0
    erase: float = 0.0  # probability that a rectangle of the image becomes noise (random erasing)


@dataclass
class DistillConfig:
    """What is learned from a teacher; null without one."""

    kind: str | None = None  # hard or soft; null: hard, DeiT's choice
    alpha: float | None = None  # the share of the loss that is the teacher's; null: 0.5 hard, 0.1 soft, as in DeiT
    temperature: float | None = None  # soft only; null: 3, as in DeiT


@dataclass
class MachineConfig:
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    precision: str = "auto"  # auto, float32, bfloat16; auto: bfloat16 on GPU
    compile: bool | None = None  # null: on GPU
    graph: bool | None = None  # a step as one CUDA graph (docs/gpu.md); null: on GPU, where the step can be one
    microbatch: int | None = None  # images of a batch that are computed at a time; null: all
    threads: int | None = None  # null: all cores, or one a run where a launcher runs several
    images: str = "auto"  # memory (of the device), cache or files, where batches come from; auto: memory or cache
    progress: bool | None = None  # null: where stderr is a terminal


@dataclass
class TrainConfig:
    seed: int = 0
    runs: str = "runs"  # folder of all runs
    eval_every: int | None = None  # steps between two evaluations, log lines and saves; null: ten a run
    keep: list[int] | None = None  # steps after which weights are kept, for probes and branches; null: at the end alone
    init: str | None = None  # weights to begin from: a run's id, FILE.safetensors, timm:NAME ... (docs/transfer.md)
    checkpoint: int | None = None  # of init, a run with optim.schedule=wsd: goes on from this step (docs/budgets.md)
    head: str = "keep"  # the one of init; new: drawn afresh
    freeze: str = "none"  # backbone: only the head is trained
    classifier: str = "head"  # linear, nearest: on frozen features, by `vitbench features` (docs/features.md)
    model: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    objective: dict[str, Any] = field(default_factory=dict)
    teacher: str | None = None  # a run, or words that tell it from this one: 'model=resnet'
    distill: DistillConfig = field(default_factory=DistillConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)


@dataclass
class SweepConfig(TrainConfig):
    study: str | None = None
    dry_run: bool = False
    retry_failed: bool = False
    confirm: bool = False
    wait: bool = True  # false: submit to SLURM and return
    evidence: bool = False  # true: runs that stand in results/<study>/runs.csv are done, though their weights are gone
    results: str = "results"  # for evidence


@dataclass
class TableConfig:
    """`table` prints; `file=` writes instead, in the format of its ending."""

    runs: str = "runs"
    study: str | None = None  # only the runs of this study, in the tables that it names
    name: str | None = None  # one of the study's tables
    where: dict[str, Any] = field(default_factory=dict)  # where.KEY=VALUE, where.KEY=[VALUE,VALUE]
    rows: Any = None  # a setting or a list of them; null: every setting that tells runs apart
    columns: str | None = None  # a setting whose values become columns; or train_images, samples_seen
    value: Any = None  # a result, or a list of them side by side; null: test_accuracy, or the study's choice
    show: str | None = None  # ci95, sd or mean; null: ci95, or the study's choice
    against: str | None = None  # a line's name, or settings of each line's own counterpart: how far others are from it
    matched: str | None = None  # an accuracy: compare lines where they are equal in it, not in images (docs/metrics.md)
    whole: str | None = None  # a network (resnet): what each bias that others lack is worth in images (docs/metrics.md)
    bare: str | None = None  # a network (vit pe=sincos2d): what each bias that others have besides is worth in images
    per: str | None = None  # class: recalls, a line a class; confusion: which class one network takes for which
    format: str = "text"  # or md, csv, tex, json
    file: str | None = None


@dataclass
class PlotConfig:
    """`plot` writes one figure and prints its path."""

    runs: str = "runs"
    study: str | None = None
    name: str | None = None  # one of the study's figures
    where: dict[str, Any] = field(default_factory=dict)
    x: str | None = None  # a result or a setting, of what a probe measured along layers: layer; null: train_images
    y: Any = None  # a result, or a list of them side by side; null: test_accuracy, or the study's choice
    lines: Any = None  # a setting or a list of them; null: every setting that tells lines apart
    log: str | None = None  # axes with a logarithmic scale: x, y, xy or none; null: x, xy with fit, or the study's
    fit: bool | None = None  # fitted learning curves, and where they cross; null: false, or the study's choice
    at: float | None = None  # of what a probe measured along layers and something else: only there
    layer: str | None = None  # the same, only this layer
    degenerate: bool | None = None  # what probes measured of networks at chance, too; null: false, or the study's
    whole: str | None = None  # a network (resnet): what each bias that others lack is worth in images, as in a table
    bare: str | None = None  # a network (vit pe=sincos2d): what each bias that others have besides is worth in images
    per: str | None = None  # confusion: which class one network takes for which
    file: str = "figures/accuracy.svg"  # or .png, .pdf


@dataclass
class FitConfig:
    """`fit` prints learning curves and what they say of each pair."""

    runs: str = "runs"
    study: str | None = None
    where: dict[str, Any] = field(default_factory=dict)
    file: str | None = None  # a table of one's own instead of runs
    value: str | None = None  # an error or a loss; null: test_error
    x: str = "train_images"  # or samples_seen, multiply_adds, train_seconds: of all training
    form: str | None = None  # of all curves: pow2, pow3 or m4; null: the one of least AICc
    target: float | None = None  # an accuracy, or a loss: how many images each model would need for it
    against: str | None = None  # a curve's name: compare all others with it
    format: str = "text"  # or md, csv, tex, json


@dataclass
class ReportConfig:
    """`report` writes what `results/` holds, or checks it."""

    runs: str = "runs"
    results: str = "results"
    study: str | None = None  # read its runs; null: make all that is in results/ again
    check: bool = False  # write nothing, compare


@dataclass
class BenchConfig:
    """`bench` measures and prints."""

    rows: Any = None  # a row or a list of them; null: all
    models: Any = field(default_factory=lambda: ["vit", "resnet"])
    sizes: Any = field(default_factory=lambda: ["nano", "tiny"])
    windows: int = 5  # of each contestant
    seconds: float = 2.0  # a window, about
    device: str = "auto"  # auto, cpu, cuda
    timm: str | None = None  # the train.py of a checkout of pytorch-image-models
    format: str = "text"  # or json
    file: str | None = None  # .json


@dataclass
class InspectConfig:
    """`inspect` looks at images before a network trains on them."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: Any = None  # nothing here: what data sets say of it
    format: str = "text"  # or json, which lists all that is suspicious
    file: str | None = None  # .png, .svg or .pdf: a contact sheet of what is suspicious


@dataclass
class AdviseMachineConfig:
    """Runs train on as many processes as there are cores, or GPUs."""

    device: str = "auto"
    progress: bool | None = None


@dataclass
class AdviseConfig:
    """`advise` says which network suits photographs, by a study that fits into the minutes."""

    minutes: float = 30.0  # after which no run is started any more
    models: Any = None  # pretrained networks, timm:NAME or torchvision:NAME, @FILE; null: those whose weights are here
    out: str | None = None  # folder of advice.html and study.yaml; null: advice/<name of the images>
    runs: str = "runs"
    data: DataConfig = field(default_factory=DataConfig)
    augment: Any = None  # nothing here: what data sets say of it
    machine: AdviseMachineConfig = field(default_factory=AdviseMachineConfig)


@dataclass
class ProbeMachineConfig:
    """Probes compute in float32."""

    device: str = "auto"
    threads: int | None = None
    progress: bool | None = None


@dataclass
class ProbeConfig:
    """`probe` measures checkpoints."""

    runs: str = "runs"
    run: Any = None  # an id below `runs`, or a list of them
    study: str | None = None  # all of its finished runs, with the probes it names
    where: dict[str, Any] = field(default_factory=dict)  # where.KEY=VALUE, where.KEY=[VALUE,VALUE], as in `table`
    checkpoint: Any = "trained"  # init: before training; a step of `keep`, kept: all of them; or a list
    images: int = 1000  # test images, drawn with `seed`
    seed: int = 0
    figures: bool = True  # leave a probe's picture beside its rows, where it has one
    file: str | None = None  # .svg, .png or .pdf: draw the picture of one probe there instead of measuring
    outside: str | None = None  # typed model=: torchvision or timm
    arch: str | None = None  # a network there
    name: str | None = None  # another word for arch
    weights: str | None = None  # its file, .safetensors or what torch.save made of a state_dict
    mean: Any = None  # of the images it was trained on, in 0..1; null: ImageNet's
    std: Any = None
    probe: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    augment: Any = None  # nothing here: what data sets say of it
    machine: ProbeMachineConfig = field(default_factory=ProbeMachineConfig)


@dataclass
class PredictConfig:
    """`predict` gives images to a network."""

    runs: str = "runs"
    run: str | None = None  # an id below `runs`
    images: str | None = None  # a folder, or one file
    probabilities: str = "top"  # of the predicted class; all: of every class
    file: str | None = None  # .csv; null: prints
    machine: ProbeMachineConfig = field(default_factory=ProbeMachineConfig)


@dataclass
class ExportConfig:
    """`export` writes a network for other programs."""

    runs: str = "runs"
    run: str | None = None  # an id below `runs`
    format: str | None = None  # safetensors or onnx; null: the ending of the file
    file: str | None = None  # null: the run's id, with the format as its ending
    machine: ProbeMachineConfig = field(default_factory=ProbeMachineConfig)


@dataclass
class FeaturesConfig:
    """`features` compares frozen networks by what can be read off their features."""

    models: Any = None  # runs' ids, timm:NAME, torchvision:NAME, either with @FILE for weights of one's own
    shares: Any = field(default_factory=lambda: [0.1, 1.0])  # of the training images, each within the larger ones
    seeds: int = 3  # 0, 1, 2: each draws its own shares and validation images
    classifiers: Any = field(default_factory=lambda: ["linear", "nearest"])
    runs: str = "runs"
    data: DataConfig = field(default_factory=DataConfig)
    augment: Any = None  # nothing here: what data sets say of it
    machine: ProbeMachineConfig = field(default_factory=ProbeMachineConfig)


SWEEP_KEYS = frozenset(f.name for f in fields(SweepConfig)) - frozenset(f.name for f in fields(TrainConfig))


@cache
def register_schemas() -> None:
    """Makes the dataclasses known to Hydra, once a process; conf/*.yaml names them in their defaults lists."""
    from hydra.core.config_store import ConfigStore

    for name, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"schema_{name}", node=schema)


SCHEMAS: dict[str, type] = {
    "train": TrainConfig,
    "sweep": SweepConfig,
    "table": TableConfig,
    "plot": PlotConfig,
    "fit": FitConfig,
    "report": ReportConfig,
    "bench": BenchConfig,
    "probe": ProbeConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "features": FeaturesConfig,
    "inspect": InspectConfig,
    "advise": AdviseConfig,
    "data": DataConfig,
    "folder": FolderConfig,
    "shapes": ShapesConfig,
    "optim": OptimConfig,
    "augment": AugmentConfig,
}
