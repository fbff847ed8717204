"""What reads files that anyone can have made, as those who call it do, and what each example needs.

What needs torch is imported when it is read.
"""

from __future__ import annotations

import gzip
import os
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL.PngImagePlugin import PngInfo

from tests.fuzz import valid
from tests.fuzz.watched import Reader
from vitbench.comparing import formats
from vitbench.comparing.evidence import choose_runs, evidence_text, read_counts, read_evidence
from vitbench.comparing.select import select_runs
from vitbench.comparing.table import build_table
from vitbench.data.cache import Contents, Rows, cached, damaged
from vitbench.data.decode import decode_and_notice
from vitbench.data.imagefolder import load, look_at
from vitbench.data.scan import forget_scans
from vitbench.data.survey import look_at as survey_of_one
from vitbench.data.tolerant import list_images
from vitbench.errors import UserError
from vitbench.fitting.fit_file import read_table
from vitbench.ls import runs as ls_runs
from vitbench.machine import outputs
from vitbench.runs import follow, track
from vitbench.runs.merge import merge, unpacked
from vitbench.runs.plan import number_of_runs, plan, read_notes
from vitbench.runs.predictions import read_classes
from vitbench.runs.probe_rows import is_done, read_probes
from vitbench.runs.records import run_folders
from vitbench.runs.run import Run, metadata_of
from vitbench.runs.study import load_study, words_of_line
from vitbench.settings.compose import as_settings, compose
from vitbench.settings.overrides import explain, prepare
from vitbench.sweeping import slurm
from vitbench.sweeping.watch_lines import DETAILS, lines_of
from vitbench.sweeping.watched import Watcher
from vitbench.timing.bench import page, read_bench
from vitbench.upkeep import check, clean, folder_findings
from vitbench.upkeep.needed import Needs

Files = dict[str, bytes]
OPTIONS: dict[str, Any] = {"image_size": 32, "channels": 3, "num_classes": 10}


# ------------------------------------------------------------------------------------------------ runs


def listed(path: Path) -> None:
    """All that reads a folder of runs."""
    runs = path.parents[1]
    ls_runs(runs)
    lines_of(Watcher(runs, None, None).look(), 100, DETAILS[0])
    Needs.of(runs)
    [*folder_findings.of_locks(runs, runs)]
    places = clean.Places(runs, runs.parent / "results", runs.parent / "cache")
    [*clean.failed(places)]
    check.look(runs, places.results, places.cache, show=False)


def tabled(path: Path) -> None:
    """A record becomes a line of tables in every format, and of runs.csv, which is read again."""
    listed(path)
    runs = select_runs(str(path.parents[1]), {}, None)
    table = build_table("", runs, value=["test_accuracy", "train_seconds"])
    for form in formats.TABLE_ENDINGS.values():
        formats.render_tables(form, [table], "", runs.notes)
    text = evidence_text(runs, {})
    other = path.parents[2] / "runs.csv"
    other.write_text(text, encoding="utf-8")
    assert len(read_evidence(other).rows) == len(runs.rows)


def of_run(path: Path) -> None:
    run = Run(path.parent, {})
    with suppress(UserError):
        follow.told_settings(track.read(path.parent)[0])
    run.failure(), run.holder(), run.held(), run.saved_step(), run.kept(), run.states(), run.rewind(3)
    listed(path)


def beside_record(**files: bytes) -> Files:
    record = valid.as_json({**valid.record(), "test_images": 100})
    return {"runs/one/record.json": record, **files}


def classes(path: Path) -> None:
    read_classes(path.parents[1], {"id": "one", "test_images": 100}, path.name)


def notes(path: Path) -> None:
    read_notes(path)
    Needs.of(path.parents[1])
    check.look(path.parents[1], path.parent, path.parent, show=False)


def records() -> list[Any]:
    return [valid.record(), valid.record(**{"model.name": "resnet"})]


def records_of_old() -> list[Any]:
    """Those without a checksum."""
    return [{key: value for key, value in record.items() if key != "files"} for record in records()]


