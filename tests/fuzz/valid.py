"""Valid files of each kind, from which examples are made, and what makes bytes of nested lists and mappings."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from PIL import Image

from tests import fake_runs
from vitbench.machine.seal import SEAL, sealed
from vitbench.runs.archive import sums_text

# ------------------------------------------------------------------------------------------------ bytes of trees


def as_json(tree: Any) -> bytes:
    return json.dumps(tree).encode(errors="surrogatepass")


def as_sealed(tree: Any) -> bytes:
    """JSON with a checksum that is right, so that what is behind the checksum is read, too."""
    return as_json(sealed(tree) if isinstance(tree, dict) and tree.pop(SEAL, 0) is not None else tree)


def as_yaml(tree: Any) -> bytes:
    return yaml.safe_dump(tree, allow_unicode=True, sort_keys=False).encode(errors="surrogatepass")


def as_csv(tree: Any) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for line in tree if isinstance(tree, list) else [tree]:
        writer.writerow(line if isinstance(line, list) else [line])
    return text.getvalue().encode(errors="surrogatepass")


def from_csv(text: str) -> list[list[str]]:
    return [*csv.reader(io.StringIO(text))]


def as_lines(tree: Any) -> bytes:
    return "\n".join(map(str, tree if isinstance(tree, list) else [tree])).encode(errors="surrogatepass")


def as_header(tree: Any) -> bytes:
    """The header of decoded images with a digest that is right."""
    from vitbench.data.cache import _sealed

    return _sealed(tree).encode(errors="surrogatepass") if isinstance(tree, dict) else as_json(tree)


def as_archive(tree: Any) -> bytes:
    """An archive of runs, of pairs of a name and the content, with checksums that are right."""
    buffer, lines = io.BytesIO(), tree if isinstance(tree, list) else [tree]
    pairs = [line if isinstance(line, list) and len(line) == 2 else [line, ""] for line in lines]
    files = {str(name): str(content).encode("latin-1", "replace") for name, content in pairs}
    files["sha256sums.txt"] = sums_text({name: hashlib.sha256(blob).hexdigest() for name, blob in files.items()})
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, blob in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))
    return gzip.compress(buffer.getvalue(), mtime=0)


def as_probe(tree: Any) -> bytes:
    """The rows of a probe with a checksum that is right."""
    from vitbench.runs.probe_rows import _digest

    if not isinstance(tree, list) or not all(isinstance(line, list) for line in tree):
        return as_csv(tree)
    digest = _digest(line[:-1] for line in tree[1:])
    return as_csv([*tree[:1], *([*line[:-1], digest] for line in tree[1:])])


def as_state(tree: Any) -> bytes:
    """A file of tensors as vitbench writes it, of their types and shapes, and of what the file says of itself."""
    import torch

    from vitbench.training.checkpoint import to_bytes

    def shape(sides: Any) -> list[int]:
        sides = sides if isinstance(sides, list) else [sides]
        return [side if type(side) is int and 0 <= side <= 64 else 1 for side in sides[:4]]

    kinds = {"F32": torch.float32, "F16": torch.float16, "I64": torch.int64, "U8": torch.uint8, "BOOL": torch.bool}
    tensors, about = (tree.get(key) for key in ("tensors", "about")) if isinstance(tree, dict) else ({}, tree)
    made = {}
    for name, says in tensors.items() if isinstance(tensors, dict) else ():
        kind, sides = says if isinstance(says, list) and len(says) == 2 else ("F32", [1])
        made[name.encode(errors="replace").decode()] = torch.ones(
            shape(sides), dtype=kinds.get(kind if isinstance(kind, str) else "", torch.float64)
        )
    return to_bytes(made, about)


# ------------------------------------------------------------------------------------------------ runs


@cache
def record(**changed: Any) -> Any:
    return fake_runs.record(0.5, **changed) | {"id": "one", "files": {}}


def array(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def probe_rows() -> list[list[str]]:
    from vitbench.runs.probe_rows import save_rows

    rows: list[dict[str, Any]] = [
        {"protocol": "shift.crop@v2", "metric": "consistency", "value": 0.5, "low": 0.4, "high": 0.6},
        {"protocol": "shift.crop@v2", "metric": "accuracy", "at": 2.0, "at_unit": "px", "value": 0.25},
        {"protocol": "cka@v1", "metric": "cka", "layer": "blocks.0", "value": float("nan"), "reason": "too few"},
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "shift.csv"
        save_rows(path, rows, images=100, seed=0, options={"crop": 4}, hardware="Xeon, 1 thread")
        return from_csv(path.read_text())


@cache
def evidence() -> str:
    from vitbench.comparing.evidence import evidence_text
    from vitbench.comparing.select import select_runs

    with TemporaryDirectory() as folder:
        fake_runs.quickstart(Path(folder))
        return evidence_text(select_runs(folder, {}, None), {"three": "failed"})


def own_table() -> list[list[Any]]:
    """A table of one's own of two curves, three sizes and three seeds."""
    lines = [
        [model, images, seed, str(0.5 * images ** (-0.2 - 0.1 * (model == "vit")) + 0.001 * seed)]
        for model in ("vit", "resnet")
        for images in (100, 1000, 10000, 100000)
        for seed in range(3)
    ]
    return [["model", "images", "seed", "error"], *lines]


