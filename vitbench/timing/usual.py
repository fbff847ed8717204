"""The usual way to train, as a contestant: torchvision's ImageFolder and transforms, a DataLoader, torch's defaults.

It runs in its own process, so that no setting of vitbench (allocator, determinism, threads) affects it. Its argument is
JSON with the options of `main`. It reads a number of steps from each line, does these steps, and answers with their
seconds by the clock of `vitbench.timing.windows`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from vitbench.timing.windows import clock


class Usual:
    """Starts the process with the options of `main` and communicates with it."""

    def __init__(self, **options: Any) -> None:
        command = [sys.executable, "-m", "vitbench.timing.usual", json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, steps: int) -> float:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def main(
    *,
    what: str,
    model: dict[str, Any],
    optimizer: str,
    batch_size: int,
    image_size: int,
    device: str,
    workers: int,
    threads: int,
    root: str = "",
) -> None:
    """Trains on the images of the folder `root` (`what` is "folder"), or on one fixed batch ("batch")."""
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = _network(model, image_size).to(device)
    if optimizer == "adamw":
        optim: torch.optim.Optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    else:
        optim = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    batches = _folder(root, batch_size, image_size, workers) if what == "folder" else _fixed(batch_size, image_size)
    if what == "batch":
        images, labels = (part.to(device) for part in next(batches))
    now = clock(device)
    for line in sys.stdin:
        _synchronise(device)
        begin = now()
        for _ in range(int(line)):
            if what == "folder":
                images, labels = (part.to(device, non_blocking=True) for part in next(batches))
            loss = F.cross_entropy(network(images), labels)
            optim.zero_grad()
            loss.backward()
            optim.step()
        _synchronise(device)
        print(now() - begin, flush=True)


def _network(model: dict[str, Any], image_size: int) -> Any:
    """Builds one of vitbench's models, or torchvision's ResNet-18 with the CIFAR stem."""
    from vitbench.models.build import build_model
    from vitbench.timing import linear

    linear.offer()
    if model["name"] != "torchvision":
        return build_model(**model, image_size=image_size, channels=3, num_classes=10)
    import torchvision
    from torch import nn

    network = torchvision.models.resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def _folder(root: str, batch_size: int, image_size: int, workers: int) -> Iterator[Any]:
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    transform = transforms.Compose(
        [
            transforms.RandomCrop(image_size, padding=image_size // 8, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    loader: Any = DataLoader(
        datasets.ImageFolder(root, transform),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=workers > 0,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


def _fixed(batch_size: int, image_size: int) -> Iterator[Any]:
    import torch

    while True:
        yield torch.randn(batch_size, 3, image_size, image_size), torch.randint(0, 10, (batch_size,))


def _synchronise(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