def merged(path: Path) -> None:
    """The runs of an archive join a folder of runs, and are read there."""
    runs = path.parent / "merged"
    with unpacked([path], runs, show=False) as received:
        merge(received, runs)
    for folder in run_folders(runs):
        listed(folder / "record.json")


def merged_tar(path: Path) -> None:
    """The same, in which gzip tells of no change."""
    packed = path.with_suffix(".tar.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    merged(packed)


def tars() -> list[bytes]:
    return [gzip.decompress(valid.as_archive(tree)) for tree in packed_files()]


def packed_files() -> list[Any]:
    """The files of an archive, as pairs of a name and the content."""
    record = valid.as_json({**valid.record(), "test_images": 10})
    files = {
        "mine.yaml": valid.as_yaml(valid.study()),
        "runs/.plans/mine-0123abcd.json": valid.as_sealed({"ids": ["one"], "typed": ["seed=0"]}),
        "runs/one/config.yaml": valid.as_yaml(valid.record()["config"]),
        "runs/one/metrics.csv": b"step,train_loss\n3,1.5\n",
        "runs/one/predictions.npy": valid.array(np.arange(10)),
        "runs/one/probabilities.npy": valid.array(np.ones((10, 10))),
        "runs/one/probes/shift.csv": valid.as_probe(valid.probe_rows()),
        "runs/one/record.json": record,
    }
    return [[[name, content.decode("latin-1")] for name, content in files.items()]]


# ------------------------------------------------------------------------------------------------ studies and words


def study(path: Path) -> None:
    read = load_study(str(path))
    for line in (*read.runs, read.common):
        words_of_line(read, line)
    read.probe_words(["probe", "images", "where", "seed"])
    number_of_runs(read)


def planned(path: Path) -> None:
    read = load_study(str(path))
    if number_of_runs(read) <= 9:
        plan(read)


def words_in(path: Path) -> list[str]:
    return path.read_bytes().decode(errors="surrogateescape").split("\n")


def words(path: Path) -> None:
    for several in (False, True):
        prepare(words_in(path), several)


def settings(path: Path) -> None:
    import timm.models  # which some words import, and that executes much  # noqa: F401
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from vitbench.settings.check import check as check_settings
    from vitbench.settings.identity import run_id

    typed = prepare([word for word in words_in(path) if not word.startswith("-")])
    try:
        config = compose([word for word in typed if not word.startswith(("hydra", "+", "~"))])
        run_id(check_settings(as_settings(config)))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, "train", typed) from None


WORDS = [
    ["model=vit", "pe=rope", "data.fraction=0.1", "seed=1", "optim.lr=1e-3"],
    ["data=imagefolder", "data.root=~/my pets (2)", "data.labels=a,b.csv", "model.size=tiny", "runs=runs"],
    ["model=resnet", "data=cifar10", "data.classes=[1,2]", "augment=strong", "optim.epochs=3", "keep=[1,2]"],
    ["-m", "seed=range(3)", "data.fraction=0.1,1", "where.seed=[0,1]", "init='data.fraction=1'", "machine.threads=1"],
    ["model=timm", "model.arch=vit_tiny_patch16_224", "init=pretrained", "head=new", "data.x=[-1,1]"],
]


# ------------------------------------------------------------------------------------------------ weights


@cache
def network() -> Any:
    from vitbench.models.build import build_model

    return build_model("resnet", base_width=2, **OPTIONS)


def weights(path: Path) -> None:
    from vitbench.models.weights import read_state_dict

    read_state_dict(path, f"init={path.name}")


def begun(path: Path) -> None:
    from vitbench.runs.origin import Origin, _normalised_by
    from vitbench.training.transfer import begin

    _normalised_by(path)
    metadata_of(path)
    begin(network(), Origin("file", "file", "file", path), head="old", classes=[str(k) for k in range(10)])


def network_files() -> list[Any]:
    tensors = {name: [_kind(value), [*value.shape]] for name, value in network().state_dict().items()}
    about = {"classes": [str(k) for k in range(10)], "mean": [0.5] * 3, "std": [0.2] * 3}
    return [{"tensors": tensors, "about": about}]


def _kind(tensor: Any) -> str:
    return "I64" if not tensor.is_floating_point() else "F32"


