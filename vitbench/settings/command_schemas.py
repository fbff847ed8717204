"""The schemas of the commands that train nothing themselves, and the menu of all schemas.

As in schema.py, `probe` and what a probe's menu names are open here.
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
    replace: bool = False  # a file that is there, even if vitbench did not write it


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
    replace: bool = False  # as in a table


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
    replace: bool = False  # files in results/, even if vitbench did not write them


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
    replace: bool = False  # as in a table


@dataclass
class InspectConfig:
    """`inspect` looks at images before a network trains on them."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: Any = None  # nothing here: what data sets say of it
    format: str = "text"  # or json, which lists all that is suspicious
    file: str | None = None  # .png, .svg or .pdf: a contact sheet of what is suspicious
    replace: bool = False  # as in a table


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
    replace: bool = False  # the two, even if vitbench did not write them
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
    replace: bool = False  # as in a table
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
    replace: bool = False  # as in a table
    machine: ProbeMachineConfig = field(default_factory=ProbeMachineConfig)


@dataclass
class ExportConfig:
    """`export` writes a network for other programs."""

    runs: str = "runs"
    run: str | None = None  # an id below `runs`
    format: str | None = None  # safetensors or onnx; null: the ending of the file
    file: str | None = None  # null: the run's id, with the format as its ending
    replace: bool = False  # as in a table
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


@dataclass
class CacheConfig:
    """Where decoded images are."""

    cache: str | None = None  # null: $VITBENCH_CACHE, else ~/.cache/vitbench


@dataclass
class ProgressConfig:
    """What is seen of long work."""

    progress: bool | None = None  # null: where stderr is a terminal


@dataclass
class CheckConfig:
    """`check` hashes what was kept, and says what is not as it was written."""

    runs: str = "runs"
    results: str = "results"
    repair: bool = False  # move what is damaged aside, so that the same commands make it anew
    format: str = "text"  # or json
    data: CacheConfig = field(default_factory=CacheConfig)
    machine: ProgressConfig = field(default_factory=ProgressConfig)


@dataclass
class DoctorConfig:
    """`doctor` looks at the machine and at these folders."""

    runs: str = "runs"
    results: str = "results"
    format: str = "text"  # or json
    data: CacheConfig = field(default_factory=CacheConfig)


@dataclass
class CleanConfig:
    """`clean` shows what can go, and removes it where that is asked for."""

    runs: str = "runs"
    results: str = "results"
    what: Any = None  # caches, surveys, features, failed, temporary or damaged, or a list of them; null: all
    days: float = 1.0  # only what nobody wrote to for so long; 0: all
    remove: bool = False
    format: str = "text"  # or json
    data: CacheConfig = field(default_factory=CacheConfig)


@dataclass
class WatchConfig:
    """`watch` shows how runs go, and changes nothing."""

    runs: str = "runs"
    study: str | None = None  # the runs that it plans; null: all in `runs`
    every: float = 2.0  # seconds between two looks, in a terminal
    format: str = "text"  # or json, once


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
    "data": DataConfig,
    "folder": FolderConfig,
    "shapes": ShapesConfig,
    "optim": OptimConfig,
    "augment": AugmentConfig,
}
