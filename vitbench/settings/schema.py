"""The schema of a run and of a sweep: their settings, the types of these and their defaults.

`model`, `pe`, `objective` and `probe` are open here: their options are those of the class or function that the menu
names (vitbench/menu.py), and vitbench/settings/options.py compares with them what was typed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
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


SWEEP_KEYS = frozenset(f.name for f in fields(SweepConfig)) - frozenset(f.name for f in fields(TrainConfig))
