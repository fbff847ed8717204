"""The schemas of the commands that train nothing themselves, and the menu of all schemas.

As in schema.py, `probe` and what a probe's menu names are open here. A setting's comment is what `--help` says of it.
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
    """`table` prints; `file=` writes instead, in the format of its ending."""

    runs: str = "runs"  # folder of the runs that are compared; or the runs.csv of a study's results
    study: str | None = None  # only the runs of this study, in the tables that it names; null: all runs
    name: str | None = None  # one of the study's tables; null: all of them
    # only runs whose setting has this value, or one of a list: where.model=vit, where.data.fraction=[0.1,1]
    where: dict[str, Any] = field(default_factory=dict)
    rows: Any = None  # settings whose values become lines, one or a list; null: every one that tells runs apart
    columns: str | None = None  # a setting whose values become columns; or train_images, samples_seen; null: none
    value: Any = None  # results that are shown, one or a list; null: test_accuracy, or the study's choice
    # what is shown of several seeds: ci95, mean and 95 % interval; sd, mean and standard deviation; mean, that alone;
    # null: ci95, or the study's choice
    show: str | None = None
    # shows how far others are from a line: its name, 'vit pe=rope', or settings of each line's own counterpart,
    # init=null; null: no differences
    against: str | None = None
    # compares lines where they are equal in this accuracy, not in images (docs/reference/metrics.md)
    matched: str | None = None
    # a network, resnet: what each bias that others lack is worth, in times the images (docs/reference/metrics.md)
    whole: str | None = None
    # a network, 'vit pe=sincos2d': what each bias that others have besides is worth, in how many times the images
    bare: str | None = None
    # class: recall of each class; confusion: which class a network takes for which; run: CSV, a line for each run;
    # null: groups of runs that differ in nothing but their seeds
    per: str | None = None
    format: str = "text"  # how the table is printed
    file: str | None = None  # writes the table into this file, .md, .csv, .tex, .json or .txt; null: prints it
    replace: bool = False  # true: replaces a file that is there, even if vitbench did not write it


@dataclass
class PlotConfig:
    """`plot` writes one figure and prints its path."""

    runs: str = "runs"  # folder of the runs that are drawn; or the runs.csv of a study's results
    study: str | None = None  # only the runs of this study, in a figure that it names; null: all runs
    name: str | None = None  # one of the study's figures, where it has several
    # only runs whose setting has this value, or one of a list: where.model=vit, where.data.fraction=[0.1,1]
    where: dict[str, Any] = field(default_factory=dict)
    x: str | None = None  # a result or a setting; layer: depth, of what a probe measured there; null: train_images
    y: Any = None  # results that are drawn, one or a list side by side; null: test_accuracy, or the study's choice
    lines: Any = None  # settings whose values become lines, one or a list; null: every one that tells runs apart
    log: str | None = None  # axes with a logarithmic scale; null: x, xy with fit, or the study's choice
    fit: bool | None = None  # true: draws learning curves, and where they cross; null: false, or the study's choice
    at: float | None = None  # of what a probe measured along something, such as a shift in px: only there; null: all
    layer: str | None = None  # of what a probe measured along layers: only this one; null: all
    degenerate: bool | None = None  # true: draws what probes measured of networks at chance, too; null: false
    # a network, resnet: draws what each bias that others lack is worth, in times the images (docs/reference/metrics.md)
    whole: str | None = None
    # a network, 'vit pe=sincos2d': draws what each bias that others have besides is worth, in how many times the images
    bare: str | None = None
    per: str | None = None  # confusion: draws which class one network takes for which; null: draws runs
    title: str | None = None  # the title; null: the study's choice, or the axes in words
    # names of the lines, in the order of the legend or by their old ones: labels=[CNN,ViT], labels='{resnet: CNN}';
    # null: settings in words
    labels: Any = None
    xlabel: str | None = None  # what stands along the x axis; null: the name of x, with its unit
    ylabel: str | None = None  # what stands along the y axis; null: the name of y, with its unit
    inches: Any = None  # width and height of the figure, such as inches=[6,3]; null: what it needs
    style: str = "paper"  # paper: for a column of a paper; slides: large letters, 16:9; dark: on a dark ground
    # writes the figure into this file, .svg, .png or .pdf, or a study's figures into this folder; null: into figures/
    file: str | None = None
    replace: bool = False  # true: replaces a file that is there, even if vitbench did not write it


@dataclass
class FitConfig:
    """`fit` prints learning curves and what they say of each pair."""

    # folder of the runs whose curves are fitted; or the runs.csv of a study's results, or a CSV table of your own
    runs: str = "runs"
    study: str | None = None  # only the runs of this study; null: all runs
    # only runs whose setting has this value, or one of a list: where.model=vit, where.data.fraction=[0.1,1]
    where: dict[str, Any] = field(default_factory=dict)
    file: str | None = None  # the older word for runs=FILE.csv; null: what runs= says
    value: str | None = None  # the error or loss whose curve is fitted; null: test_error
    x: str = "train_images"  # what error is fitted against; multiply_adds and train_seconds count all training
    # the form of all curves (docs/reference/metrics.md); null: the one that fits best, by its AICc
    form: str | None = None
    target: float | None = None  # an accuracy from 0 to 1, or a loss: says how many images each model needs; null: none
    against: str | None = None  # compares all others with this curve, by its printed name; null: the usual pairs
    format: str = "text"  # how the fit is printed


@dataclass
class ReportConfig:
    """`report` writes what `results/` holds, or checks it."""

    runs: str = "runs"  # folder of the runs that a study's results are made from
    archives: Any = None  # archives of `vitbench pack`, one or a list, that are read in place of runs=; null: none
    results: str = "results"  # folder of the results, one in it for each study
    study: str | None = None  # reads this study's runs anew; null: makes all of results/ again from its runs.csv
    file: str | None = None  # page.html: writes a page of this study alone; results/index.html has all of them
    check: bool = False  # true: writes nothing, and says what in results/ differs from what would be written
    replace: bool = False  # true: replaces files in results/, even if vitbench did not write them


@dataclass
class BenchConfig:
    """`bench` measures and prints."""

    rows: Any = None  # what is measured, one row or a list; null: all that this machine can
    models: Any = field(default_factory=lambda: ["vit", "resnet"])  # models that are timed, one or a list
    sizes: Any = field(default_factory=lambda: ["nano", "tiny"])  # their sizes, one or a list
    windows: int = 5  # how often each contestant is timed, 1 to 1,000
    seconds: float = 2.0  # about how long it is timed each time, above 0 and at most 3,600 seconds
    device: str = "auto"  # measures on cpu or cuda; auto: the GPU where there is one
    timm: str | None = None  # the train.py of a checkout of pytorch-image-models, for rows=timm; null: leaves it out
    format: str = "text"  # how the result is printed
    file: str | None = None  # keeps the result in this file, .json; null: prints it alone
    replace: bool = False  # true: replaces a file that is there, even if vitbench did not write it


@dataclass
class InspectConfig:
    """`inspect` looks at images before a network trains on them."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: Any = None  # nothing that is typed: what data sets say of it
    format: str = "text"  # how the findings are printed; json lists all that is suspicious
    file: str | None = None  # draws the suspicious images into this file, .png, .svg or .pdf; null: draws none
    replace: bool = False  # true: replaces a file that is there, even if vitbench did not write it