def of_training() -> dict[str, Any]:
    import torch

    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    parts = {"model": model, "objective": torch.nn.Identity(), "optimizer": optimizer, "averaged": None}
    return parts | {"losses": torch.zeros(5)}


def states() -> list[Any]:
    of_training()  # it imports what takes long, and here once
    return [STATE]


def restored(path: Path) -> None:
    from vitbench.training.checkpoint import restore, weights_of

    Run(path.parent, {}).saved_step()
    with ExitStack() as both:
        both.callback(weights_of, "one", path)
        restore(path, "one", **of_training())


STATE: dict[str, Any] = {
    "tensors": {
        "model.weight": ["F32", [3, 2]],
        "model.bias": ["F32", [3]],
        "optimizer.0.exp_avg": ["F32", [3, 2]],
        "optimizer.0.step": ["F32", []],
        "losses": ["F32", [3]],
        "metrics": ["U8", [20]],
    },
    "about": {"run": "one", "step": 3, "train_seconds": 1.5, "every": 2, "data": "abc", "commit": None},
}


# ------------------------------------------------------------------------------------------------ images


def picture(path: Path) -> None:
    survey_of_one(str(path))
    decode_and_notice(path, 32)


def image_reader(ending: str) -> Reader:
    return Reader(picture, f"image{ending}", allowed=(ValueError,), megabytes=1500, seconds=20)


TIFFS: list[tuple[str, str, dict[str, Any]]] = [
    (mode, "TIFF", {"compression": how})
    for mode in ("RGB", "L", "1", "P", "CMYK", "I;16", "RGBA")
    for how in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
]
TIFFS += [("RGB", "TIFF", {"compression": "jpeg"})]


def pngs() -> list[bytes]:
    info = PngInfo()
    info.add_text("Comment", "a" * 50, zip=True)
    return valid.images(
        ("RGB", "PNG", {"pnginfo": info, "exif": valid.turned()}),
        ("P", "PNG", {"transparency": 3}),
        ("LA", "PNG", {"icc_profile": b"x" * 200}),
        ("L", "PNG", {"bits": 4}),
    ) + valid.in_modes("PNG", "I;16", "RGBA", "1")


def jpegs() -> list[bytes]:
    return valid.images(
        ("RGB", "JPEG", {"exif": valid.turned()}),
        ("RGB", "JPEG", {"progressive": True}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {"icc_profile": b"x" * 200}),
        ("RGB", "MPO", {"subsampling": 2}),
    )


@cache
def pictures(below: str = "") -> Files:
    (blob,) = valid.images(("L", "PNG", {}))
    return {f"{below}root/{kind}/{k}.png": blob for kind in "ab" for k in range(2)}


def table_of_labels(path: Path) -> None:
    forget_scans()
    look_at(path.parent, labels=path.name)


LABELS = [["file", "label", "split"], ["a/0.png", "cat", "train"], ["a/1.png", "dog", "train"]]
LABELS += [["b/0.png", "cat", "test"], ["b/1", "dog", "test"]]


def folder(path: Path) -> None:
    """Folders and files of the names that the example has a line each for, as whoever lays them can call them."""
    root, blob = path.parent / "root", valid.images(("L", "PNG", {}))[0]
    root.mkdir()
    for line in path.read_bytes().split(b"\n")[:40]:
        parts = [part[:200] for part in line.replace(b"\0", b"").split(b"/")[:6] if part not in (b"", b".", b"..")]
        place = os.path.join(os.fsencode(root), *parts)
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            if line.endswith(b"/"):
                os.mkdir(place)
            elif b"->" in line:
                os.symlink(line.partition(b"->")[2].replace(b"\0", b"") or b"x", place)
            else:
                Path(os.fsdecode(place)).write_bytes(blob)
        except OSError:
            continue
    forget_scans()
    with ExitStack() as both:
        both.callback(list_images, root)
        look_at(root)
        load(root=root, cache=path.parent / "cache", image_size=8, workers=1, skip_broken=True)


