"""The rows of `vitbench bench` that time steps in this process. Each row is a function of a Bench."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from vitbench.machine.peak_memory import peak_since_reset, reset_peak
from vitbench.timing import linear
from vitbench.timing.ours import Limit, Ours, matrix_peak, settings_of
from vitbench.timing.usual import Usual
from vitbench.timing.windows import Contestant, Figure, alternate, figure, ratios, steps_for

NO_GPU = "no GPU"


@dataclass
class Bench:
    """What the rows measure, and the folder in which they may write."""

    models: list[str]
    sizes: list[str]
    windows: int
    seconds: float  # about the length of one window
    device: str  # cpu or cuda
    folder: Path
    timm: str | None = None  # the path of timm's train.py

    @property
    def threads(self) -> int | None:
        """One on a CPU, so that its CPU seconds do not depend on other work on the machine."""
        return 1 if self.device == "cpu" else None

    def settings(self, *words: str) -> dict[str, Any]:
        return settings_of(list(words), self.folder, self.device, self.threads)

    def costing_nothing(self, *words: str) -> dict[str, Any]:
        """Returns settings of a linear layer with batches of 128, crop and flip, and the ViT's recipe."""
        linear.offer()
        light = ("model=vit", "augment=light", "optim.batch_size=128", "optim.clip=null", "data.val_fraction=0")
        return self.settings(*light, *words) | {"model": {"name": linear.NAME}}

    @cached_property
    def images(self) -> Path:
        """A folder of drawn shapes as JPEG files of 32 px, 5,000 for training and 100 for testing."""
        root = self.folder / "images"
        _draw_files(root)
        return root

    def files(self) -> list[str]:
        """Returns the settings that train on `images`."""
        return ["data=imagefolder", f"data.root={self.images}", "data.name=bench", "data.val_fraction=0"]

    def usual_on_files(self, settings: dict[str, Any], workers: int = 0) -> Usual:
        """Returns the usual way to train on `images`, with the model, optimizer and batch size of these settings."""
        options = {"what": "folder", "root": str(self.images / "train"), "image_size": 32, "workers": workers}
        recipe = {key: settings["optim"][key] for key in ("optimizer", "batch_size")}
        return Usual(model=settings["model"], device=self.device, threads=self.threads or 1, **options, **recipe)


def _draw_files(root: Path) -> None:
    from PIL import Image

    from vitbench.data.shapes import load

    drawn: dict[str, Any] = {"task": "shape", "train_images": 5000, "test_images": 100, "image_seed": 0}
    dataset = load(root=root, cache=root.parent / "drawn", image_size=32, progress=False, **drawn)
    for part, split in (("train", dataset.train), ("test", dataset.test)):
        for name in split.classes:
            (root / part / name).mkdir(parents=True)
        for place, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            file = root / part / split.classes[label] / f"{place}.jpg"
            Image.fromarray(image.transpose(1, 2, 0)).save(file, quality=90)


def overhead(bench: Bench) -> Iterator[Figure]:
    settings = bench.costing_nothing(*bench.files())
    limit, ours = Limit(settings), Ours(settings)
    with closing(bench.usual_on_files(settings)) as usual:
        contestants: dict[str, Contestant] = {"limit": limit, "ours": ours, "usual": usual}
        count = steps_for(limit, bench.seconds)
        steps = {"limit": count, "ours": count, "usual": steps_for(usual, bench.seconds)}
        taken = alternate(contestants, steps, bench.windows)
    for name, what, goal in (("ours", "vitbench", 12.0), ("usual", "ImageFolder + DataLoader", None)):
        over = [1e6 * (step - bare) / 128 for step, bare in zip(taken[name], taken["limit"], strict=True)]
        yield figure("overhead", f"{what}, over the bare step, batch 128", "us an image", over, at_most=goal)
    yield figure("overhead", "the bare step itself", "us an image", [1e6 * bare / 128 for bare in taken["limit"]])


def loop(bench: Bench) -> Iterator[Figure]:
    largest = matrix_peak(torch.device(bench.device), "float32" if bench.device == "cpu" else "bfloat16")
    yield Figure("loop", "largest matrix product", largest / 1e9, "G multiply-adds a second")
    for size in bench.sizes:
        for model in bench.models:
            yield from _loop(bench, model, size, largest)