@dataclass
class AdviseMachineConfig:
    """Runs train on as many processes as there are cores, or GPUs."""

    device: str = "auto"  # trains on cpu, cuda or cuda:N (GPU number N); auto: all GPUs, else the processor
    progress: bool | None = None  # whether progress is shown; null: where stderr is a terminal


@dataclass
class AdviseConfig:
    """`advise` says which network suits photographs, by a study that fits into the minutes."""

    minutes: float = 30.0  # minutes after which no run is started any more, above 0 and at most 10,000
    # pretrained networks that are tried, too: [timm:NAME,torchvision:NAME], with @FILE for weights of your own;
    # null: those whose weights are on this machine
    models: Any = None
    out: str | None = None  # folder for advice.html and study.yaml; null: advice/<name of the images>
    replace: bool = False  # true: replaces these two files, even if vitbench did not write them
    runs: str = "runs"  # folder of all runs
    data: DataConfig = field(default_factory=DataConfig)
    augment: Any = None  # nothing that is typed: what data sets say of it
    machine: AdviseMachineConfig = field(default_factory=AdviseMachineConfig)  # where it is computed


# settings of the images that advise chooses itself for each run, and refuses
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
    threads: int | None = None  # cores that are used; null: all
    progress: bool | None = None  # whether progress is shown; null: where stderr is a terminal