LAYOUTS = [
    ["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png", "@eaDir/x.png", "Thumbs.db"],
    ["no/1.png", "no/2.png", "1.10/1.jpg", "1.10/2.png", "null/1.png", "null/2.png", ".hidden/x.png"],
    ["a/1.png", "a/2.png", "A/1.png", "A/2.png", "a /1.png", "empty/", "a/loop->..", "a/out.png->/etc/passwd"],
    ["é/1.png", "é/1.png", "<script>alert(1)<>/1.png", "x=1,2(3)/1.png", "${oc.env:HOME}/1.png", "a\r/1.png"],
]


# ------------------------------------------------------------------------------------------------ the cache


def build(rows: Rows) -> Contents:
    rows.allocate(6, 3, 8)
    rows.write(0, np.arange(6 * 192, dtype=np.uint32).astype(np.uint8).reshape(6, 3, 8, 8))
    return Contents(np.array([0, 1, 0, 1]), np.array([0, 1]), ("a", "b"))


def opened(path: Path) -> None:
    damaged(path.with_suffix(".json"))
    [*clean.caches(clean.Places(path.parent / "runs", path.parent / "results", path.parent))]
    data = cached(path.parent, "set", ["x"], build)
    for split in (data.train, data.test):
        assert np.asarray(split.images).shape[1:] == (3, 8, 8) and len(split.labels)


@cache
def decoded() -> Files:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as place:
        cached(Path(place), "set", ["x"], build)
        return {path.name: path.read_bytes() for path in Path(place).glob("set*") if path.suffix != ".lock"}


def decoded_name(ending: str) -> str:
    return next(name for name in decoded() if name.endswith(ending))


def header() -> Any:
    import json

    content = json.loads(decoded()[decoded_name(".json")])
    del content["digest"]
    return content


def remembered(path: Path) -> None:
    """What was found of images, kept under the name of the example's file."""
    from vitbench.data import holdout, survey

    root = path.parent / "root"
    paths = [str(root / kind / f"{k}.png") for kind in "ab" for k in range(2)]
    stamps = [(name, 1, 1) for name in paths]
    at_path = mock.Mock(return_value=path)
    with mock.patch.object(survey, "place_of", at_path), mock.patch.object(holdout, "place_of", at_path):
        survey.survey(paths, stamps, path.parent, workers=1)
        os.replace(path, path.with_suffix(f".alike{holdout.ALIKE}.npz"))
        files = [holdout.File(name[-7:-6], name, stamp) for name, stamp in zip(paths, stamps, strict=True)]
        holdout.hold_out(files, "root", fraction=0.5, seed=0, cache=path.parent, workers=1)


def surveys() -> list[bytes]:
    import io
    import json
    from dataclasses import asdict

    from vitbench.data.survey import Facts

    facts = json.dumps([asdict(Facts("0" * 32, 40, 24, "L", "PNG"))] * 4)
    made = []
    for content in (
        {"facts": facts, "thumbnails": np.zeros((4, 3, 32, 32), np.uint8)},
        {"groups": np.array([[0, 1, 2, 3]] * 2)},
        {"groups": np.array([[0, 10**9, -7, 3]] * 2)},
        {"facts": "[1,2,3,4]", "thumbnails": np.zeros((4, 3, 32, 32))},
        {"facts": facts.replace("40", "null"), "thumbnails": np.zeros((4, 3, 32, 32), "U1")},
    ):
        buffer = io.BytesIO()
        np.savez(buffer, **content)
        made.append(buffer.getvalue())
    return made


def costs(path: Path) -> None:
    """What networks cost, remembered under the names of two memories."""
    from vitbench.models import alike, build

    def count(*given: Any) -> None:
        given[-1].setdefault("a", (1, 1))

    with mock.patch.object(build, "_cost", lambda _: (1, 1)), mock.patch.object(alike, "_count", count):
        for _ in range(2):
            build.cost("vit", memory=path.parent, **OPTIONS)
            alike.find("torchvision", "vit.nano", ["a", "b"], 32, 1, path.parent)
            for place in (path.parent / "costs").glob("*.json"):
                place.write_bytes(path.read_bytes())
    check.look(path.parent, path.parent, path.parent, show=False)


def own_outputs(path: Path) -> None:
    with mock.patch.dict(os.environ, VITBENCH_CACHE=str(path.parent)):
        outputs.known_outputs()
        outputs.write_output(path.parent / "table.md", b"x")


