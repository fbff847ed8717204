"""A finished run is not taken for images that it never saw."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Output
from vitbench.data import imagefolder
from vitbench.data.menu import forget, scan_of
from vitbench.runs import images as images_module
from vitbench.runs.images import done
from vitbench.runs.records import read_runs, run_folders
from vitbench.runs.run import Run

Cli = Callable[..., Output]
WORDS = ["data=imagefolder", "data.root=pets", "data.image_size=8", "data.cache=cache", "data.test_fraction=0.25"]
WORDS += ["optim.steps=2", "optim.batch_size=8", "machine.threads=1", "runs=r", "eval_every=2"]
STUDY = "title: pets\nruns: [seed=0, seed=1]\n"


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for seed in range(24):
        picture(tmp_path / "pets" / ("cat", "dog")[seed % 2] / f"{seed}.png", seed)
    return tmp_path / "pets"


def only_run(runs: Path) -> tuple[Path, dict[str, Any]]:
    (folder,) = run_folders(runs)
    return folder, json.loads((folder / "record.json").read_text())


CHANGES: dict[str, Callable[[Path], Any]] = {
    "added": lambda pets: picture(pets / "cat" / "99.png", 99),
    "removed": lambda pets: (pets / "cat" / "0.png").unlink(),
    "renamed to another class": lambda pets: (pets / "cat" / "0.png").rename(pets / "dog" / "0.png"),
    "other pixels": lambda pets: picture(pets / "dog" / "1.png", 77),
    "a class less": lambda pets: (pets / "cat").rename(pets / "lynx"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_finished_run_is_done_again_when_its_images_changed_and_both_are_kept(
    vitbench: Cli, tmp_path: Path, pets: Path, change: str
) -> None:
    assert vitbench("train", *WORDS).code == 0
    folder, before = only_run(tmp_path / "r")
    CHANGES[change](pets)
    output = vitbench("train", *WORDS)
    assert output.code == 0 and "the images have changed since" in output.err and "nothing to do" not in output.out
    folder_now, now = only_run(tmp_path / "r")
    assert folder_now == folder and now["data_fingerprint"] != before["data_fingerprint"]
    apart = tmp_path / "r" / f"images-{before['data_fingerprint']}"
    kept, its_record = only_run(apart)
    assert its_record == before and kept.name == folder.name and (kept / "checkpoint.safetensors").exists()
    assert "nothing to do" in vitbench("train", *WORDS).out


def test_the_same_words_in_another_working_folder_name_other_images(
    vitbench: Cli, tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word.replace("runs=r", f"runs={tmp_path / 'r'}") for word in WORDS]
    vitbench("train", *words)
    for seed in range(24):
        picture(tmp_path / "elsewhere" / "pets" / ("cat", "dog")[seed % 2] / f"{seed}.png", 100 + seed)
    monkeypatch.chdir(tmp_path / "elsewhere")
    output = vitbench("train", *words)
    assert output.code == 0 and "the images have changed since" in output.err


def test_a_copied_folder_and_touched_files_are_the_same_images(
    vitbench: Cli, tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vitbench("train", *WORDS)
    shutil.copytree(pets, tmp_path / "copy", copy_function=shutil.copy)  # times are not copied
    moved = [word.replace("data.root=pets", "data.root=copy") for word in WORDS]
    output = vitbench("train", *moved, "data.name=pets")
    assert output.code == 0 and "nothing to do" in output.out and "changed" not in output.err, output.err
    os.utime(pets / "cat" / "0.png")
    assert "nothing to do" in vitbench("train", *WORDS).out


def test_unchanged_files_are_not_decoded_to_learn_that(
    vitbench: Cli, tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vitbench("train", *WORDS)
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(imagefolder, "_decode_all", None)
    assert "nothing to do" in vitbench("train", *WORDS).out


def test_images_that_come_back_bring_back_their_run(vitbench: Cli, tmp_path: Path, pets: Path) -> None:
    vitbench("train", *WORDS)
    folder, first = only_run(tmp_path / "r")
    picture(pets / "cat" / "99.png", 99)
    vitbench("train", *WORDS)
    _, second = only_run(tmp_path / "r")
    (pets / "cat" / "99.png").unlink()
    output = vitbench("train", *WORDS)
    assert "is put back" in output.err and "nothing to do" in output.out
    assert only_run(tmp_path / "r") == (folder, first)
    assert only_run(tmp_path / "r" / f"images-{second['data_fingerprint']}")[1] == second


def test_a_run_without_its_images_is_done_and_says_that_nobody_can_tell(
    vitbench: Cli, tmp_path: Path, pets: Path
) -> None:
    vitbench("train", *WORDS)
    shutil.rmtree(pets)
    output = vitbench("train", *WORDS)
    assert output.code == 0 and "nothing to do" in output.out
    assert "no such folder here, so vitbench cannot tell" in output.err and str(pets) in output.err
    assert vitbench("table", "runs=r").code == 0  # reading needs no images


def test_images_that_cannot_be_used_any_more_are_an_error_and_the_run_stays(
    vitbench: Cli, tmp_path: Path, pets: Path
) -> None:
    vitbench("train", *WORDS)
    before = only_run(tmp_path / "r")
    (pets / "cat" / "broken.png").write_text("no image")
    output = vitbench("train", *WORDS)
    assert output.code == 3 and "broken.png" in output.err and only_run(tmp_path / "r") == before


def test_a_run_of_an_older_version_is_judged_by_its_decoded_images(
    vitbench: Cli, tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as old:
        old.setattr(imagefolder, "_scan", lambda *_: None)
        vitbench("train", *WORDS)
    assert "scan" not in only_run(tmp_path / "r")[1]
    assert "nothing to do" in vitbench("train", *WORDS).out
    picture(pets / "cat" / "99.png", 99)
    assert "the images have changed since" in vitbench("train", *WORDS).err


# -------------------------------------------------------------------------------------------------- sweeps and readers


def test_a_sweep_and_its_dry_run_count_runs_on_other_images_as_not_done(
    vitbench: Cli, tmp_path: Path, pets: Path
) -> None:
    (tmp_path / "s.yaml").write_text(STUDY)
    words = ["study=s.yaml", *WORDS]
    assert vitbench("sweep", *words).code == 0
    assert "2 runs, 0 to do" in vitbench("sweep", *words, "dry_run=true").out
    picture(pets / "cat" / "99.png", 99)
    plan = vitbench("sweep", *words, "dry_run=true")
    assert plan.out.count("changed: the images have changed since it ended") == 2 and "2 to do" in plan.out
    assert len([*(tmp_path / "r").glob("images-*")]) == 0  # a dry run moves nothing
    output = vitbench("sweep", *words)
    assert output.code == 0 and "2 of 2 runs finished" in output.out
    assert output.err.count("the images have changed since") == 1 and "and so for 1 other runs" in output.err
    (apart,) = (tmp_path / "r").glob("images-*")
    assert len(run_folders(apart)) == len(run_folders(tmp_path / "r")) == 2
    assert {row["data_fingerprint"] for row in read_runs(apart).rows} == {apart.name.removeprefix("images-")}


def test_a_table_never_mixes_runs_on_the_images_of_before_and_of_now(vitbench: Cli, tmp_path: Path, pets: Path) -> None:
    vitbench("train", *WORDS)
    picture(pets / "cat" / "99.png", 99)
    vitbench("train", *WORDS)
    (apart,) = (tmp_path / "r").glob("images-*")
    for runs in (tmp_path / "r", apart):
        assert len({row["data_fingerprint"] for row in read_runs(runs).rows}) == len(read_runs(runs).rows) == 1
    table = vitbench("table", "runs=r")
    assert table.code == 0 and "WRONG" not in table.out and str(apart.name) in table.out + table.err
    assert apart.name in vitbench("ls", "runs", "runs=r").err
    assert vitbench("table", f"runs={apart}").code == 0


def test_a_sweep_goes_on_where_the_images_of_some_runs_cannot_be_used(
    vitbench: Cli, tmp_path: Path, pets: Path
) -> None:
    (tmp_path / "s.yaml").write_text("title: s\nruns: ['data=imagefolder data.root=pets', 'data=shapes']\n")
    words = [word for word in WORDS if not word.startswith(("data=", "data.root", "data.test"))]
    words = ["study=s.yaml", *words, "model.patch_size=2"]
    assert vitbench("sweep", *words).code == 0
    shutil.rmtree(next((tmp_path / "r").glob("*shapes*")))
    (pets / "cat" / "broken.png").write_text("no image")
    output = vitbench("sweep", *words)
    assert output.code == 1 and "1 of 2 runs finished" in output.out and "broken.png" in output.err
    assert "Traceback" not in output.err


def test_evidence_is_not_taken_for_images_that_changed(vitbench: Cli, tmp_path: Path, pets: Path) -> None:
    (tmp_path / "s.yaml").write_text(STUDY)
    vitbench("sweep", "study=s.yaml", *WORDS)
    assert vitbench("report", "study=s.yaml", "runs=r", "results=results").code == 0
    shutil.rmtree(tmp_path / "r")
    words = ["study=s.yaml", *WORDS, "evidence=true", "dry_run=true"]
    assert "2 evidence" in vitbench("sweep", *words).out
    picture(pets / "cat" / "99.png", 99)
    output = vitbench("sweep", *words)
    assert "2 to do" in output.out and "have changed since, so these runs" in output.err


def test_a_parent_described_in_words_is_one_on_these_images(vitbench: Cli, tmp_path: Path, pets: Path) -> None:
    vitbench("train", *WORDS)
    child = ["init='seed=0'", "seed=1"]
    assert vitbench("train", *WORDS, *child).code == 0
    picture(pets / "cat" / "99.png", 99)
    output = vitbench("train", *WORDS, *child)
    assert (
        output.code == 2
        and "the images have changed since" in output.err
        and "trained again by: vitbench" in output.err
    )


# ---------------------------------------------------------------------------------------------------------- the scan


def test_each_root_is_looked_at_once_a_process(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    layout_of = imagefolder.layout_of
    monkeypatch.setattr(imagefolder, "layout_of", lambda *words: looks.append(1) or layout_of(*words))
    forget()
    scans = [scan_of("imagefolder", root=str(pets), image_size=size) for size in (8, 16, None)]
    assert len({*scans}) == len(looks) == 1 and imagefolder.listed_train_images(pets) == 19 and len(looks) == 1
    forget()
    assert scan_of("imagefolder", root=str(pets)) == scans[0] and len(looks) == 2


def test_a_thousand_finished_runs_are_compared_with_one_look(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    seen = scan_of("imagefolder", root=str(pets))
    assert seen is not None
    record = {"scan": seen._asdict(), "data_fingerprint": "as it was"}
    monkeypatch.setattr(Run, "record", lambda run: record)
    monkeypatch.setattr(images_module, "_fingerprint", None)  # nothing is decoded
    monkeypatch.setattr(imagefolder, "layout_of", None)
    data = {"source": "imagefolder", "root": str(pets), "cache": "", "image_size": 8}
    assert all(done(Run(pets / str(seed), {"seed": seed, "data": data})) is record for seed in range(1000))


def test_drawn_images_have_no_scan_and_absent_folders_none(tmp_path: Path) -> None:
    assert scan_of("shapes", root=str(tmp_path)) is None
    assert scan_of("imagefolder", root=str(tmp_path / "nowhere")) is None
    assert scan_of("cifar10", root=str(tmp_path)) is None


def test_the_scan_of_a_public_set_is_that_of_its_files(tmp_path: Path) -> None:
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    batch.parent.mkdir()
    batch.write_bytes(b"1")
    (tmp_path / "other").write_bytes(b"1")
    first = scan_of("cifar10", root=str(tmp_path))
    (tmp_path / "other").write_bytes(b"22")
    forget()
    assert first == scan_of("cifar10", root=str(tmp_path)) and first is not None
    batch.write_bytes(b"22")
    forget()
    assert first != scan_of("cifar10", root=str(tmp_path))
