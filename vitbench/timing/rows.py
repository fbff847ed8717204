"""Rows of `vitbench bench` that time steps in this process, each a function of a Bench."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    """What rows are asked for, and where they may write."""

    models: list[str]
    sizes: list[str]
    windows: int
    seconds: float  # of one window
    device: str  # cpu or cuda
    folder: Path
    say: Callable[[str], None]
    timm: str | None = None  # timm's train.py

    @property
    def threads(self) -> int | None:
        """One on the CPU: its seconds are then those of the work, also on a machine that is shared."""
        return 1 if self.device == "cpu" else None

    def settings(self, *words: str) -> dict[str, Any]:
        return settings_of(list(words), self.folder, self.device, self.threads)

    def costing_nothing(self, *words: str) -> dict[str, Any]:
        """The same for a linear layer in batches of 128, with crop and flip and the ViT's recipe."""
        linear.offer()
        light = ("model=vit", "augment=light", "optim.batch_size=128", "optim.clip=null", "data.val_fraction=0")
        return self.settings(*light, *words) | {"model": {"name": linear.NAME}}

    @cached_property
    def images(self) -> Path:
        """A folder of JPEG files of 32 px, 5,000 for training and 100 for testing: drawn shapes."""
        root = self.folder / "images"
        _draw_files(root)
        return root

    def files(self) -> list[str]:
        return ["data=imagefolder", f"data.root={self.images}", "data.name=bench", "data.val_fraction=0"]


def _draw_files(root: Path) -> None:
    from PIL import Image

    from vitbench.data.shapes import load

    dataset = load(
        root=root,
        cache=root.parent / "drawn",
        image_size=32,
        progress=False,
        task="shape",
        train_images=5000,
        test_images=100,
        image_seed=0,
    )
    for part, split in (("train", dataset.train), ("test", dataset.test)):
        for name in split.classes:
            (root / part / name).mkdir(parents=True)
        for place, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            Image.fromarray(image.transpose(1, 2, 0)).save(
                root / part / split.classes[label] / f"{place}.jpg", quality=90
            )


def overhead(bench: Bench) -> Iterator[Figure]:
    settings = bench.costing_nothing(*bench.files())
    limit, ours = Limit(settings), Ours(settings)
    usual = Usual(
        what="folder",
        root=str(bench.images / "train"),
        model=settings["model"],
        optimizer="adamw",
        batch_size=128,
        image_size=32,
        device=bench.device,
        workers=0,
        threads=bench.threads or 1,
    )
    with closing(usual):
        contestants: dict[str, Contestant] = {"limit": limit, "ours": ours, "usual": usual}
        steps = dict.fromkeys(("limit", "ours"), steps_for(limit, bench.seconds)) | {
            "usual": steps_for(usual, bench.seconds)
        }
        taken = alternate(contestants, steps, bench.windows)
    for name, what, goal in (("ours", "vitbench", 12.0), ("usual", "ImageFolder + DataLoader", None)):
        over = [1e6 * (a - b) / 128 for a, b in zip(taken[name], taken["limit"], strict=True)]
        yield figure("overhead", f"{what}, over the bare step, batch 128", "us an image", over, at_most=goal)
    yield figure("overhead", "the bare step itself", "us an image", [1e6 * a / 128 for a in taken["limit"]])


def loop(bench: Bench) -> Iterator[Figure]:
    most = matrix_peak(torch.device(bench.device), "float32" if bench.device == "cpu" else "bfloat16")
    yield Figure("loop", "largest matrix product", most / 1e9, "G multiply-adds a second")
    for size in bench.sizes:
        for model in bench.models:
            yield from _loop(bench, model, size, most)


def _loop(bench: Bench, model: str, size: str, most: float) -> Iterator[Figure]:
    settings = bench.settings(f"model={model}", f"model.size={size}", "augment=light", *bench.files())
    limit, ours, batch = Limit(settings), Ours(settings), settings["optim"]["batch_size"]
    reset_peak(bench.device)
    workers = 0 if bench.device == "cpu" else 16
    usual = Usual(
        what="folder",
        root=str(bench.images / "train"),
        model=settings["model"],
        workers=workers,
        optimizer=settings["optim"]["optimizer"],
        batch_size=batch,
        image_size=32,
        device=bench.device,
        threads=bench.threads or 1,
    )
    name = f"{model} {size}"
    with closing(usual):
        steps = dict.fromkeys(("limit", "ours", "usual"), steps_for(limit, bench.seconds))
        taken = alternate({"limit": limit, "ours": ours, "usual": usual}, steps, bench.windows)
    speeds = {key: [batch / a for a in values] for key, values in taken.items()}
    yield figure("loop", f"{name}: limit", "images/s", speeds["limit"])
    yield figure("loop", f"{name}: vitbench", "images/s", speeds["ours"])
    others = f"ImageFolder + DataLoader{f' of {workers} workers' if workers else ''}"
    yield figure("loop", f"{name}: {others}", "images/s", speeds["usual"])
    goal = 0.97 if bench.device == "cpu" and size in ("nano", "tiny") else 0.95 if bench.device != "cpu" else None
    yield figure("loop", f"{name}: vitbench / limit", "", ratios(speeds["ours"], speeds["limit"]), at_least=goal)
    many = 5.0 if bench.device != "cpu" and size == "tiny" else None
    yield figure("loop", f"{name}: vitbench / {others}", "", ratios(speeds["ours"], speeds["usual"]), at_least=many)
    work = [3 * limit.multiply_adds * speed for speed in speeds["ours"]]  # forward once, backward twice
    yield figure("loop", f"{name}: vitbench", "G multiply-adds a second", [one / 1e9 for one in work])
    yield figure("loop", f"{name}: share of the largest matrix product", "%", [100 * one / most for one in work])
    yield figure("loop", f"{name}: a run beside training", "s", ours.beside_training(taken["limit"]))
    yield Figure(
        "loop",
        f"{name}: peak memory of the process" if bench.device == "cpu" else f"{name}: peak memory",
        peak_since_reset(bench.device),
        "MiB",
    )