def queue(path: Path) -> None:
    with mock.patch.object(slurm, "_live_jobs", lambda: {"1", "2"}):
        slurm.queued(path.parents[1])


def public_set(source: str, path: Path) -> None:
    from vitbench.data.torchvision_sets import load as load_set

    load_set(source, root=Path("set"), cache=Path("cache"), image_size=8)


def mnists() -> list[bytes]:
    import torchvision.datasets  # noqa: F401  # it takes long, and is imported here once

    return [idx(4, 28), idx(1, 2)]


def idx(*values: int) -> bytes:
    shape = [len(values)] if values[1:] != (28,) else [values[0], 28, 28]
    content = np.arange(values[0] * 784).astype(np.uint8).tobytes() if len(shape) == 3 else bytes(values)
    sides = b"".join(side.to_bytes(4, "big") for side in shape)
    return bytes([0, 0, 8, len(shape)]) + sides + content


def mnist() -> Files:
    parts = {"train-images-idx3": idx(4, 28), "train-labels-idx1": idx(0, 1, 2, 1)}
    parts |= {"t10k-images-idx3": idx(3, 28), "t10k-labels-idx1": idx(0, 1, 2)}
    return {f"set/MNIST/raw/{name}-ubyte": blob for name, blob in parts.items()}


def imagenet() -> Files:
    picture = valid.images(("RGB", "JPEG", {}))[0]
    return {f"set/{split}/{wnid}/1.JPEG": picture for split in ("train", "val") for wnid in ("n01", "n02")}


def meta() -> list[bytes]:
    words = {"n01": ("fish", "fishes"), "n02": ("bird",)}
    contents = [(words, ["n01"]), words, [1, 2]]
    return [*map(valid.torch_file, contents), *valid.torch_files()[4:]]


FIGURE = {"row": "step", "what": "ours", "note": "vit", "unit": "images/s", "value": 812.5, "low": 800.0, "high": 820.0}
FIGURE |= {"at_least": 1.0, "at_most": None, "met": True}
FIGURE |= {"created": "2026-01-01T00:00:00Z", "commit": "abc", "torch": "2.15"}
BENCH = {"schema": 1, "hardware": {"device": "cpu", "name": "Xeon"}, "figures": [FIGURE]}


def bench(path: Path) -> None:
    page(read_bench(path))


def config_files() -> list[Any]:
    return [
        {"defaults": ["vit", {"override /optim": "vit"}, "_self_"], "depth": 6, "dim": 96},
        {"lr": 0.001, "steps": "${data.count}", "betas": [0.9, 0.95]},
        {"name": "mine", "patch_size": 4, "nested": {"a": [1, 2]}},
    ]


def table(path: Path) -> None:
    read_table(path)


def table_of_evidence(path: Path) -> None:
    """What `vitbench table runs=runs.csv` prints."""
    runs = choose_runs(str(path), {})
    formats.render_tables("text", [build_table("", runs)], "", runs.notes)


def counts_of_mcnemar(path: Path) -> None:
    read_counts(path, read_evidence(path.with_name("runs.csv")).rows)


def counts() -> list[Any]:
    from vitbench.comparing.evidence import Counted

    one, other = (f"{name}-0.05-0" for name in ("none", "None"))
    return [[[*Counted._fields], ["vit", "resnet", 500, 0, one, other, 1000, 12, 30]]]


def runs_csv() -> Files:
    return {"runs.csv": valid.evidence().encode()}


def sums() -> list[bytes]:
    import hashlib

    return [b"".join(f"{hashlib.sha256(blob).hexdigest()}  {name}\n".encode() for name, blob in runs_csv().items())]


def probes(path: Path) -> None:
    read_probes(path.parents[1], {"trained": 120, "init": 0})
    is_done(path, images=100, seed=0, options={}, version=2)


SWEPT = [["id", "column", "layer", "at", "at_unit", "value", "low", "high", "reason"]]
SWEPT += [["one", "shift.crop.accuracy", "", "2.0", "px", "0.25", "", "", ""]]
SWEPT += [["one", "cka", "head", "", "", "NaN", "", "", ""]]
