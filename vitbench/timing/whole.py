"""The rows of `vitbench bench` that time whole processes, and the work around training."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitbench.machine.provenance import cores
from vitbench.timing.ours import Limit, Ours
from vitbench.timing.rows import NO_GPU, Bench
from vitbench.timing.windows import Figure, figure, ratios

VITBENCH = [sys.executable, "-c", "from vitbench.cli import main; main()"]
WAIT_SECONDS = 300.0


def opening(bench: Bench) -> Iterator[Figure]:
    """Times opening without listing the files, because the time to list 60,000 files depends on the disk."""
    import numpy as np

    from vitbench.data import cache

    images = np.random.default_rng(0).integers(0, 256, (60_000, 3, 32, 32), np.uint8)
    labels = np.arange(60_000) % 10

    def build(rows: cache.Rows) -> cache.Contents:
        rows.allocate(60_000, 3, 32)
        rows.write(0, images)
        return cache.Contents(labels[:50_000], labels[50_000:], tuple("abcdefghij"))

    def opened() -> float:
        begin = time.process_time()
        dataset = cache.cached(bench.folder / "sixty", "sixty", {}, build)
        assert len(dataset.train) == 50_000
        return time.process_time() - begin

    opened()
    taken = [opened() for _ in range(bench.windows)]
    yield figure("open", "60,000 decoded images, beside checking that the files are unchanged", "s", taken, at_most=0.1)
    archive = bench.folder / "sixty.npz"
    np.savez_compressed(archive, images=images, labels=labels)

    def loaded() -> float:
        begin = time.process_time()
        with np.load(archive) as arrays:
            assert len(arrays["images"]) == 60_000
        return time.process_time() - begin

    yield figure("open", "the same as a compressed npz", "s", [loaded() for _ in range(bench.windows)])
    archive.unlink()


def start(bench: Bench) -> Iterator[Figure]:
    words = ["model=vit", "optim.steps=1", "data=shapes", "data.train_images=1000", "data.test_images=100"]
    ours: list[tuple[float, float]] = []
    torch_alone: list[tuple[float, float]] = []
    for seed in range(bench.windows + 1):  # the first run also decodes images and is not counted
        runs = bench.folder / f"start{seed}"
        ours.append(
            _until_first_step([*VITBENCH, "train", *words, f"runs={runs}", f"machine.device={bench.device}"], runs)
        )
        torch_alone.append(_whole([sys.executable, "-c", "import torch"]))
    for place, (what, goal) in enumerate(
        (("CPU time", 3.5 if bench.device == "cpu" else None), ("seconds as they pass", None))
    ):
        yield figure(
            "start",
            f"process start to first step, cached data, {what}",
            "s",
            [one[place] for one in ours[1:]],
            at_most=goal,
        )
        yield figure("start", f"import torch alone, {what}", "s", [one[place] for one in torch_alone[1:]])
    settings = bench.settings("model=vit", "model.size=nano", *words[2:])
    again, limit = Ours(settings), Limit(settings)
    again.run(again.shortest)
    limit(2)
    again.of_shortest += [again.run(again.shortest) for _ in range(bench.windows)]
    step = [limit(1) for _ in range(bench.windows)]
    yield figure(
        "start", "a further run in the same process, beside training", "s", again.beside_training(step), at_most=0.25
    )


def _until_first_step(command: list[str], runs: Path) -> tuple[float, float]:
    """Returns CPU and wall seconds until the run's config.yaml exists, which is written right before the first step."""
    begin = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not list(runs.glob("*/config.yaml")):
            if process.poll() is not None:
                raise RuntimeError(process.communicate()[1].decode())
            time.sleep(0.005)
        taken = time.monotonic() - begin
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        process.communicate()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), taken