def defaults(bench: Bench) -> Iterator[Figure]:
    if bench.device != "cpu":
        yield Figure("defaults", "vitbench / defaults", None, "", at_least=1.15, note="on a CPU alone")
        return
    settings, batch = bench.settings("model=resnet", "model.size=small"), 128
    limit = Limit(settings, batch_size=batch)
    usual = Usual(
        what="batch",
        model={"name": "torchvision"},
        optimizer="sgd",
        batch_size=batch,
        image_size=32,
        device="cpu",
        workers=0,
        threads=1,
    )
    with closing(usual):
        steps = steps_for(limit, 2 * bench.seconds, 1)
        taken = alternate({"ours": limit, "usual": usual}, dict.fromkeys(("ours", "usual"), steps), bench.windows)
    for key, what in (("ours", "vitbench"), ("usual", "torchvision, torch's defaults")):
        yield figure(
            "defaults", f"ResNet-18 at 32 px, steps of {batch}: {what}", "images/s", [batch / a for a in taken[key]]
        )
    yield figure("defaults", "vitbench / defaults", "", ratios(taken["usual"], taken["ours"]), at_least=1.15)


def epoch(bench: Bench) -> Iterator[Figure]:
    shares = (0.01, 0.1, 1.0)
    runs = {
        f"{share:g}": Ours(
            bench.settings(
                "model=vit",
                "model.size=nano",
                "data=shapes",
                "data.train_images=50000",
                "data.test_images=100",
                "data.val_fraction=0",
                f"data.fraction={share}",
                "augment=light",
            )
        )
        for share in shares
    }
    steps = steps_for(Limit(runs["1"].settings), bench.seconds)
    taken = alternate(runs, dict.fromkeys(runs, steps), bench.windows)
    for share in runs:
        values = [1e6 * a / 64 for a in taken[share]]
        yield figure("epoch", f"vit nano at {100 * float(share):g} % of 50,000", "us an image", values)
    for share in ("0.01", "0.1"):
        off = [100 * (a - 1) for a in ratios(taken[share], taken["1"])]
        what = f"an image at {100 * float(share):g} % takes longer than one at 100 % by"
        yield figure("epoch", what, "%", off, at_least=-5.0, at_most=5.0)


def stream(bench: Bench) -> Iterator[Figure]:
    words = ("data=shapes", "data.train_images=50000", "data.test_images=100")
    settings = {place: bench.costing_nothing(*words, f"machine.images={place}") for place in ("memory", "cache")}
    runs = {place: Ours(its) for place, its in settings.items()}
    steps = dict.fromkeys(
        runs, max(300, steps_for(Limit(settings["memory"]), bench.seconds))
    )  # well above a run's start
    taken = alternate(runs, steps, bench.windows)
    for place in runs:
        yield figure(
            "stream", f"a model that costs nothing, images from {place}", "images/s", [128 / a for a in taken[place]]
        )
    yield figure("stream", "from cache / from memory", "", ratios(taken["memory"], taken["cache"]), at_least=0.85)


def resolution(bench: Bench) -> Iterator[Figure]:
    """Patches of 4 px at 32 and 64 px and of 16 px above: 64, 256, 64, 196 and 576 tokens."""
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
            steps = {key: steps_for(one, bench.seconds, 1) for key, one in contestants.items()}
            taken = alternate(contestants, steps, bench.windows)
            for key, what in (("train", "training"), ("infer", "inference")):
                yield figure(
                    "resolution", f"{name}: {what}, batch {batch}", "images/s", [batch / a for a in taken[key]]
                )
            if bench.device != "cpu":
                yield Figure("resolution", f"{name}: peak memory", peak_since_reset(bench.device), "MiB")


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
        most = matrix_peak(torch.device(bench.device), "bfloat16")
        taken = alternate({"limit": limit}, {"limit": steps_for(limit, bench.seconds)}, bench.windows)["limit"]
        shares = [100 * 3 * limit.multiply_adds * batch / a / most for a in taken]
        yield figure("peak", what, "%", shares, at_least=30.0)
