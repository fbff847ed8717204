"""The schemas of `train` and `sweep`: each setting with its type, its default and a sentence that explains it.

The sentence is the comment at the end of the setting's line, or the comment above it if it is longer. `--help`, shell
completion and docs/reference/settings.md show these comments (vitbench/explaining/comments.py reads them).

`model`, `pe`, `objective` and `probe` have no schema here. Their options are the keyword arguments of the class or
function that the menu names (vitbench/menu.py). vitbench/settings/options.py checks what was typed against these
arguments, and the comments in `conf/` explain them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class DataConfig:
    source: str = "shapes"  # name of the data set; data=NAME sets it
    # name of the data set in tables and run ids; null: the name after data=, or the folder's name for your own images
    name: str | None = None
    root: str = "data"  # folder of the images; public data sets are downloaded into it
    cache: str | None = None  # folder of the decoded images; null: $VITBENCH_CACHE, else ~/.cache/vitbench
    image_size: int | None = None  # width and height to which images are resized, in pixels; null: the data set's own
    # share of the training images that the run trains on; validation images are set aside before it is taken
    fraction: float = 1.0
    count: int | None = None  # number of training images, instead of data.fraction; null: data.fraction decides
    # seed that draws which training images belong to data.fraction or data.count; null: the run's seed
    subset_seed: int | None = None
    val_fraction: float = 0.1  # share of the training images that is set aside for validation
    flip: bool = True  # true: a mirrored image keeps its class; false: augmentation must not mirror images
    classes: list[int] | None = None  # uses only the classes with these numbers, counted from 0: [0,3,7]; null: all
    # rearranges every image in the same way: tiles moves square tiles, pixels moves single pixels, none moves nothing
    # (docs/reference/datasets.md)
    permute: str = "none"
    permute_share: float = 1.0  # share of the tiles or pixels that data.permute moves
    permute_tile: int = 4  # side of the square tiles that data.permute=tiles moves, in pixels
    permute_seed: int | None = None  # seed that draws the rearrangement of data.permute; null: the run's seed


@dataclass
class FolderConfig(DataConfig):
    labels: str | None = None  # table with the class of each file, such as labels.csv; null: each folder is a class
    # share of the images that become test images, if the folder has no test images of its own
    test_fraction: float = 0.2
    # seed that draws these test images; it does not depend on the run's seed, so all runs have the same test images
    split_seed: int = 0
    # makes images square: crop cuts the longer side, pad adds borders to the shorter one, squash changes proportions
    fit: str = "crop"
    # true: files that cannot be decoded are left out and listed; false: the first such file stops the run
    skip_broken: bool = False
    follow_links: bool = False  # true: symbolic links that lead out of the folder are read, too


@dataclass
class TestShapes:
    """The settings in which the test images of `shapes` differ from the training images."""

    x: tuple[float, float] | None = None  # data.x for test images, [from,to]; null: as in training
    y: tuple[float, float] | None = None  # data.y for test images, [from,to]; null: as in training
    rotation: tuple[float, float] | None = None  # data.rotation for test images, in degrees; null: as in training
    radius: tuple[float, float] | None = None  # data.radius for test images, [from,to]; null: as in training
    background: float | None = None  # data.background for test images; null: as in training
    texture: float | None = None  # data.texture for test images; null: as in training
    contrast: float | None = None  # data.contrast for test images; null: as in training
    noise: float | None = None  # data.noise for test images; null: as in training


@dataclass
class ShapesConfig(DataConfig):
    # what decides the class: shape (which of ten shapes is drawn), relation (on which side of a disc a square lies),
    # place (where in the image an object lies) or same_different (whether two objects have the same shape)
    task: str = "shape"
    train_images: int = 10_000  # training images that are drawn, including those that are set aside for validation
    test_images: int = 2_000  # test images that are drawn
    image_seed: int = 0  # seed that draws the images; it does not depend on the run's seed, so all runs have the same
    # true: each step draws new training images, and none is seen twice (docs/reference/datasets.md)
    online: bool = False
    # The settings below vary the images within a class. A value is drawn uniformly from a range.

    # horizontal position of the object, [from,to], from -1 (left) to 1 (right); null: the task's own range
    x: tuple[float, float] | None = None
    # vertical position of the object, [from,to], from -1 (top) to 1 (bottom); null: the task's own range
    y: tuple[float, float] | None = None
    # angle of the object, [from,to], in degrees; null: the task's own range
    rotation: tuple[float, float] | None = None
    # radius of the object, [from,to], as a share of half the image's width; null: the task's own range
    radius: tuple[float, float] | None = None
    # largest difference between the background's colour and mid-grey, 0 to 0.5; null: the task's own value
    background: float | None = None
    texture: float | None = None  # strength of the wave pattern behind the object, 0 to 1; null: the task's own value
    # difference between the object's colour and the background's, 0 to 1; null: the task's own value
    contrast: float | None = None
    noise: float | None = None  # standard deviation of the noise in each pixel, 0 to 1; null: the task's own value
    test: TestShapes = field(default_factory=TestShapes)


# The sources whose settings go beyond DataConfig.
SCHEMA_OF_SOURCE: dict[str, type[DataConfig]] = {"shapes": ShapesConfig, "imagefolder": FolderConfig}


@dataclass
class OptimConfig:
    name: str = "vit"  # name of the recipe; optim=NAME sets it
    optimizer: str = "adamw"  # optimizer: adamw, or sgd (SGD with Nesterov momentum)
    lr: float = 1e-3  # peak learning rate, which warm-up reaches and the schedule then lowers
    weight_decay: float = 0.05  # strength with which each step pulls the weights towards 0, in proportion to lr
    momentum: float = 0.9  # momentum of sgd; adamw ignores it
    beta2: float = 0.999  # decay of adamw's running mean of squared gradients, per step; sgd ignores it
    steps: int | None = 1000  # training steps of the run, each on one batch; null: optim.epochs decides
    epochs: float | None = None  # passes through the run's training images, instead of steps; null: optim.steps decides
    min_steps: int | None = None  # fewest steps of a run whose length optim.epochs gives; null: no lower bound
    batch_size: int = 64  # images of one training step
    # learning rate after warm-up: cosine falls to 0, constant stays at lr, wsd stays at lr and falls to 0 at the end
    schedule: str = "cosine"
    warmup: float | None = 0.1  # share of the steps in which the learning rate rises linearly to lr
    warmup_steps: int | None = None  # number of warm-up steps, instead of optim.warmup; null: optim.warmup decides
    decay: float = 0.2  # share of the steps, at the end, in which optim.schedule=wsd lowers the learning rate to 0
    label_smoothing: float = 0.0  # share of each label that is spread evenly over all classes; 0: off
    # balanced: images of rare classes weigh more in the loss; none: all images weigh the same (docs/how-to/budgets.md)
    class_weights: str = "none"
    clip: float | None = None  # largest norm of the gradient over all weights; a longer one is scaled down; null: off
    ema: float | None = None  # decay per step of a moving average of the weights, which is what is tested; null: off
    # factor of the learning rate from each layer to the one below it (docs/how-to/transfer.md); 1: off
    layer_decay: float = 1.0


@dataclass
class AugmentConfig:
    name: str = "none"  # name of the preset; augment=NAME sets it
    area: float = 1.0  # smallest share of an image that a random crop shows, enlarged to the image's size; 1: off
    # largest random shift, as a share of the image's width; the border is filled by reflection; 0: off
    crop: float = 0.0
    rotate: float = 0.0  # largest angle of a random rotation in either direction, in degrees; 0: off
    scale: float = 0.0  # resizes by a random factor between 1/(1 + scale) and 1 + scale; 0: off
    flip: bool = False  # true: mirrors a random half of the images left to right, if data.flip allows it
    randaugment: int = 0  # number of random operations on each image (RandAugment); 0: off
    # how RandAugment draws operations: chunk draws once for 8 images (torchvision's code), image draws for each image
    draw: str = "chunk"
    magnitude: int = 9  # strength of RandAugment's operations
    # alpha of MixUp, which blends two images and their labels in a ratio drawn from Beta(alpha, alpha); 0: off
    mixup: float = 0.0
    # alpha of CutMix, which pastes a box of another image in and mixes the labels by area, in a ratio drawn from
    # Beta(alpha, alpha); 0: off
    cutmix: float = 0.0
    erase: float = 0.0  # probability that a random rectangle of an image becomes noise (random erasing); 0: off


@dataclass
class DistillConfig:
    """How a run learns from its teacher. All are null in a run without a teacher."""

    # hard learns the class that the teacher predicts, soft learns all its probabilities; null: hard, as in DeiT
    kind: str | None = None
    alpha: float | None = None  # share of the teacher's part in the loss; null: 0.5 for hard, 0.1 for soft, as in DeiT
    # temperature of the softmax over the logits of teacher and student, for distill.kind=soft alone; null: 3
    temperature: float | None = None


@dataclass
class MachineConfig:
    device: str = "auto"  # cpu, cuda or cuda:N (GPU number N); auto: the first GPU, or the CPU if there is none
    # number format of the forward and backward pass, float32 or bfloat16; auto: bfloat16 on a GPU, float32 on a CPU
    precision: str = "auto"
    compile: bool | None = None  # true: torch.compile compiles the network before training; null: true on a GPU
    # true: each step is replayed as one CUDA graph (docs/how-to/gpu.md); null: true on a GPU, if the step allows it
    graph: bool | None = None
    microbatch: int | None = None  # images of a batch that are computed at once; fewer save memory; null: all of them
    # number of CPU cores that a run uses; null: all cores, or one core if a launcher trains several runs at once
    threads: int | None = None
    # where batches are read from: memory (of the device), cache (decoded images on disk) or files (decoded each time);
    # auto: memory if the images fit into it, else cache
    images: str = "auto"
    progress: bool | None = None  # true: shows a progress bar; null: true if stderr is a terminal


@dataclass
class TrainConfig:
    # seed of the initial weights, the order of the images and their augmentation, and of every seed that is null
    seed: int = 0
    runs: str = "runs"  # folder of all runs; each run has its own folder in it
    eval_every: int | None = None  # steps between two evaluations, each with a log line and a save; null: ten per run
    # steps after which the weights are kept as well, for probes and for runs that branch off; null: only at the end
    keep: list[int] | None = None
    # programs that show the training curves, one or a list: tensorboard, trackio, wandb (docs/how-to/trackers.md);
    # null: none
    trackers: Any = None
    # initial weights: the id of a run, FILE.safetensors, torchvision:NAME, timm:NAME, or settings such as
    # 'data.fraction=1' for the run that differs from this one in them (docs/how-to/transfer.md); null: random weights
    init: str | None = None
    # continues the run that init names from this step of it; that run has optim.schedule=wsd (docs/how-to/budgets.md);
    # null: begins at step 0
    checkpoint: int | None = None
    head: str = "keep"  # last layer of the initial weights: keep uses it, new replaces it by random weights
    freeze: str = "none"  # part of the network that is not trained: none, or backbone (all but the head)
    # head: a linear layer that is trained with the network; linear, nearest: read frozen features (`vitbench features`)
    classifier: str = "head"
    model: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    objective: dict[str, Any] = field(default_factory=dict)
    # run whose network is the teacher: its id, or settings in which it differs from this run, such as 'model=resnet';
    # null: no teacher
    teacher: str | None = None
    # how the run learns from its teacher (docs/reference/objectives.md)
    distill: DistillConfig = field(default_factory=DistillConfig)
    # where and how a run is computed; these settings do not change its id
    machine: MachineConfig = field(default_factory=MachineConfig)


@dataclass
class SweepConfig(TrainConfig):
    study: str | None = None  # study whose runs are trained: its name (`vitbench ls studies`), or a yaml file
    # true: trains nothing, and prints which runs are finished, which are missing and how long these would take
    dry_run: bool = False
    retry_failed: bool = False  # true: trains failed runs again
    confirm: bool = False  # true: allows a study of more than 10,000 runs
    wait: bool = True  # false: submits the runs to SLURM and does not wait for them (docs/how-to/slurm.md)
    # true: does not train runs that have a row in results/<study>/runs.csv, even if their weights are gone
    evidence: bool = False
    results: str = "results"  # folder of the results that sweep reads if evidence=true


SWEEP_KEYS = frozenset(f.name for f in fields(SweepConfig)) - frozenset(f.name for f in fields(TrainConfig))