def _loop(bench: Bench, model: str, size: str, largest: float) -> Iterator[Figure]:
    settings = bench.settings(f"model={model}", f"model.size={size}", "augment=light", *bench.files())
    limit, ours, batch, on_cpu = Limit(settings), Ours(settings), settings["optim"]["batch_size"], bench.device == "cpu"
    reset_peak(bench.device)
    workers = 0 if on_cpu else 16
    with closing(bench.usual_on_files(settings, workers)) as usual:
        steps = dict.fromkeys(("limit", "ours", "usual"), steps_for(limit, bench.seconds))
        taken = alternate({"limit": limit, "ours": ours, "usual": usual}, steps, bench.windows)
    speeds = {side: [batch / step for step in steps_taken] for side, steps_taken in taken.items()}
    name = f"{model} {size}"
    yield figure("loop", f"{name}: limit", "images/s", speeds["limit"])
    yield figure("loop", f"{name}: vitbench", "images/s", speeds["ours"])
    loader = f"ImageFolder + DataLoader{f' of {workers} workers' if workers else ''}"
    yield figure("loop", f"{name}: {loader}", "images/s", speeds["usual"])
    goal = 0.97 if on_cpu and size in ("nano", "tiny") else None if on_cpu else 0.95
    yield figure("loop", f"{name}: vitbench / limit", "", ratios(speeds["ours"], speeds["limit"]), at_least=goal)
    goal = 5.0 if not on_cpu and size == "tiny" else None
    yield figure("loop", f"{name}: vitbench / {loader}", "", ratios(speeds["ours"], speeds["usual"]), at_least=goal)
    rates = [3 * limit.multiply_adds * speed for speed in speeds["ours"]]  # a backward pass costs two forward passes
    yield figure("loop", f"{name}: vitbench", "G multiply-adds a second", [rate / 1e9 for rate in rates])
    yield figure("loop", f"{name}: share of the largest matrix product", "%", [100 * rate / largest for rate in rates])
    yield figure("loop", f"{name}: a run beside training", "s", ours.beside_training(taken["limit"]))
    what = f"{name}: peak memory of the process" if on_cpu else f"{name}: peak memory"
    yield Figure("loop", what, peak_since_reset(bench.device), "MiB")


def defaults(bench: Bench) -> Iterator[Figure]:
    if bench.device != "cpu":
        yield Figure("defaults", "vitbench / defaults", None, "", at_least=1.15, note="on a CPU alone")
        return
    batch = 128
    limit = Limit(bench.settings("model=resnet", "model.size=small"), batch_size=batch)
    options = {"what": "batch", "optimizer": "sgd", "batch_size": batch, "image_size": 32, "workers": 0}
    with closing(Usual(model={"name": "torchvision"}, device="cpu", threads=1, **options)) as usual:
        steps = steps_for(limit, 2 * bench.seconds, 1)
        taken = alternate({"ours": limit, "usual": usual}, {"ours": steps, "usual": steps}, bench.windows)
    for side, name in (("ours", "vitbench"), ("usual", "torchvision, torch's defaults")):
        what = f"ResNet-18 at 32 px, steps of {batch}: {name}"
        yield figure("defaults", what, "images/s", [batch / step for step in taken[side]])
    yield figure("defaults", "vitbench / defaults", "", ratios(taken["usual"], taken["ours"]), at_least=1.15)


def epoch(bench: Bench) -> Iterator[Figure]:
    data = ("data=shapes", "data.train_images=50000", "data.test_images=100", "data.val_fraction=0")
    runs = {}
    for share in ("0.01", "0.1", "1"):
        words = ("model=vit", "model.size=nano", *data, f"data.fraction={float(share)}", "augment=light")
        runs[share] = Ours(bench.settings(*words))
    steps = steps_for(Limit(runs["1"].settings), bench.seconds)
    taken = alternate(runs, dict.fromkeys(runs, steps), bench.windows)
    for share in runs:
        per_image = [1e6 * step / 64 for step in taken[share]]
        yield figure("epoch", f"vit nano at {100 * float(share):g} % of 50,000", "us an image", per_image)
    for share in ("0.01", "0.1"):
        longer = [100 * (ratio - 1) for ratio in ratios(taken[share], taken["1"])]
        what = f"an image at {100 * float(share):g} % takes longer than one at 100 % by"
        yield figure("epoch", what, "%", longer, at_least=-5.0, at_most=5.0)


