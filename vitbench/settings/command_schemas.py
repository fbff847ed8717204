"""The schemas of the commands that train nothing themselves, and the menu of all schemas.

As in schema.py, the group `probe` is open here: the options of a probe are those of its function. `--help` shows the
comment beside a setting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from vitbench.settings.schema import (
    AugmentConfig,
    DataConfig,
    FolderConfig,
    OptimConfig,
    ShapesConfig,
    SweepConfig,
    TrainConfig,
)


@dataclass
class TableConfig:
    """`table` prints a table, or writes it into `file=` in the format of that file's ending."""

    runs: str = "runs"  # folder of the runs that are compared; or the runs.csv of a study's results
    study: str | None = None  # only the runs of this study, in the tables that it names; null: all runs
    name: str | None = None  # one of the study's tables; null: all of them
    # only runs whose setting has this value, or one of a list: where.model=vit, where.data.fraction=[0.1,1]
    where: dict[str, Any] = field(default_factory=dict)
    rows: Any = None  # settings whose values become rows, one or a list; null: every setting in which runs differ
    columns: str | None = None  # a setting whose values become columns; or train_images, samples_seen; null: none
    value: Any = None  # results that are shown, one or a list; null: test_accuracy, or the study's choice
    # what is shown of several seeds: ci95 (mean and 95 % interval), sd (mean and standard deviation) or mean;
    # null: ci95, or the study's choice
    show: str | None = None
    # shows differences from one row, which is typed by its name: 'vit pe=rope'; or from each row's own counterpart,
    # which has this setting: init=null; null: no differences
    against: str | None = None
    # compares networks that are equal in this accuracy, such as test_accuracy; null: that are equal in images
    matched: str | None = None
    # a network such as resnet; says how many times the images each of its biases is worth to networks that lack it
    # (docs/reference/metrics.md); null: no such table
    whole: str | None = None
    # a network such as 'vit pe=sincos2d'; says how many times the images each bias is worth that others add to it;
    # null: no such table
    bare: str | None = None
    # class: recall of each class; confusion: which class a network takes for which; run: CSV with a row for each run;
    # null: a row for each group of runs that differ in nothing but their seeds
    per: str | None = None
    format: str = "text"  # how the table is printed
    file: str | None = None  # writes the table into this file, .md, .csv, .tex, .json or .txt; null: prints it
    replace: bool = False  # true: replaces an existing file, even if vitbench did not write it


@dataclass
class PlotConfig:
    """`plot` draws one figure into a file and prints the file's path."""

    runs: str = "runs"  # folder of the runs that are drawn; or the runs.csv of a study's results
    study: str | None = None  # only the runs of this study, in a figure that it names; null: all runs
    name: str | None = None  # one of the study's figures, where it has several
    # only runs whose setting has this value, or one of a list: where.model=vit, where.data.fraction=[0.1,1]
    where: dict[str, Any] = field(default_factory=dict)
    # the horizontal axis: a result, a setting, or layer (the depth at which a probe measured); null: train_images
    x: str | None = None
    y: Any = None  # results that are drawn, one or a list side by side; null: test_accuracy, or the study's choice
    lines: Any = None  # settings whose values become lines, one or a list; null: every setting in which runs differ
    log: str | None = None  # axes with a logarithmic scale; null: x, xy with fit, or the study's choice
    fit: bool | None = None  # true: draws learning curves and where they cross; null: false, or the study's choice
    at: float | None = None  # draws only this level of what a probe swept, such as a shift in pixels; null: all levels
    layer: str | None = None  # draws only this layer, of what a probe measured in several; null: all layers
    degenerate: bool | None = None  # true: also draws what probes measured on networks at chance; null: false
    # a network such as resnet; draws how many times the images each of its biases is worth to networks that lack it
    # (docs/reference/metrics.md); null: no such figure
    whole: str | None = None
    # a network such as 'vit pe=sincos2d'; draws how many times the images each bias is worth that others add to it;
    # null: no such figure
    bare: str | None = None
    per: str | None = None  # confusion: draws which class one network takes for which; null: draws runs
    title: str | None = None  # the title; null: the study's choice, or the axes in words
    # new names of the lines: best by their old ones, labels='{resnet: CNN}', or a list in the order of the legend, such
    # as [ViT,CNN]; labels=[?] is refused and lists the names in this order; null: settings in words
    labels: Any = None
    xlabel: str | None = None  # what stands along the x axis; '': nothing; null: the name of x, with its unit
    ylabel: str | None = None  # what stands along the y axis; '': nothing; null: the name of y, with its unit
    inches: Any = None  # width and height of the figure, such as inches=[6,3]; null: what it needs
    style: str = "paper"  # paper: for a column of a paper; slides: large letters, 16:9; dark: on a dark ground
    # writes the figure into this file, .svg, .png or .pdf, or a study's figures into this folder; null: into figures/,
    # with the name of y where it was typed, or else the name that the study gives
    file: str | None = None
    replace: bool = False  # true: replaces an existing file, even if vitbench did not write it


