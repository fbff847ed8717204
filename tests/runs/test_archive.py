"""Archives are foreign: each is read as `vitbench pack` wrote it, or refused in one line with nothing in place."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import fake_runs
from tests.conftest import Output
from vitbench.errors import DataError
from vitbench.machine.seal import sealed
from vitbench.runs import archive
from vitbench.runs.archive import SUMS, most_bytes, sums_text

Cli = Callable[..., Output]
Files = dict[str, bytes]
ONE = "runs/vit-0000000a/"
STUDY = "title: t\nquestion: q\nwith: data.fraction=0.5\nruns:\n  - model=vit,resnet seed=range(2)\n"


def array(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def run(runs: Path, name: str, accuracy: float = 0.5, /, **changed: Any) -> Path:
    """A run with all files that an archive takes but those of probes."""
    folder = fake_runs.write(runs, name, accuracy, result_test_images=10, **changed)
    files = {"predictions_npy": np.arange(10), "labels_npy": np.arange(10) % 3}
    arrays = {key: array(values) for key, values in files.items()} | {
        "probabilities_npy": array(np.ones((10, 10)) / 10)
    }
    text = {"config_yaml": b"seed: 0\n", "metrics_csv": b"step,train_loss\n3,1.5\n"}
    return fake_runs.with_files(folder, **text, **arrays, checkpoint_safetensors=b"weights")


@pytest.fixture
def packed(tmp_path: Path, vitbench: Cli) -> Files:
    """The files of an archive of one run, by their names."""
    run(tmp_path / "runs", "vit-0000000a")
    assert vitbench("pack", "file=one.tar.gz").code == 0
    with tarfile.open(tmp_path / "one.tar.gz") as tar:
        return {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar}


def written(path: Path, files: Mapping[str, bytes], *others: tarfile.TarInfo, sums: bool = True) -> str:
    """An archive of any files and entries, with right checksums unless it keeps those of `files`."""
    content = {name: blob for name, blob in files.items() if name != SUMS or not sums}
    if sums:
        content[SUMS] = sums_text({name: hashlib.sha256(blob).hexdigest() for name, blob in content.items()})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, blob in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))
        for info in others:
            tar.addfile(info)
    path.write_bytes(gzip.compress(buffer.getvalue()))
    return f"from={path.name}"


def entry(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def refused(vitbench: Cli, tmp_path: Path, word: str, *said: str) -> None:
    before = {path for path in tmp_path.parent.rglob("*") if path.name != "evil.tar.gz"}
    done = vitbench("merge", word, "runs=merged")
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1), done.err
    assert all(words in done.err for words in said), done.err
    assert {path for path in tmp_path.parent.rglob("*") if path.name != "evil.tar.gz"} == before


def test_an_archive_is_what_sha256sum_and_tar_can_read(packed: Files) -> None:
    names = ["config.yaml", "labels.npy", "metrics.csv", "predictions.npy", "probabilities.npy", "record.json"]
    assert [*packed] == [SUMS, *(ONE + name for name in names)]
    lines = [line.split("  ") for line in packed[SUMS].decode().splitlines()]
    assert lines == [[hashlib.sha256(packed[name]).hexdigest(), name] for name in [*packed][1:]]


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "/etc/x", "runs/../x", "runs/a/../../x", "runs/a/run.py", "runs/a/probes/../record.json", "x.yaml/y"),
        *("runs/a/state.safetensors", "runs/a/b/record.json", "runs/.hidden/record.json", "runs/a/probes/.csv", ""),
        *("runs/images-0123456789abcdef/record.json", "runs/a\n/record.json", f"runs/{'a' * 101}/record.json", ".yaml"),
    ],
)
def test_only_names_that_vitbench_gives_are_read(tmp_path: Path, vitbench: Cli, packed: Files, name: str) -> None:
    assert most_bytes(name) is None
    if name:  # tar has no such
        refused(vitbench, tmp_path, written(tmp_path / "evil.tar.gz", {**packed, name: b"x"}), "no file that")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "is a device"),
        (tarfile.BLKTYPE, "is a device"),
        (tarfile.FIFOTYPE, "is a pipe"),
        (tarfile.DIRTYPE, "is a folder"),
        (tarfile.CONTTYPE, "is no regular file"),
        (b"x", "is no regular file"),
    ],
)
def test_nothing_but_regular_files_is_unpacked(
    tmp_path: Path, vitbench: Cli, packed: Files, kind: bytes, said: str
) -> None:
    odd = entry("runs/vit-0000000b/metrics.csv", kind, link="/etc/passwd")
    refused(vitbench, tmp_path, written(tmp_path / "evil.tar.gz", packed, odd), said, "metrics.csv")


def record(packed: Files, **changed: Any) -> bytes:
    return json.dumps(sealed(json.loads(packed[f"{ONE}record.json"]) | changed)).encode()


def vouching(packed: Files, name: str, blob: bytes) -> Files:
    """The files with another one, for which the record vouches."""
    files = json.loads(packed[f"{ONE}record.json"])["files"] | {name: hashlib.sha256(blob).hexdigest()}
    return {f"{ONE}{name}": blob, f"{ONE}record.json": record(packed, files=files)}


CHANGES: dict[str, tuple[Callable[[Files], Files], str]] = {
    "no checksum": (
        lambda its: {f"{ONE}record.json": its[f"{ONE}record.json"][:-9] + b'"a": 1}\n'},
        "record.json is not",
    ),
    "an accuracy of 7": (lambda its: {f"{ONE}record.json": record(its, test_accuracy=7)}, "test_accuracy is 7"),
    "another id": (lambda its: {f"{ONE}record.json": record(its, id="other")}, "the record of other"),
    "a later schema": (lambda its: {f"{ONE}record.json": record(its, schema=99)}, "upgrade vitbench"),
    "other predictions": (lambda its: {f"{ONE}predictions.npy": array(np.zeros(10, int))}, "does not match its record"),
    "too few": (lambda its: vouching(its, "predictions.npy", array(np.zeros(9, int))), "not a class for each of 10"),
    "pickled": (lambda its: vouching(its, "labels.npy", array(np.array([{}] * 10, object))), "holds object"),
    "no table": (
        lambda its: vouching(its, "probabilities.npy", array(np.ones(10))),
        "not probabilities for each of 10",
    ),
    "code": (
        lambda its: {f"{ONE}config.yaml": b"a: !!python/object/apply:os.system [ls]\n"},
        "does not match its record",
    ),
    "code vouched for": (
        lambda its: vouching(its, "config.yaml", b"a: !!python/object/apply:os.system [ls]\n"),
        "config.yaml is not valid YAML",
    ),
    "no probe": (lambda its: {f"{ONE}probes/shift.csv": b"a,b\n"}, "shift.csv is no file of a probe"),
    "weights": (lambda its: {f"{ONE}checkpoint.3.safetensors": b"x"}, "does not know these weights"),
    "no record": (lambda its: {"runs/other/metrics.csv": b"step\n"}, "runs/other has no record.json"),
    "no study": (lambda its: {"mine.yaml": b"title: [\n"}, "mine.yaml is not valid YAML"),
    "two studies": (lambda its: dict.fromkeys(("a.yaml", "b.yaml"), STUDY.encode()), "holds 2 studies"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_every_file_is_checked_by_its_reader_though_its_checksum_is_right(
    tmp_path: Path, vitbench: Cli, packed: Files, kind: str
) -> None:
    change, said = CHANGES[kind]
    refused(vitbench, tmp_path, written(tmp_path / "evil.tar.gz", packed | change(packed)), said)


def test_files_must_be_those_of_the_list_of_checksums(tmp_path: Path, vitbench: Cli, packed: Files) -> None:
    path, name = tmp_path / "evil.tar.gz", f"{ONE}metrics.csv"
    without = {key: blob for key, blob in packed.items() if key != name}
    refused(vitbench, tmp_path, written(path, without, sums=False), f"{name} is not in the archive")
    refused(
        vitbench, tmp_path, written(path, {**packed, name: b"step\n"}, sums=False), f"{name} is not as it was packed"
    )
    more = {**packed, "runs/other/metrics.csv": b"step\n"}
    refused(vitbench, tmp_path, written(path, more, sums=False), f"runs/other/metrics.csv is not in {SUMS}")
    del more[SUMS]
    refused(vitbench, tmp_path, written(path, more, sums=False), f"{SUMS} is missing")
    twice = entry(name, tarfile.REGTYPE)
    refused(vitbench, tmp_path, written(path, packed, twice), f"{name} is there twice")
    refused(vitbench, tmp_path, written(path, {}), "holds no run")


def test_a_damaged_archive_is_told_from_a_whole_one(tmp_path: Path, vitbench: Cli, packed: Files) -> None:
    whole, path = (tmp_path / "one.tar.gz").read_bytes(), tmp_path / "evil.tar.gz"
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    tar = gzip.decompress(whole)
    damaged = [b"", whole[:middle], whole[:-4], flipped, b"PK\3\4", whole + b"x", gzip.compress(tar + b"x" * 600)]
    damaged += [gzip.compress(b"\0" * 100), gzip.compress(b"x" * 1024), whole + whole]
    for blob in damaged:
        path.write_bytes(blob)
        refused(vitbench, tmp_path, "from=evil.tar.gz", "evil.tar.gz")


def test_a_bomb_is_refused_before_it_fills_the_disk(
    tmp_path: Path, vitbench: Cli, packed: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "AND_BYTES", 100_000)
    bomb = {**packed, f"{ONE}probabilities.npy": bytes(50_000_000)}
    refused(vitbench, tmp_path, written(tmp_path / "evil.tar.gz", bomb), "unpacks to more than")
    (tmp_path / "evil.tar.gz").write_bytes(gzip.compress(bytes(50_000_000)))
    refused(vitbench, tmp_path, "from=evil.tar.gz", "unpacks to more than")


def test_sizes_and_counts_are_bounded(
    tmp_path: Path, vitbench: Cli, packed: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = {**packed, f"{ONE}config.yaml": bytes(1_000_001)}
    refused(vitbench, tmp_path, written(tmp_path / "evil.tar.gz", large), "config.yaml has 1,000,001 bytes")
    negative = io.BytesIO()
    info = tarfile.TarInfo(f"{ONE}metrics.csv")
    info.size = -1024
    negative.write(info.tobuf(tarfile.GNU_FORMAT))
    (tmp_path / "evil.tar.gz").write_bytes(gzip.compress(negative.getvalue()))
    refused(vitbench, tmp_path, "from=evil.tar.gz", "-1,024 bytes")
    monkeypatch.setattr(archive, "MOST_FILES", 3)
    refused(vitbench, tmp_path, written(tmp_path / "evil.tar.gz", packed), "more than 3 files")
    with pytest.raises(DataError, match="more than 3 files"):
        archive.unpack(tmp_path / "one.tar.gz", tmp_path / "place")
