"""The menu of what `vitbench bench` can measure. It imports no torch."""

from __future__ import annotations

from vitbench.menu import Choice

_ROWS = "vitbench.timing.rows"
_WHOLE = "vitbench.timing.whole"

MENU: dict[str, Choice] = {
    "overhead": Choice(f"{_ROWS}:overhead", "time per image for data, loop and log lines, beside the bare step"),
    "loop": Choice(f"{_ROWS}:loop", "the bare step, vitbench's loop, and ImageFolder with a DataLoader"),
    "defaults": Choice(f"{_ROWS}:defaults", "a ResNet-18 on a CPU, compared with torchvision's with torch's defaults"),
    "epoch": Choice(f"{_ROWS}:epoch", "time per image for 1, 10 and 100 % of 50,000 images"),
    "stream": Choice(f"{_ROWS}:stream", "images that are read from the cache batch by batch, and images in memory"),
    "resolution": Choice(f"{_ROWS}:resolution", "speed and cost from 32 to 384 px, of ViT and ResNet"),
    "open": Choice(f"{_WHOLE}:opening", "time to open 60,000 decoded images"),
    "start": Choice(f"{_WHOLE}:start", "time from process start to first step, and of a further run in the process"),
    "parallel": Choice(f"{_WHOLE}:parallel", "two runs at once with a thread each, and in turn with two threads"),
    "timm": Choice(f"{_WHOLE}:against_timm", "a sweep of twelve short runs, and twelve processes of timm's train.py"),
    "graph": Choice(f"{_ROWS}:graph", "on a GPU: steps that are replayed as a CUDA graph, and steps that are not"),
    "peak": Choice(f"{_ROWS}:peak", "on a GPU: share of the largest matrix product, for ResNet-18 and ViT small"),
    "stacked": Choice(f"{_WHOLE}:stacked", "on a GPU: eight seeds trained together, and in turn"),
}