@dataclass
class FitConfig:
    """`fit` prints learning curves and what they say about each pair of models."""

    # folder of the runs whose curves are fitted; or the runs.csv of a study's results, or a CSV table of your own
    runs: str = "runs"
    study: str | None = None  # only the runs of this study; null: all runs
    # only runs whose setting has this value, or one of a list: where.model=vit, where.data.fraction=[0.1,1]
    where: dict[str, Any] = field(default_factory=dict)
    value: str | None = None  # the error or loss whose curve is fitted; null: test_error
    x: str = "train_images"  # what the error is fitted against; multiply_adds and train_seconds are of all training
    # the form of all curves (docs/reference/metrics.md); null: the form that fits best, by its AICc
    form: str | None = None
    # an accuracy from 0 to 1, or a loss; says how many images each model needs to reach it; null: no target
    target: float | None = None
    against: str | None = None  # compares all others with the curve of this printed name; null: the usual pairs
    format: str = "text"  # how the fit is printed


@dataclass
class ReportConfig:
    """`report` writes what `results/` holds, or checks it."""

    runs: str = "runs"  # folder of the runs that a study's results are made from
    archives: Any = None  # archives of `vitbench pack`, one or a list, that are read instead of runs=; null: none
    results: str = "results"  # folder of the results; each study has a folder in it
    study: str | None = None  # reads the runs of this study; null: makes all of results/ again from each runs.csv
    file: str | None = None  # page.html: also writes a page of this study alone; results/index.html has all studies
    check: bool = False  # true: writes nothing, and says what in results/ differs from what would be written
    replace: bool = False  # true: replaces files in results/, even if vitbench did not write them


@dataclass
class BenchConfig:
    """`bench` measures how fast training is, and prints ratios."""

    rows: Any = None  # rows of the result that are measured, one or a list; null: all that this machine can measure
    models: Any = field(default_factory=lambda: ["vit", "resnet"])  # models that are timed, one or a list
    sizes: Any = field(default_factory=lambda: ["nano", "tiny"])  # sizes of these models, one or a list
    windows: int = 5  # how often each program is timed, 1 to 1,000
    seconds: float = 2.0  # about how many seconds each timing takes, above 0 and at most 3,600
    device: str = "auto"  # measures on cpu or cuda; auto: the GPU where there is one
    timm: str | None = None  # the train.py of a checkout of pytorch-image-models, for rows=timm; null: leaves it out
    format: str = "text"  # how the result is printed
    file: str | None = None  # also keeps the result in this file, .json; null: only prints it
    replace: bool = False  # true: replaces an existing file, even if vitbench did not write it


