"""The menu of what `vitbench bench` can measure. It imports no torch."""

from __future__ import annotations

from vitbench.menu import Choice

_ROWS = "vitbench.timing.rows"
_WHOLE = "vitbench.timing.whole"

MENU: dict[str, Choice] = {
    "overhead": Choice(f"{_ROWS}:overhead", "data, loop and log lines an image, over the bare step"),
    "loop": Choice(f"{_ROWS}:loop", "limit, vitbench's loop, ImageFolder + DataLoader; share of the matrix peak"),
    "defaults": Choice(f"{_ROWS}:defaults", "a ResNet-18 on CPU against torchvision's with torch's default settings"),
    "epoch": Choice(f"{_ROWS}:epoch", "time an image at 1, 10 and 100 % of 50,000 images"),
    "stream": Choice(f"{_ROWS}:stream", "images that come from the cache a batch at a time against images in memory"),
    "resolution": Choice(f"{_ROWS}:resolution", "speed and cost from 32 to 384 px, both families"),
    "open": Choice(f"{_WHOLE}:opening", "opening 60,000 decoded images"),
    "start": Choice(f"{_WHOLE}:start", "process start to first step, and a further run in the same process"),
    "parallel": Choice(f"{_WHOLE}:parallel", "two runs on two cores against the same in turn on both"),
    "timm": Choice(f"{_WHOLE}:against_timm", "twelve short runs against twelve processes of timm's train.py"),
    "graph": Choice(f"{_ROWS}:graph", "on a GPU: runs whose step is one graph against runs whose step is not"),
    "peak": Choice(f"{_ROWS}:peak", "on a GPU: ResNet-18 at 32 px and ViT small at 224 px, share of the matrix peak"),
    "stacked": Choice(f"{_WHOLE}:stacked", "on a GPU: eight seeds together against in turn"),
}
