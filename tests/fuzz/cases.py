"""Every reader of what anyone can have made, with valid files, and with the files that lie beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz import readers, valid
from tests.fuzz.watched import Reader
from vitbench.comparing.evidence import read_swept
from vitbench.comparing.sums import faults_of
from vitbench.runs.predictions import Missing
from vitbench.settings.compose import read_yaml
from vitbench.settings.config_folder import check_config_folder


@dataclass(frozen=True)
class Fuzzed:
    """A reader, valid files of it, or trees of which `form` makes files, and which share of examples it gets."""

    reader: Reader
    valid: Callable[[], Sequence[Any]]
    form: Callable[[Any], bytes] | None = None
    share: float = 1.0


RUN = "runs/one/"
ELSEWHERE = {f"{RUN}.holder.json": b'{"pid": 7, "host": "another"}'}  # it trains there
FRAMES = [Image.new("L", (40, 24), 9)]

CASES: dict[str, Fuzzed] = {
    "record": Fuzzed(Reader(readers.tabled, f"{RUN}record.json"), readers.records_of_old, valid.as_json),
    "record with a checksum": Fuzzed(Reader(readers.tabled, f"{RUN}record.json"), readers.records, valid.as_sealed),
    "config of a run": Fuzzed(
        Reader(
            readers.of_run, f"{RUN}config.yaml", lambda: {f"{RUN}metrics.csv": b"step,train_loss\n3,1.5\n", **ELSEWHERE}
        ),
        lambda: [valid.record()["config"]],
        valid.as_yaml,
    ),
    "metrics": Fuzzed(
        Reader(
            readers.of_run,
            f"{RUN}metrics.csv",
            lambda: {f"{RUN}config.yaml": valid.as_yaml(valid.record()["config"]), **ELSEWHERE},
        ),
        lambda: [[["step", "epoch", "lr", "train_loss"], ["1", "0.5", "0.1", "2.25"], ["2", "1.0", "", "nan"]]],
        valid.as_csv,
    ),
    "failure": Fuzzed(
        Reader(readers.of_run, f"{RUN}failure.json"),
        lambda: [{"error": "it failed", "traceback": "Traceback", "time": "2026-01-01T00:00:00Z"}],
        valid.as_json,
    ),
    "holder": Fuzzed(
        Reader(readers.of_run, f"{RUN}.holder.json", lambda: {f"{RUN}.lock": b"", f"{RUN}config.yaml": b"seed: 0\n"}),
        lambda: [{"pid": 7, "host": "a"}],
        valid.as_json,
    ),
    "lock": Fuzzed(Reader(readers.of_run, f"{RUN}.lock"), lambda: [b""]),
    "predictions": Fuzzed(
        Reader(readers.classes, f"{RUN}predictions.npy", readers.beside_record, (Missing,)),
        lambda: [valid.array(np.arange(100, dtype=kind) % 10) for kind in (np.int16, np.int64, ">u4")],
    ),
    "labels of predictions": Fuzzed(
        Reader(readers.classes, f"{RUN}labels.npy", readers.beside_record, (Missing,)),
        lambda: [valid.array(np.arange(100, dtype=np.uint8)), valid.array(np.ones((10, 10)))],
    ),
    "archive of runs": Fuzzed(Reader(readers.merged, "one.tar.gz"), readers.packed_files, valid.as_archive),
    "tar of an archive": Fuzzed(Reader(readers.merged_tar, "one.tar"), readers.tars),
    "notes of a sweep": Fuzzed(
        Reader(readers.notes, "runs/.plans/mine.json"),
        lambda: [{"ids": ["a", "b"], "typed": ["seed=0"], "evidence": ["c"], "certificates": {"a": "b"}}],
        valid.as_sealed,
    ),
    "rows of a probe": Fuzzed(
        Reader(readers.probes, f"{RUN}probes/shift.csv"), lambda: [valid.probe_rows()], valid.as_probe
    ),
    "jobs of slurm": Fuzzed(Reader(readers.queue, "jobs/1/jobs.json"), lambda: [{"one": "1", "two": 2}], valid.as_json),
    "runs.csv": Fuzzed(Reader(readers.table, "runs.csv"), lambda: [valid.from_csv(valid.evidence())], valid.as_csv),
    "runs.csv, shown": Fuzzed(
        Reader(readers.table_of_evidence, "runs.csv"), lambda: [valid.from_csv(valid.evidence())], valid.as_csv, 0.5
    ),
    "probes.csv": Fuzzed(Reader(read_swept, "probes.csv"), lambda: [readers.SWEPT], valid.as_csv),
    "mcnemar.csv": Fuzzed(
        Reader(readers.counts_of_mcnemar, "mcnemar.csv", readers.runs_csv), readers.counts, valid.as_csv
    ),
    "checksums of results": Fuzzed(
        Reader(lambda path: faults_of(path.parent), "sha256sums.txt", readers.runs_csv), readers.sums
    ),
    "table of one's own": Fuzzed(Reader(readers.table, "mine.csv"), lambda: [valid.own_table()], valid.as_csv),
    "study": Fuzzed(Reader(readers.study, "study.yaml"), lambda: [valid.study()], valid.as_yaml),
    "study, planned": Fuzzed(Reader(readers.planned, "study.yaml"), lambda: [valid.study()], valid.as_yaml, 0.1),
    "yaml": Fuzzed(Reader(read_yaml), readers.config_files, valid.as_yaml),
    "--config-dir": Fuzzed(
        Reader(lambda path: check_config_folder(path.parents[1]), "mine/model/own.yaml"),
        readers.config_files,
        valid.as_yaml,
    ),
    "words": Fuzzed(Reader(readers.words), lambda: readers.WORDS, valid.as_lines),
    "words, composed": Fuzzed(Reader(readers.settings), lambda: readers.WORDS, valid.as_lines, 0.2),
    "weights of safetensors": Fuzzed(
        Reader(readers.weights, "file.safetensors"),
        lambda: [readers.STATE, {"tensors": {}, "about": {}}],
        valid.as_state,
    ),
    "weights of torch": Fuzzed(Reader(readers.weights, "file.pt"), valid.torch_files),
    "weights to begin from": Fuzzed(Reader(readers.begun, "file.safetensors"), readers.network_files, valid.as_state),
    "state": Fuzzed(Reader(readers.restored, f"{RUN}state.safetensors"), readers.states, valid.as_state),
    "image.jpg": Fuzzed(readers.image_reader(".jpg"), readers.jpegs),
    "image.png": Fuzzed(readers.image_reader(".png"), readers.pngs),
    "image.tif": Fuzzed(readers.image_reader(".tif"), lambda: valid.images(*readers.TIFFS)),
    "image.gif": Fuzzed(
        readers.image_reader(".gif"),
        lambda: valid.images(
            ("P", "GIF", {"transparency": 1}), ("L", "GIF", {"save_all": True, "append_images": FRAMES})
        ),
    ),
    "image.bmp": Fuzzed(readers.image_reader(".bmp"), lambda: valid.in_modes("BMP", "RGB", "P", "1", "RGBA")),
    "image.ppm": Fuzzed(
        readers.image_reader(".ppm"),
        lambda: [*valid.in_modes("PPM", "RGB", "L", "1", "I;16"), b"P3 2 1 255 1 2 3 4 5 6"],
    ),
    "image.webp": Fuzzed(
        readers.image_reader(".webp"), lambda: valid.images(("RGB", "WEBP", {}), ("RGBA", "WEBP", {"lossless": True}))
    ),
    "table of labels": Fuzzed(
        Reader(readers.table_of_labels, "root/labels.csv", readers.pictures), lambda: [readers.LABELS], valid.as_csv
    ),
    "folder of images": Fuzzed(Reader(readers.folder, "names"), lambda: readers.LAYOUTS, valid.as_lines, 0.3),
    "header of decoded images": Fuzzed(
        Reader(readers.opened, readers.decoded_name(".json"), readers.decoded),
        lambda: [readers.header()],
        valid.as_header,
    ),
    "decoded images": Fuzzed(
        Reader(readers.opened, readers.decoded_name(".npy"), readers.decoded),
        lambda: [readers.decoded()[readers.decoded_name(".npy")]],
    ),
    "remembered images": Fuzzed(
        Reader(readers.remembered, "surveys/x.npz", lambda: readers.pictures("surveys/")), readers.surveys
    ),
    "costs": Fuzzed(
        Reader(readers.costs),
        lambda: [{"parameters": 3, "multiply_adds": 4}, {"networks": {"a": [3, 15000000], "b": None}}],
        valid.as_sealed,
    ),
    "outputs": Fuzzed(Reader(readers.own_outputs, "outputs.txt"), lambda: [f"{'0' * 64}  /a/b.md\n".encode()]),
    "bench": Fuzzed(Reader(readers.bench, "cpu.json"), lambda: [readers.BENCH], valid.as_json),
    "mnist": Fuzzed(
        Reader(partial(readers.public_set, "mnist"), "set/MNIST/raw/train-images-idx3-ubyte", readers.mnist),
        readers.mnists,
    ),
    "classes of imagenet": Fuzzed(
        Reader(partial(readers.public_set, "imagenet"), "set/meta.bin", readers.imagenet), readers.meta
    ),
}