@dataclass
class ProbeConfig:
    """`probe` measures checkpoints."""

    runs: str = "runs"  # folder of the runs
    run: Any = None  # the run that is measured, by its id, or a list of ids (`vitbench ls runs`)
    study: str | None = None  # all finished runs of this study, with the probes that it names
    # of a study or of all runs, only those whose setting has this value, or one of a list: where.model=vit
    where: dict[str, Any] = field(default_factory=dict)
    # the weights that are measured: trained (at the end), init (before training), a step of keep=, kept (all of these),
    # or a list
    checkpoint: Any = "trained"
    images: int = 1000  # how many test images are measured on, 1 or more
    seed: int = 0  # draws these images, and what a probe draws
    figures: bool = True  # true: leaves a probe's picture beside its rows, where it has one; false: rows alone
    file: str | None = None  # draws the picture of one probe into this file, .svg, .png or .pdf; null: measures
    replace: bool = False  # true: replaces a file that is there, even if vitbench did not write it
    outside: str | None = None  # the library of a network that no run trained, torchvision or timm; null: run= says it
    arch: str | None = None  # the name of that network in its library, resnet50
    name: str | None = None  # another word for arch
    weights: str | None = None  # the file of its weights, .safetensors or what torch.save made of a state_dict
    mean: Any = None  # mean of each channel of the images that it learned from, 0 to 1, [R,G,B]; null: ImageNet's
    std: Any = None  # standard deviation of each channel of these images, [R,G,B]; null: ImageNet's
    probe: dict[str, Any] = field(default_factory=dict)  # what is measured: a name, a list of them, or all
    # where a run's images are, if they moved; the images of a network from outside are chosen by data=
    data: DataConfig = field(default_factory=DataConfig)
    augment: Any = None  # nothing that is typed: what data sets say of it
    machine: ProbeMachineConfig = field(default_factory=ProbeMachineConfig)  # where it is computed


@dataclass
class PredictConfig:
    """`predict` gives images to a network."""

    runs: str = "runs"  # folder of the runs
    run: str | None = None  # the finished run whose network answers, by its id (`vitbench ls runs`)
    images: str | None = None  # a folder of images, or one image
    probabilities: str = "top"  # top writes the probability of the predicted class; all writes a column for each class
    file: str | None = None  # writes the predictions into this file, .csv; null: prints them
    replace: bool = False  # true: replaces a file that is there, even if vitbench did not write it
    machine: ProbeMachineConfig = field(default_factory=ProbeMachineConfig)  # where it is computed


@dataclass
class ExportConfig:
    """`export` writes a network for other programs."""

    runs: str = "runs"  # folder of the runs
    run: str | None = None  # the finished run whose network is written, by its id (`vitbench ls runs`)
    format: str | None = None  # safetensors, the weights; onnx, the whole network; null: the ending of file says it
    file: str | None = None  # writes the network into this file; null: the run's id, with the format as its ending
    replace: bool = False  # true: replaces a file that is there, even if vitbench did not write it
    machine: ProbeMachineConfig = field(default_factory=ProbeMachineConfig)  # where it is computed


@dataclass
class FeaturesConfig:
    """`features` compares frozen networks by what can be read off their features."""

    # networks that are compared, a list of runs' ids, timm:NAME and torchvision:NAME, each with @FILE for weights of
    # your own
    models: Any = None
    # shares of the training images that classifiers learn from, above 0 and at most 1; each lies within the larger ones
    shares: Any = field(default_factory=lambda: [0.1, 1.0])
    seeds: int = 3  # how many seeds, 1 to 1,000: 3 is 0, 1 and 2; each draws its own shares and validation images
    # what reads the features: linear, a linear classifier; nearest, the nearest neighbours; or a list
    classifiers: Any = field(default_factory=lambda: ["linear", "nearest"])
    runs: str = "runs"  # folder of all runs; each network, share, seed and classifier becomes one
    data: DataConfig = field(default_factory=DataConfig)
    augment: Any = None  # nothing that is typed: what data sets say of it
    machine: ProbeMachineConfig = field(default_factory=ProbeMachineConfig)  # where it is computed