def _whole(command: list[str], **options: Any) -> tuple[float, float]:
    """Returns CPU and wall seconds of a process and of the processes that it started."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - begin


def parallel(bench: Bench) -> Iterator[Figure]:
    """Compares the recorded training seconds, and checks that runs have the same weights as when they train alone."""
    what = "two runs, a thread each / in turn on two threads"
    if cores() < 2:
        yield Figure("parallel", what, None, "", at_least=1.5, note="one core")
        return
    words = ["model=vit", "model.size=micro", "optim.steps=60", "eval_every=60", "machine.device=cpu"]
    words += ["data=shapes", "data.train_images=2000", "data.test_images=100", "data.val_fraction=0"]

    def runs(name: str, threads: int, seeds: tuple[int, ...], together: bool) -> dict[int, Path]:
        folder = bench.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        machine = f"machine.threads={threads}"
        commands = {
            seed: [*VITBENCH, "train", *words, machine, f"seed={seed}", f"runs={folder / str(seed)}"] for seed in seeds
        }
        started = []
        for command in commands.values():
            started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            if not together:
                started[-1].wait()
        if any(process.wait(WAIT_SECONDS) for process in started):
            raise RuntimeError(f"a run of {commands} failed")
        return {seed: next((folder / str(seed)).glob("*/record.json")).parent for seed in seeds}

    def seconds(folder: Path) -> float:
        return float(json.loads((folder / "record.json").read_text())["train_seconds"])

    alone = {seed: runs(f"alone{seed}", 1, (seed,), True)[seed] for seed in (0, 1)}
    faster, same = [], True
    for _ in range(bench.windows):
        side_by_side = runs("together", 1, (0, 1), True)
        in_turn = runs("in_turn", 2, (0, 1), False)
        faster.append(sum(map(seconds, in_turn.values())) / max(map(seconds, side_by_side.values())))
        same &= all(_weights(side_by_side[seed]) == _weights(alone[seed]) for seed in (0, 1))
    yield figure("parallel", what, "", faster, at_least=1.5, note="" if same else "weights DIFFER from the run alone")
    yield Figure(
        "parallel", "runs whose weights equal the run alone, to the last bit", 100.0 * same, "%", at_least=100.0
    )


def _weights(folder: Path) -> bytes:
    return (folder / "checkpoint.safetensors").read_bytes()


STEPS, BATCH, COUNTS = 40, 64, (640, 2560)  # steps, batch size and numbers of training images of the twelve runs
NANO = "img_size=32 patch_size=4 depth=4 embed_dim=64 num_heads=4"  # timm's arguments for our nano ViT
TIMM_MODELS = (
    f"--model vit_tiny_patch16_224 --model-kwargs {NANO} pos_embed=none --opt adamw",
    f"--model vit_tiny_patch16_224 --model-kwargs {NANO} --opt adamw",
    "--model resnet18 --opt sgd",
)
TIMM_COMMON = (
    f"--num-classes 10 --batch-size {BATCH} --workers 0 --input-size 3 32 32 --sched-on-updates --warmup-epochs 0"
)


def against_timm(bench: Bench) -> Iterator[Figure]:
    """Compares one sweep of ours with a process of timm's trainer for each run: 3 models, 2 shares, 2 seeds.

    The models (two nano ViTs, a ResNet-18 with the ImageNet stem), images, batch size and steps are the same. There are
    100 test images, on which timm's trainer tests after every epoch. On a CPU, each process has one thread.
    """
    what, goal = "12 short runs: twelve processes of timm's train.py / one sweep", 2.0
    if bench.timm is None:
        note = (
            "timm=PATH/train.py names timm's trainer, which its package does not install"
            " (github.com/huggingface/pytorch-image-models)"
        )
        yield Figure("timm", what, None, "", at_least=goal, note=note)
        return
    sweep, processes = _sweep_of_twelve(bench), _processes_of_timm(bench, bench.timm)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    cpu: dict[str, float] = {}
    wall: dict[str, float] = {}
    cpu["ours"], wall["ours"] = _whole(sweep, env=environment)
    begin = time.monotonic()
    cpu["timm"] = sum(_whole(process, env=environment)[0] for process in processes)
    wall["timm"] = time.monotonic() - begin
    unit = cpu if bench.device == "cpu" else wall
    kind = "CPU time" if bench.device == "cpu" else "seconds as they pass"
    yield Figure("timm", f"{what}, {kind}", unit["timm"] / unit["ours"], "", at_least=goal)
    for name, who in (("ours", "one sweep"), ("timm", "twelve processes")):
        yield Figure("timm", f"12 short runs of {STEPS} steps of {BATCH}: {who}, {kind}", unit[name], "s")


def _sweep_of_twelve(bench: Bench) -> list[str]:
    """Returns the command of our sweep, and writes its study into the folder of the bench."""
    study, counts = bench.folder / "twelve.yaml", ",".join(map(str, COUNTS))
    common = [f"optim.steps={STEPS}", f"eval_every={STEPS}", "augment=light", f"optim.batch_size={BATCH}"]
    study.write_text(
        f"with: {' '.join([*bench.files(), *common])}\nruns:\n"
        f"  - model=vit pe=none,learned data.count={counts} seed=0,1\n"
        f"  - model=resnet model.depth=18 model.stem=imagenet data.count={counts} seed=0,1\n"
    )
    words = [f"study={study}", f"runs={bench.folder / 'twelve'}", f"machine.device={bench.device}"]
    return [*VITBENCH, "sweep", *words, *(["machine.threads=1"] if bench.device == "cpu" else [])]


def _processes_of_timm(bench: Bench, trainer: str) -> list[list[str]]:
    """Returns the commands that train the same runs with timm's trainer, on folders of links to the same images."""
    shares = {count: _share(bench.images, bench.folder / f"share{count}", count) for count in COUNTS}
    commands = []
    for model, (count, share), seed in itertools.product(TIMM_MODELS, shares.items(), (0, 1)):
        about_run = ["--epochs", str(STEPS * BATCH // count), "--seed", str(seed), "--device", bench.device]
        places = ["--output", str(bench.folder / "timm"), "--data-dir", str(share)]
        commands.append([sys.executable, trainer, *model.split(), *TIMM_COMMON.split(), *about_run, *places])
    return commands


def _share(root: Path, folder: Path, count: int) -> Path:
    """Makes a folder of links to `count` training images, equally many of each class, and to all test images."""
    for name in sorted(path.name for path in (root / "train").iterdir()):
        (folder / "train" / name).mkdir(parents=True)
        for path in sorted((root / "train" / name).iterdir())[: count // 10]:
            (folder / "train" / name / path.name).symlink_to(path)
    (folder / "validation").symlink_to(root / "test")
    return folder


def stacked(bench: Bench) -> Iterator[Figure]:
    what = "eight seeds of a nano ViT together / in turn"
    if bench.device == "cpu":
        yield Figure("stacked", what, None, "", at_least=3.0, note=NO_GPU)
        return
    words = ["model=vit", "model.size=nano", "optim.steps=400", "data=shapes", "data.test_images=100", "eval_every=400"]
    study = bench.folder / "eight.yaml"
    study.write_text(f"with: {' '.join(words)}\nruns:\n  - seed=range(8)\n")
    taken: dict[str, list[float]] = {"basic": [], "stacked": []}
    for window in range(bench.windows):
        for launcher in taken:
            runs = bench.folder / f"{launcher}{window}"
            begin = time.monotonic()
            _whole([*VITBENCH, "sweep", f"study={study}", f"hydra/launcher={launcher}", f"runs={runs}"])
            taken[launcher].append(time.monotonic() - begin)
    yield figure("stacked", what, "", ratios(taken["basic"], taken["stacked"]), at_least=3.0)