def study() -> dict[str, Any]:
    return {
        "title": "Mine", "question": "Which?", "expect": "One.", "notes": "Few. Seeds.",
        "with": "data=shapes data.train_images=1000 data.x=[-0.3,0.3] optim.steps=250",
        "runs": ["model=vit pe=none,rope data.fraction=0.1,1 seed=range(2)", "model=resnet seed=0"],
        "probes": ["probe=shift images=200 where.data.fraction=1 where.seed=[0,1]"],
        "tables": {"accuracy": {"rows": ["model", "pe"], "columns": "data.fraction", "where": {"seed": 0}}},
        "figures": {"accuracy": {"x": "train_images", "y": "test_accuracy", "lines": ["model"], "log": "x"}},
        "names": {"init": {"optim.steps=500": "pretrained"}},
        "certify": {"where": {"data.fraction": [0.01, 1], "seed": 0}, "factor": 2},
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ weights


def torch_file(content: Any, **options: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


class Code:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch executed",)


def torch_files() -> list[bytes]:
    import torch

    linear = {"head.weight": torch.ones(3, 2), "head.bias": torch.zeros(3)}
    return [
        torch_file(linear),
        torch_file({"model": linear, "epoch": 3}),
        torch_file(linear, _use_new_zipfile_serialization=False),
        torch_file(
            {"head.weight": torch.ones(64, 64).half(), "n": torch.tensor(3), "m": torch.ones(5, dtype=torch.bool)}
        ),
        pickle.dumps(Code()),
        pickle.dumps({"head.weight": np.ones(3)}),
    ]


# ------------------------------------------------------------------------------------------------ images


def images(*forms: tuple[str, str, Mapping[str, Any]]) -> list[bytes]:
    """A small picture in each form: its mode, its format, and how Pillow saves it."""
    draw = np.random.default_rng(0).integers(0, 256, (24, 40, 4), np.uint8)
    draw[4:12, 4:30] = 200  # even places compress otherwise
    made = []
    for mode, kind, options in forms:
        buffer = io.BytesIO()
        wide = Image.fromarray(draw[..., 0].astype(np.uint16) * 257)
        picture = wide if mode == "I;16" else Image.fromarray(draw).convert(mode)
        picture.save(buffer, kind, **options)
        made.append(buffer.getvalue())
    return made


def in_modes(kind: str, *modes: str) -> list[bytes]:
    return images(*((mode, kind, {}) for mode in modes))


def turned() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return exif.tobytes()
