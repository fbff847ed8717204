"""The schema of a run and of a sweep: their settings, the types of these, their defaults, and what each one is.

A setting's sentence is the comment at the end of its line, or the comment above where it takes more room. `--help`,
shell completion and docs/reference/settings.md read it there (vitbench/settings/explained.py).

`model`, `pe`, `objective` and `probe` are open here: their options are those of the class or function that the menu
names (vitbench/menu.py), and vitbench/settings/options.py compares with them what was typed. Their sentences stand in
`conf/`, beside the values.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class DataConfig:
    source: str = "shapes"  # the menu's name of the images, which data=NAME chooses
    name: str | None = None  # what tables and run ids call these images; null: their name in data=, or their folder's
    root: str = "data"  # folder of the images; a public data set is downloaded into it
    cache: str | None = None  # folder of decoded images; null: $VITBENCH_CACHE, else ~/.cache/vitbench
    image_size: int | None = None  # width and height that images are brought to, in pixels; null: the source's own
    fraction: float = 1.0  # share of the training images that a run learns from, after validation images are set aside
    count: int | None = None  # the same as a number of images, instead of fraction; null: fraction says it
    subset_seed: int | None = None  # draws which images belong to that share; null: the run's seed
    val_fraction: float = 0.1  # share of the training images that is set aside first, for validation
    flip: bool = True  # whether a mirror image keeps its label; false forbids augmentation by mirror images
    classes: list[int] | None = None  # only these classes, by their numbers from 0, [0,3,7]; null: all
    # rearranges the places of all images in one way: tiles moves squares, pixels single pixels, none nothing
    # (docs/reference/datasets.md)
    permute: str = "none"
    permute_share: float = 1.0  # share of the tiles or pixels that permute moves
    permute_tile: int = 4  # side of a tile that permute moves, in pixels
    permute_seed: int | None = None  # draws the rearrangement of permute; null: the run's seed


@dataclass
class FolderConfig(DataConfig):
    labels: str | None = None  # a table of files and classes, such as labels.csv; null: each folder is a class
    test_fraction: float = 0.2  # share of the images that become test images, where the folder has none
    split_seed: int = 0  # draws these test images; it does not follow seed, so that all runs share one test set
    fit: str = "crop"  # makes images square: crop cuts the longer side, pad adds borders, squash distorts
    skip_broken: bool = False  # true: leaves out and lists files that cannot be decoded; false: stops at the first
    follow_links: bool = False  # true: reads links that lead out of the folder, too


@dataclass
class TestShapes:
    """What differs in the test images of `shapes`; null: as in training."""

    x: tuple[float, float] | None = None  # data.x of test images, [from,to]; null: as in training
    y: tuple[float, float] | None = None  # data.y of test images, [from,to]; null: as in training
    rotation: tuple[float, float] | None = None  # data.rotation of test images, in degrees; null: as in training
    radius: tuple[float, float] | None = None  # data.radius of test images, [from,to]; null: as in training
    background: float | None = None  # data.background of test images; null: as in training
    texture: float | None = None  # data.texture of test images; null: as in training
    contrast: float | None = None  # data.contrast of test images; null: as in training
    noise: float | None = None  # data.noise of test images; null: as in training


@dataclass
class ShapesConfig(DataConfig):
    # what the class is: shape (which of ten), relation (how a disc lies to a square), place (where an object is) or
    # same_different (whether two objects are of one kind)
    task: str = "shape"
    train_images: int = 10_000  # training images that are drawn, before validation images are set aside
    test_images: int = 2_000  # test images that are drawn
    image_seed: int = 0  # draws the images; it does not follow seed, so that all runs share them
    # true: every step draws training images anew and none is repeated (docs/reference/datasets.md)
    online: bool = False
    # how images vary beside their class; ranges are drawn from uniformly
    x: tuple[float, float] | None = None  # the object's place across, [from,to], -1 left to 1 right; null: the task's
    y: tuple[float, float] | None = None  # the object's place down, [from,to], -1 top to 1 bottom; null: the task's
    rotation: tuple[float, float] | None = None  # the object's angle, [from,to], in degrees; null: the task's
    radius: tuple[float, float] | None = None  # its radius, [from,to], in halves of the image's width; null: the task's
    background: float | None = None  # how far the background's colour may be from grey, 0 to 0.5; null: the task's
    texture: float | None = None  # strength of the waves behind the object, 0 to 1; null: the task's
    contrast: float | None = None  # how far the object's colour is from the background's, 0 to 1; null: the task's
    noise: float | None = None  # standard deviation of the noise of each pixel, 0 to 1; null: the task's
    test: TestShapes = field(default_factory=TestShapes)


SCHEMA_OF_SOURCE: dict[str, type[DataConfig]] = {"shapes": ShapesConfig, "imagefolder": FolderConfig}  # else DataConfig


@dataclass
class OptimConfig:
    name: str = "vit"  # the recipe's name, which optim=NAME chooses
    optimizer: str = "adamw"  # the rule that changes weights: adamw, or sgd with Nesterov momentum
    lr: float = 1e-3  # peak learning rate, which warm-up reaches and the schedule then lowers
    weight_decay: float = 0.05  # how strongly each step draws the weights towards 0, in proportion to lr
    momentum: float = 0.9  # share of its last direction that sgd keeps at each step; adamw ignores it
    beta2: float = 0.999  # how slowly adamw forgets the size of past gradients; sgd ignores it
    steps: int | None = 1000  # how many steps a run trains, a batch each; null: epochs says it
    epochs: float | None = None  # passes through the run's training images, instead of steps; null: steps says it
    min_steps: int | None = None  # beside epochs: trains at least so many steps, however few the images are
    batch_size: int = 64  # images that a step learns from
    # the learning rate after warm-up: cosine falls to 0, constant stays, wsd stays and falls in the last decay
    schedule: str = "cosine"
    warmup: float | None = 0.1  # share of the steps in which the learning rate rises from 0 to lr
    warmup_steps: int | None = None  # the same as a number of steps, instead of warmup; null: warmup says it
    decay: float = 0.2  # share of the steps, the last ones, in which schedule=wsd lowers the learning rate to 0
    label_smoothing: float = 0.0  # share of each label that is spread evenly over all classes; 0: off
    class_weights: str = "none"  # balanced: images of rare classes count more; none: all alike (docs/how-to/budgets.md)
    clip: float | None = None  # longest gradient, as its norm over all weights, to which longer ones are cut; null: off
    ema: float | None = None  # decay a step of a moving average of the weights, which is then evaluated; null: off
    # each layer has the learning rate of the one above times this (docs/how-to/transfer.md); 1: off
    layer_decay: float = 1.0


@dataclass
class AugmentConfig:
    name: str = "none"  # the preset's name, which augment=NAME chooses
    area: float = 1.0  # least share of the image that a random part shows, enlarged to the image's size; 1: off
    crop: float = 0.0  # largest random shift, as a share of the image's width; what is missing is mirrored in; 0: off
    rotate: float = 0.0  # largest random angle, in degrees either way; 0: off
    scale: float = 0.0  # random factors of size, from 1/(1 + scale) to 1 + scale; 0: off
    flip: bool = False  # mirrors half of the images left to right, where data.flip allows it
    randaugment: int = 0  # random operations on an image, one after the other (RandAugment); 0: off
    # who draws RandAugment's operations: chunk, torchvision, for 8 images at once; image, the device, for each image
    draw: str = "chunk"
    magnitude: int = 9  # strength of RandAugment's operations
    mixup: float = 0.0  # blends two images and their labels, ratios from Beta(mixup, mixup); 0: off
    cutmix: float = 0.0  # puts a part of another image in, labels by area, ratios from Beta(cutmix, cutmix); 0: off
    erase: float = 0.0  # probability that a rectangle of the image becomes noise (random erasing); 0: off


@dataclass
class DistillConfig:
    """What is learned from a teacher; null without one."""

    kind: str | None = None  # hard takes the teacher's class, soft all its probabilities; null: hard, as in DeiT
    alpha: float | None = None  # the teacher's share of the loss; null: 0.5 for hard and 0.1 for soft, as in DeiT
    temperature: float | None = None  # how far the teacher's probabilities are evened out, soft only; null: 3


@dataclass
class MachineConfig:
    device: str = "auto"  # computes on cpu, cuda or cuda:N (GPU number N); auto: the first GPU, else the processor
    precision: str = "auto"  # numbers of forward and backward: float32 or bfloat16; auto: bfloat16 on a GPU
    compile: bool | None = None  # whether torch compiles the network before training; null: on a GPU
    graph: bool | None = None  # whether a step is one CUDA graph (docs/how-to/gpu.md); null: on a GPU, where it can be
    microbatch: int | None = None  # images of a batch that are computed at a time, to save memory; null: all
    threads: int | None = None  # cores that are used; null: all, or one a run where a launcher runs several
    images: str = "auto"  # batches come from memory (the device's), cache or files (disk); auto: memory, else cache
    progress: bool | None = None  # whether progress is shown; null: where stderr is a terminal


@dataclass
class TrainConfig:
    seed: int = 0  # draws weights, order and augmentation of the images, and what data.subset_seed=null leaves open
    runs: str = "runs"  # folder of all runs; each has a folder of its own in it
    eval_every: int | None = None  # steps between two evaluations, log lines and saves; null: ten a run
    keep: list[int] | None = None  # steps after which weights are kept, for probes and branches; null: at the end alone
    # programs that show the curves, one or a list: tensorboard, trackio, wandb (docs/how-to/trackers.md); null: none
    trackers: Any = None
    # weights to begin from: a run's id, FILE.safetensors, torchvision:NAME, timm:NAME, or words such as
    # 'data.fraction=1' for the run that differs in them (docs/how-to/transfer.md); null: random weights
    init: str | None = None
    # goes on from this step of init, a run with optim.schedule=wsd (docs/how-to/budgets.md)
    checkpoint: int | None = None
    head: str = "keep"  # the last layer of init: keep takes it over, new draws it afresh
    freeze: str = "none"  # what is not trained: none, or backbone (all but the head)
    # head is trained with the network; linear and nearest read frozen features, by `vitbench features`
    classifier: str = "head"
    model: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    objective: dict[str, Any] = field(default_factory=dict)
    teacher: str | None = None  # learns from this run, too: its id, or words that tell it apart, 'model=resnet'
    # how the answers of the teacher are learned (docs/reference/objectives.md)
    distill: DistillConfig = field(default_factory=DistillConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)  # where and how it is computed; changes no run's id


@dataclass
class SweepConfig(TrainConfig):
    study: str | None = None  # runs this study: its name (`vitbench ls studies`), or the path of a yaml file
    dry_run: bool = False  # true: says what is finished, what is missing and how long it takes, and runs nothing
    retry_failed: bool = False  # true: starts failed runs again
    confirm: bool = False  # true: lets a study have more than 10,000 runs
    wait: bool = True  # false: hands the runs to SLURM and returns (docs/how-to/scaling-out.md)
    evidence: bool = False  # true: runs that stand in results/<study>/runs.csv are done, though their weights are gone
    results: str = "results"  # folder of the results that evidence reads


SWEEP_KEYS = frozenset(f.name for f in fields(SweepConfig)) - frozenset(f.name for f in fields(TrainConfig))