@dataclass
class InspectConfig:
    """`inspect` looks at images before a network trains on them."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: Any = None  # nobody types it: the file of a data set says how its images may be augmented
    format: str = "text"  # how the findings are printed; json lists all that is suspicious
    file: str | None = None  # draws the suspicious images into this file, .png, .svg or .pdf; null: draws none
    replace: bool = False  # true: replaces an existing file, even if vitbench did not write it


@dataclass
class AdviseMachineConfig:
    """advise trains as many runs at a time as there are cores, or GPUs."""

    device: str = "auto"  # trains on cpu, cuda or cuda:N (GPU number N); auto: all GPUs, else the processor
    progress: bool | None = None  # whether progress is shown; null: where stderr is a terminal


@dataclass
class AdviseConfig:
    """`advise` does a study that fits into the minutes, and says which network suits the photographs."""

    minutes: float = 30.0  # minutes after which no more runs are started, above 0 and at most 10,000
    # pretrained networks that are tried, too: [timm:NAME,torchvision:NAME], with @FILE for weights of your own;
    # null: a few small ones, if their weights are on this machine
    models: Any = None
    out: str | None = None  # folder for advice.html and study.yaml; null: advice/<name of the images>
    replace: bool = False  # true: replaces advice.html and study.yaml, even if vitbench did not write them
    runs: str = "runs"  # folder of all runs
    data: DataConfig = field(default_factory=DataConfig)
    augment: Any = None  # nobody types it: the file of a data set says how its images may be augmented
    machine: AdviseMachineConfig = field(default_factory=AdviseMachineConfig)  # where it is computed


# Advise chooses these settings of the images for each run. It refuses them where they are typed.
CHOSEN_BY_ADVISE = (
    "data.fraction",
    "data.count",
    "data.subset_seed",
    "data.val_fraction",
    "data.permute",
    "data.permute_share",
    "data.permute_tile",
    "data.permute_seed",
)


@dataclass
class ProbeMachineConfig:
    """Probes compute in float32."""

    device: str = "auto"  # computes on cpu, cuda or cuda:N (GPU number N); auto: the first GPU, else the processor
    threads: int | None = None  # number of cores that are used; null: all
    progress: bool | None = None  # whether progress is shown; null: where stderr is a terminal


@dataclass
class ProbeConfig:
    """`probe` measures trained and untrained networks."""

    runs: str = "runs"  # folder of the runs
    run: Any = None  # the run that is measured, by its id, or a list of ids (`vitbench ls runs`)
    study: str | None = None  # all finished runs of this study, with the probes that it names
    # only the runs (of the study, or of all) whose setting has this value, or one of a list: where.model=vit
    where: dict[str, Any] = field(default_factory=dict)
    # the weights that are measured: trained (at the end), init (before training), a step of keep=, kept (all of these
    # steps), or a list
    checkpoint: Any = "trained"
    images: int = 1000  # how many test images are used, 1 or more
    seed: int = 0  # draws these images, and whatever else a probe draws at random
    figures: bool = True  # true: puts a probe's picture beside its numbers, where it has one; false: only the numbers
    file: str | None = None  # only draws the picture of one probe, into this file, .svg, .png or .pdf; null: measures
    replace: bool = False  # true: replaces an existing file, even if vitbench did not write it
    outside: str | None = None  # library of a network from outside, torchvision or timm; null: measures a run
    arch: str | None = None  # name of the network from outside in its library, such as resnet50
    name: str | None = None  # another word for arch
    weights: str | None = None  # file of its weights: .safetensors, or a state_dict that torch.save wrote
    mean: Any = None  # mean of each channel by which its images are normalised, 0 to 1, [R,G,B]; null: ImageNet's
    std: Any = None  # standard deviation of each channel, for the same, [R,G,B]; null: ImageNet's
    probe: dict[str, Any] = field(default_factory=dict)  # what is measured: a probe, a list of probes, or all
    # where the images of a run are, if they moved; for a network from outside, data= chooses the images
    data: DataConfig = field(default_factory=DataConfig)
    augment: Any = None  # nobody types it: the file of a data set says how its images may be augmented
    machine: ProbeMachineConfig = field(default_factory=ProbeMachineConfig)  # where it is computed


@dataclass
class PredictConfig:
    """`predict` classifies images by a network."""

    runs: str = "runs"  # folder of the runs
    run: str | None = None  # id of the finished run whose network classifies (`vitbench ls runs`)
    images: str | None = None  # a folder of images, or one image
    probabilities: str = "top"  # top writes the probability of the predicted class; all writes a column for each class
    file: str | None = None  # writes the predictions into this file, .csv; null: prints them
    replace: bool = False  # true: replaces an existing file, even if vitbench did not write it
    machine: ProbeMachineConfig = field(default_factory=ProbeMachineConfig)  # where it is computed


@dataclass
class ExportConfig:
    """`export` writes a network for other programs."""

    runs: str = "runs"  # folder of the runs
    run: str | None = None  # id of the finished run whose network is written (`vitbench ls runs`)
    # safetensors (the weights) or onnx (the whole network); null: the ending of file= says it
    format: str | None = None
    file: str | None = None  # file that the network is written into; null: <run's id>.<format>
    replace: bool = False  # true: replaces an existing file, even if vitbench did not write it
    machine: ProbeMachineConfig = field(default_factory=ProbeMachineConfig)  # where it is computed


@dataclass
class FeaturesConfig:
    """`features` compares frozen networks by classifiers that learn from their features."""

    # networks that are compared: a list of ids of runs, timm:NAME and torchvision:NAME; the latter two take @FILE for
    # weights of your own
    models: Any = None
    # shares of the training images that classifiers learn from, above 0 and at most 1; a larger share has all images of
    # a smaller one
    shares: Any = field(default_factory=lambda: [0.1, 1.0])
    # how many seeds, 1 to 1,000; 3 means the seeds 0, 1 and 2; each seed draws its own shares and validation images
    seeds: int = 3
    # what classifies the features: linear (a linear classifier), nearest (the nearest neighbours), or a list
    classifiers: Any = field(default_factory=lambda: ["linear", "nearest"])
    runs: str = "runs"  # folder of all runs; each network, share, seed and classifier becomes a run
    data: DataConfig = field(default_factory=DataConfig)
    augment: Any = None  # nobody types it: the file of a data set says how its images may be augmented
    machine: ProbeMachineConfig = field(default_factory=ProbeMachineConfig)  # where it is computed


@dataclass
class CacheConfig:
    """Where decoded images are kept."""

    cache: str | None = None  # folder of decoded images; null: $VITBENCH_CACHE, else ~/.cache/vitbench


@dataclass
class ProgressConfig:
    """How the progress of long work is shown."""

    progress: bool | None = None  # whether progress is shown; null: where stderr is a terminal


@dataclass
class CheckConfig:
    """`check` compares files with their checksums, and says which are damaged."""

    runs: str = "runs"  # folder of the runs that are checked
    results: str = "results"  # folder of the results that are checked
    repair: bool = False  # true: moves what is damaged aside, so that the command that made it makes it anew
    format: str = "text"  # how the findings are printed
    data: CacheConfig = field(default_factory=CacheConfig)  # where decoded images are kept
    machine: ProgressConfig = field(default_factory=ProgressConfig)  # how progress is shown


@dataclass
class DoctorConfig:
    """`doctor` looks at the machine and at these folders."""

    runs: str = "runs"  # folder for runs that doctor looks at
    results: str = "results"  # folder for results that doctor looks at
    format: str = "text"  # how the findings are printed
    data: CacheConfig = field(default_factory=CacheConfig)  # where decoded images are kept


@dataclass
class CleanConfig:
    """`clean` lists what can be deleted, and deletes it with `remove=true`."""

    runs: str = "runs"  # folder of the runs that is cleaned; whatever its runs need stays
    results: str = "results"  # folder of the results that is cleaned
    what: Any = None  # what may be deleted, a word or a list of words; null: all of it
    days: float = 1.0  # deletes only what nobody has written to for so many days, 0 or more; 0: however new it is
    remove: bool = False  # true: deletes it; false: only lists it
    format: str = "text"  # how the list is printed
    data: CacheConfig = field(default_factory=CacheConfig)  # where decoded images are kept


@dataclass
class PackConfig:
    """`pack` writes runs into one archive."""

    runs: str = "runs"  # folder of the runs that are packed
    study: str | None = None  # packs only the runs of this study, and its file; null: all runs that have ended
    checkpoints: bool = False  # true: also packs the weights, which take most of a run's space
    file: str | None = None  # name of the archive, which ends in .tar.gz; null: <name of the study>.tar.gz
    replace: bool = False  # true: replaces an existing file, even if vitbench did not write it
    machine: ProgressConfig = field(default_factory=ProgressConfig)  # how progress is shown


@dataclass
class MergeConfig:
    """`merge` puts the runs of archives into a folder of runs."""

    archives: Any = None  # archives of `vitbench pack`, one or a list, whose runs are added
    runs: str = "runs"  # folder that the runs are added to
    # folder for runs whose results contradict those of a run with the same id; null: such runs are refused
    apart: str | None = None
    machine: ProgressConfig = field(default_factory=ProgressConfig)  # how progress is shown


@dataclass
class TrackConfig:
    """`track` sends runs to trackers."""

    runs: str = "runs"  # folder of the runs that are sent
    study: str | None = None  # only the runs of this study; null: all runs
    run: Any = None  # only this run, by its id, or a list of ids (`vitbench ls runs`); null: all runs
    # programs that the runs are sent to, one or a list: tensorboard, trackio, wandb (docs/how-to/trackers.md)
    trackers: Any = None
    machine: ProgressConfig = field(default_factory=ProgressConfig)  # how progress is shown


@dataclass
class WatchConfig:
    """`watch` shows how runs are doing, and changes nothing."""

    runs: str = "runs"  # folder of the runs that are watched
    study: str | None = None  # only the runs that this study plans; null: all in `runs`
    every: float = 2.0  # seconds after which a terminal shows the runs again, above 0
    format: str = "text"  # how the runs are printed; json is printed once


@cache
def register_schemas() -> None:
    """Makes the dataclasses known to Hydra, once in a process. The defaults lists in conf/*.yaml name them."""
    from hydra.core.config_store import ConfigStore

    for name, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"schema_{name}", node=schema)


SCHEMAS: dict[str, type] = {
    "train": TrainConfig,
    "sweep": SweepConfig,
    "watch": WatchConfig,
    "track": TrackConfig,
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
    "check": CheckConfig,
    "doctor": DoctorConfig,
    "clean": CleanConfig,
    "pack": PackConfig,
    "merge": MergeConfig,
    "data": DataConfig,
    "folder": FolderConfig,
    "shapes": ShapesConfig,
    "optim": OptimConfig,
    "augment": AugmentConfig,
}