def stream(bench: Bench) -> Iterator[Figure]:
    data = ("data=shapes", "data.train_images=50000", "data.test_images=100")
    settings = {place: bench.costing_nothing(*data, f"machine.images={place}") for place in ("memory", "cache")}
    runs = {place: Ours(place_settings) for place, place_settings in settings.items()}
    # This many steps take much longer than the start of a run.
    steps = max(300, steps_for(Limit(settings["memory"]), bench.seconds))
    taken = alternate(runs, dict.fromkeys(runs, steps), bench.windows)
    for place in runs:
        what = f"a model that costs nothing, images from {place}"
        yield figure("stream", what, "images/s", [128 / step for step in taken[place]])
    yield figure("stream", "from cache / from memory", "", ratios(taken["memory"], taken["cache"]), at_least=0.85)


def resolution(bench: Bench) -> Iterator[Figure]:
    """Uses patches of 4 px at 32 and 64 px, and of 16 px above, which gives 64, 256, 64, 196 and 576 tokens."""
    for px in (32, 64, 128, 224, 384):
        batch = max(2, 64 * 32**2 // px**2) if bench.device == "cpu" else 64
        for model in bench.models:
            words = ["model=vit", f"model.patch_size={4 if px <= 64 else 16}"] if model == "vit" else [f"model={model}"]
            settings = bench.settings(*words, "model.size=nano", f"data.image_size={px}")
            limit = Limit(settings, px, batch)
            reset_peak(bench.device)
            tokens = f", {(px // settings['model']['patch_size']) ** 2} tokens" if model == "vit" else ""
            name = f"{model} nano at {px} px{tokens}"
            yield Figure("resolution", f"{name}: one forward", limit.multiply_adds / 1e6, "M multiply-adds")
            contestants: dict[str, Contestant] = {"train": limit, "infer": limit.infer}
            steps = {key: steps_for(contestant, bench.seconds, 1) for key, contestant in contestants.items()}
            taken = alternate(contestants, steps, bench.windows)
            for key, work in (("train", "training"), ("infer", "inference")):
                what = f"{name}: {work}, batch {batch}"
                yield figure("resolution", what, "images/s", [batch / step for step in taken[key]])
            if bench.device != "cpu":
                yield Figure("resolution", f"{name}: peak memory", peak_since_reset(bench.device), "MiB")


def graph(bench: Bench) -> Iterator[Figure]:
    """Times runs of the smallest size, in which launching kernels takes the largest share of the time."""
    for model in bench.models:
        for batch in (64, 512):
            name = f"{model} nano, batch {batch}"
            if bench.device == "cpu":
                yield Figure("graph", f"{name}: graph / plain", None, "", note=NO_GPU)
                continue
            words = [f"model={model}", "model.size=nano", "augment=light", f"optim.batch_size={batch}"]
            runs = {
                kind: Ours(bench.settings(*words, *bench.files(), f"machine.graph={kind == 'graph'}".lower()))
                for kind in ("graph", "plain")
            }
            taken = alternate(runs, {kind: steps_for(run, bench.seconds) for kind, run in runs.items()}, bench.windows)
            for kind, seconds in taken.items():
                yield figure("graph", f"{name}: {kind}", "images/s", [batch / step for step in seconds])
            yield figure("graph", f"{name}: graph / plain", "", ratios(taken["plain"], taken["graph"]))


def peak(bench: Bench) -> Iterator[Figure]:
    cases = {
        "ResNet-18 at 32 px": (["model=resnet", "model.size=small"], 32, 512),
        "ViT small at 224 px": (["model=vit", "model.size=base", "model.patch_size=16"], 224, 256),
    }
    for name, (words, px, batch) in cases.items():
        what = f"{name}, bfloat16: share of the largest matrix product"
        if bench.device == "cpu":
            yield Figure("peak", what, None, "%", at_least=30.0, note=NO_GPU)
            continue
        limit = Limit(bench.settings(*words), px, batch)
        largest = matrix_peak(torch.device(bench.device), "bfloat16")
        taken = alternate({"limit": limit}, {"limit": steps_for(limit, bench.seconds)}, bench.windows)["limit"]
        shares = [100 * 3 * limit.multiply_adds * batch / step / largest for step in taken]
        yield figure("peak", what, "%", shares, at_least=30.0)