@dataclass
class CacheConfig:
    """Where decoded images are."""

    cache: str | None = None  # folder of decoded images; null: $VITBENCH_CACHE, else ~/.cache/vitbench


@dataclass
class ProgressConfig:
    """What is seen of long work."""

    progress: bool | None = None  # whether progress is shown; null: where stderr is a terminal


@dataclass
class CheckConfig:
    """`check` hashes what was kept, and says what is not as it was written."""

    runs: str = "runs"  # folder of the runs that are checked
    results: str = "results"  # folder of the results that are checked
    repair: bool = False  # true: moves what is damaged aside, so that the same commands make it anew
    format: str = "text"  # how the findings are printed
    data: CacheConfig = field(default_factory=CacheConfig)  # where decoded images are
    machine: ProgressConfig = field(default_factory=ProgressConfig)  # what is seen of it


@dataclass
class DoctorConfig:
    """`doctor` looks at the machine and at these folders."""

    runs: str = "runs"  # folder of the runs that is looked at
    results: str = "results"  # folder of the results that is looked at
    format: str = "text"  # how the findings are printed
    data: CacheConfig = field(default_factory=CacheConfig)  # where decoded images are


@dataclass
class CleanConfig:
    """`clean` shows what can go, and removes it where that is asked for."""

    runs: str = "runs"  # folder of the runs that is cleaned; what they need stays
    results: str = "results"  # folder of the results that is cleaned
    what: Any = None  # what may go, a word or a list of them; null: all
    days: float = 1.0  # days for which nobody wrote to what may go, 0 or more; 0: all
    remove: bool = False  # true: removes it; false: shows it alone
    format: str = "text"  # how the list is printed
    data: CacheConfig = field(default_factory=CacheConfig)  # where decoded images are


@dataclass
class PackConfig:
    """`pack` writes runs into one archive."""

    runs: str = "runs"  # folder of the runs that are packed
    study: str | None = None  # only the runs of this study, and its file; null: all runs that have ended
    checkpoints: bool = False  # true: packs weights, too, which are most of a run's bytes
    file: str | None = None  # the archive, which ends in .tar.gz; null: the name of the study
    replace: bool = False  # true: replaces a file that is there, even if vitbench did not write it
    machine: ProgressConfig = field(default_factory=ProgressConfig)  # how progress is shown


@dataclass
class MergeConfig:
    """`merge` puts the runs of archives into a folder of runs."""

    archives: Any = None  # archives of `vitbench pack`, one or a list, whose runs are put in place
    runs: str = "runs"  # folder that the runs are put into
    apart: str | None = None  # folder for runs that contradict one of the same id; null: they are refused
    machine: ProgressConfig = field(default_factory=ProgressConfig)  # how progress is shown


@dataclass
class TrackConfig:
    """`track` hands runs to trackers."""

    runs: str = "runs"  # folder of the runs that are handed over
    study: str | None = None  # only the runs of this study; null: all runs
    run: Any = None  # only this run, by its id, or a list of ids (`vitbench ls runs`); null: all runs
    trackers: Any = None  # who gets them, one or a list: tensorboard, trackio, wandb (docs/how-to/trackers.md)
    machine: ProgressConfig = field(default_factory=ProgressConfig)  # how progress is shown


@dataclass
class WatchConfig:
    """`watch` shows how runs go, and changes nothing."""

    runs: str = "runs"  # folder of the runs that are watched
    study: str | None = None  # only the runs that this study plans; null: all in `runs`
    every: float = 2.0  # seconds between two looks, above 0, in a terminal
    format: str = "text"  # how it is printed; json is printed once


@cache
def register_schemas() -> None:
    """Makes the dataclasses known to Hydra, once a process; conf/*.yaml names them in their defaults lists."""
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
