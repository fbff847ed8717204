"""The command as a user types it: slips get one line, and the whole of it goes on where it ended."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Output, process
from vitbench.data.shapes import load

Cli = Callable[..., Output]


def photographs(folder: Path, images: int, classes: tuple[str, ...] = ("disc", "ring")) -> Path:
    """Drawn images of 48 px in class folders."""
    drawn = load(root=folder, cache=folder.parent / "drawn", image_size=48, train_images=10 * images, test_images=10)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i, row in enumerate(np.flatnonzero(drawn.train.labels == label)[:images]):
            Image.fromarray(np.asarray(drawn.train.images[row]).transpose(1, 2, 0)).save(folder / name / f"{i}.png")
    return folder


class Page(HTMLParser):
    """What a page shows and refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.sources, self.shown = [""], [""], ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.sources += [value for key, value in attributes if key in ("src", "href") and value]
        self.open += [] if tag in ("meta", "img", "path", "use", "br") else [tag]

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "img", "path", "use", "br"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.shown += data


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["minutes=0"], 2, "minutes=0.0: must be above 0"),
        (["minutes=abc"], 2, "minutes=abc"),
        (["minutes=inf"], 2, "minutes=inf: must be above 0"),
        (["data.root=nowhere"], 3, "nowhere: no such folder"),
        (["data.root=one"], 3, "only one class"),
        (["data.root=lone"], 3, "class b has only one image"),
        (["models=[torchvision:resnet81]"], 2, "models=[torchvision:resnet81]: did you mean"),
        (["models=[torchvision:resnet18@no.pth]"], 2, "no.pth: no such file of weights"),
        (["models=3"], 2, "models=3: must be a list"),
        (["data=cifar10"], 2, "data=cifar10: advise takes a folder of photographs"),
        (["data.fraction=0.5"], 2, "data.fraction=0.5: advise itself chooses the images of each run"),
        (["out=pets/a/0.png"], 2, "out=pets/a/0.png: must be a folder, in which advise writes advice.html"),
        (["out=pets/a/0.png/out"], 4, "cannot write pets/a/0.png/out"),
        (["minuts=3"], 2, "did you mean minutes"),
    ],
)
def test_a_slip_gets_one_line(vitbench: Cli, tmp_path: Path, words: list[str], code: int, said: str) -> None:
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    for name, number in {"pets/a": 3, "pets/b": 3, "one/a": 3, "lone/a": 3, "lone/b": 1}.items():
        (tmp_path / name).mkdir(parents=True)
        for i in range(number):
            photograph.rotate(90 * i).save(tmp_path / name / f"{i}.png")
    rooted = [] if words[0].startswith("data.root") else ["data.root=pets"]
    done = vitbench("advise", *rooted, *words)
    assert done.code == code and said in done.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists() and not list(tmp_path.glob("advice/*/study.yaml"))


@pytest.mark.slow
def test_photographs_become_advice_and_the_second_time_nothing_is_trained(tmp_path: Path) -> None:
    photographs(tmp_path / "pets", 40)
    words = ["advise", "data.root=pets", "minutes=0.5", "data.image_size=32", "data.cache=cache"]
    first = process(*words, cwd=tmp_path)
    out, err = first.communicate(timeout=500)
    assert first.returncode == 0, err
    assert "Which network" in out and "vitbench train data=imagefolder" in out and "vitbench predict run=" in out
    page = Page((tmp_path / "advice/pets/advice.html").read_text())
    assert page.open == [""] and not [
        source for source in page.sources if source and not source.startswith(("data:", "#"))
    ]
    assert all(line.strip() in page.shown for line in out.splitlines() if line.startswith("  vitbench "))
    records = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/record.json")}
    assert len(records) >= 2
    again = process(*words, cwd=tmp_path)
    repeated, err = again.communicate(timeout=300)
    assert again.returncode == 0 and "advise continues the plan" in repeated and "begin now" not in repeated, err
    assert records == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/record.json")}
    assert repeated[repeated.index("Which network") :] == out[out.index("Which network") :]
