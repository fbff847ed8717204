"""`vitbench probe` from the command line to the files of a run, for networks trained and untrained."""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import fake_runs
from tests.conftest import TINY_32, Output
from vitbench import cli
from vitbench.comparing.select import select_runs
from vitbench.data.loader import seed_random_state
from vitbench.data.stream import Stream
from vitbench.errors import DoesNotApply, UserError
from vitbench.machine.disk import checksum
from vitbench.models.build import build_model
from vitbench.probes.menu import FIGURES, TOGETHER
from vitbench.probes.subject import Row, Subject, predict
from vitbench.probing.partners import reader
from vitbench.runs.records import read_record
from vitbench.training.evaluate import Evaluation, evaluate

Cli = Callable[..., Output]
SEEN: list[Subject] = []


def stub(subject: Subject, *, seed: int, draws: int, **options: int | None) -> list[Row]:
    """Stands in for `probe=shift`: gives a number and an undefined one, and refuses draws=13."""
    SEEN.append(subject)
    if draws == 13:
        raise UserError("probe.shift.draws=13: not today")
    undefined = {"protocol": "stub@v1", "metric": "hole", "value": math.nan, "reason": "there is none"}
    return [{"protocol": "stub@v1", "metric": "size", "value": float(draws + seed)}, undefined]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The folder of a run, which is trained once for all tests here."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(sys.argv))
        assert cli.run(["train", *TINY_32, "keep=[2,4]", f"runs={runs}"]) == 0
    return next(path for path in runs.iterdir() if path.is_dir())


@pytest.fixture
def trained(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of that run in a copy below runs/, where every probe is `stub`."""
    SEEN.clear()
    monkeypatch.setattr("vitbench.probing.probe.look_up", lambda kind, name, menu: stub)
    shutil.copytree(run_folder, tmp_path / "runs" / run_folder.name)
    return run_folder.name


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_say_what_they_were_made_with_and_are_not_made_twice(vitbench: Cli, tmp_path: Path, trained: str) -> None:
    words = {"run": trained, "probe": "shift", "images": "20"}

    def call(**changed: str) -> Output:
        return vitbench("probe", *(f"{key}={value}" for key, value in (words | changed).items()))

    first, path = call(), tmp_path / "runs" / trained / "probes" / "shift.csv"
    assert (first.code, first.out) == (0, f"runs/{trained}/probes\n"), first.err
    rows = lines(path)
    assert {(row["images"], row["seed"], json.loads(row["options"])["draws"]) for row in rows} == {("20", "0", 4)}
    assert rows[1]["value"] == "nan" and rows[1]["reason"] == "there is none" and "there is none" in first.err
    assert "measured already: shift" in call().out and len(SEEN) == 1
    for changed in ({"images": "21"}, {"seed": "1"}, {"probe.shift.draws": "5"}):
        assert call(**changed).code == 0
    assert len(SEEN) == 4 and [row["value"] for row in lines(path)] == ["5.0", "nan"]  # rows are replaced, not added
    path.write_text("torn")
    assert call().code == 0 and len(SEEN) == 5


def test_the_untrained_network_is_the_one_that_training_began_with(vitbench: Cli, tmp_path: Path, trained: str) -> None:
    assert vitbench("probe", f"run={trained}", "probe=shift", "images=20", "checkpoint=[trained,init]").code == 0
    seed_random_state(0, 0)
    record = read_record(tmp_path / "runs" / trained / "record.json")
    begun = build_model(**record["config"]["model"], image_size=32, channels=3, num_classes=10).state_dict()
    ours, trained_ones = SEEN[1].model.state_dict(), SEEN[0].model.state_dict()
    assert all(torch.equal(ours[name], begun[name]) for name in begun)
    assert not torch.equal(trained_ones["head.weight"], begun["head.weight"])
    assert torch.equal(SEEN[0].images, SEEN[1].images) and SEEN[0].images.shape == (20, 3, 32, 32)
    assert not SEEN[0].model.training and SEEN[0].num_classes == 10
    names = {path.name for path in (tmp_path / "runs" / trained / "probes").iterdir()}
    assert names == {"shift.csv", "shift.init.csv"}


def test_what_cannot_be_gets_one_line(vitbench: Cli, tmp_path: Path, trained: str) -> None:
    mistakes = {
        ("run=vit-learned-shapes",): f"did you mean {trained}",
        (): "give one of run=ID, study=NAME",
        ("run=x", "study=quickstart"): "run=x study=quickstart: give one of",
        (f"run={trained}", "probe=shfit"): "probe=shfit: did you mean shift?",
        (f"run={trained}", "probe=[cost,shfit]"): "probe=shfit: did you mean shift?",
        (f"run={trained}", "images=51"): "images=51: there are only 50 test images; images=50 takes them all",
        (f"run={trained}", "images=0"): "images=0: must be 1 or more",
        (f"run={trained}", "seed=-1"): "seed=-1: must be 0 to",
        (f"run={trained}", "checkpoint=last"): "checkpoint=last: choices: init, kept, trained, or a step",
        (f"run={trained}", "probe.shift.draws=x"): "probe.shift.draws=x: must be a whole number",
        (f"run={trained}", "probe.shift.max_shfit=1"): "did you mean probe.shift.max_shift",
        (f"run={trained}", "data=cifar10"): "data=cifar10: a run brings its own network and data",
        (f"run={trained}", "images=20", "probe.shift.draws=13"): "draws=13: not today",
        ("where.model=resnet",): "where.model=resnet: none of 1 run; there model is vit",
        ("study=quickstart",): "study=quickstart: none of its 27 runs has ended",
        (f"run={trained}", "-m"): "has no --multirun",
    }
    for words, expected in mistakes.items():
        output = vitbench(
            "probe", *words, *(() if any(word.startswith("probe=") for word in words) else ("probe=shift",))
        )
        assert output.code == 2 and expected in output.err, (words, output.err)
        assert output.err.count("\n") == 1 and output.out == ""
    assert not (tmp_path / "runs" / trained / "probes").exists()


def test_other_images_and_weights_than_the_records_are_refused(vitbench: Cli, tmp_path: Path, trained: str) -> None:
    folder = tmp_path / "runs" / trained
    record, weights = json.loads((folder / "record.json").read_text()), (folder / "checkpoint.safetensors").read_bytes()
    call = ("probe", f"run={trained}", "probe=shift", "images=20")
    fake_runs.change(folder, data_fingerprint="other")
    output = vitbench(*call)
    assert output.code == 3 and "its record has other" in output.err
    config = json.loads(json.dumps(record["config"]))
    config["model"]["width"] = 32
    fake_runs.change(folder, **record | {"config": config})
    output = vitbench(*call)
    assert output.code == 2 and "is from another model" in output.err
    fake_runs.change(folder, **record | {"id": "other"})
    assert "holds the weights of another run" in vitbench(*call).err
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "checkpoint.safetensors").write_bytes(weights[:-1])
    assert "is damaged" in vitbench(*call).err and SEEN == []
    fake_runs.change(folder, status="diverged")
    assert "diverged and has no weights; type checkpoint=init" in vitbench(*call).err
    assert vitbench(*call, "checkpoint=init").code == 0 and len(SEEN) == 1


def test_weights_kept_in_training_are_measured_along_its_steps(vitbench: Cli, tmp_path: Path, trained: str) -> None:
    from vitbench.training import checkpoint

    folder = tmp_path / "runs" / trained
    call = ("probe", f"run={trained}", "probe=shift", "images=20")
    assert vitbench(*call, "checkpoint=[init,kept,trained]").code == 0
    for subject, path in zip(SEEN[1:], ("checkpoint.2", "checkpoint.4", "checkpoint"), strict=True):
        tensors, _ = checkpoint.load_tensors(folder / f"{path}.safetensors")
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in subject.model.state_dict().items())
    assert "measured already: shift" in vitbench(*call, "checkpoint=4").out and len(SEEN) == 4
    runs = select_runs("runs", {})
    assert [(row["at"], row["at_unit"]) for row in runs.swept[trained] if row["column"] == "stub.size"] == [
        (step, "step") for step in (0, 2, 4, 6)
    ]
    assert runs.rows[0]["stub.size"] == 4 and vitbench("plot", "y=stub.size", "x=step", "degenerate=true").code == 0
    assert vitbench("table", "value=[stub.size,init.stub.size]").code == 0
    output = vitbench(*call, "checkpoint=3")
    assert output.code == 2 and f"checkpoint=3: {trained} kept its weights after 2, 4 steps" in output.err
    for path in folder.glob("checkpoint.*.safetensors"):
        path.unlink()
    assert "kept none; train it with keep=[10,100]" in vitbench(*call, "checkpoint=kept").err
    shutil.copytree(folder, folder.with_name("twin"))
    output = vitbench("probe", f"run=[{trained},twin]", "probe=shift", "checkpoint=kept")
    assert output.code == 2 and "kept none" in output.err and output.err.count("\n") == 1


def test_a_picture_is_left_beside_the_rows_unless_it_is_not_wanted(
    vitbench: Cli, tmp_path: Path, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sketch(what: object, *, seed: int, ending: str, draws: int) -> bytes:
        return f"{ending} {seed} {draws} {len(what) if isinstance(what, dict) else 'one'}".encode()

    monkeypatch.setattr(
        "vitbench.probing.probe.look_up", lambda kind, name, menu: {"figure": sketch, "probe": stub}[kind]
    )
    monkeypatch.setattr("vitbench.probing.probe.parameters", lambda target: {"draws": None})
    monkeypatch.setitem(FIGURES, "shift", FIGURES["equivariance"])
    call, probes = ("probe", f"run={trained}", "probe=shift"), tmp_path / "runs" / trained / "probes"
    assert vitbench(*call, "images=20", "checkpoint=[trained,init]").code == 0
    assert {path.name for path in probes.glob("*.svg")} == {"shift.svg", "shift.init.svg"}
    assert (probes / "shift.svg").read_text() == ".svg 0 4 one"
    assert vitbench(*call, "images=21", "figures=false").code == 0
    assert {path.name for path in probes.glob("*.svg")} == {"shift.init.svg"}, "the other one was of other rows"
    assert vitbench(*call, "file=mine/one.png").out == "mine/one.png\n"
    assert Path("mine/one.png").read_text() == ".png 0 4 one"
    monkeypatch.setitem(TOGETHER, "shift", FIGURES["equivariance"])
    shutil.copytree(tmp_path / "runs" / trained, tmp_path / "runs" / "second")
    shutil.copy(tmp_path / "runs" / trained / "record.json", tmp_path / "runs" / "second" / "record.json")
    assert vitbench("probe", f"run=[{trained},second]", "probe=shift", "file=two.svg").code == 0
    assert Path("two.svg").read_text() == ".svg 0 4 2"


def test_a_picture_of_a_study_shows_the_networks_of_all_its_lines_each_once(
    vitbench: Cli, tmp_path: Path, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sketch(subjects: dict[str, Subject], *, seed: int, ending: str, draws: int) -> bytes:
        return f"{draws} {[*subjects]}".encode()

    monkeypatch.setattr("vitbench.probing.probe.look_up", lambda kind, name, menu: sketch)
    monkeypatch.setattr("vitbench.probing.probe.parameters", lambda target: {"draws": None})
    monkeypatch.setitem(TOGETHER, "shift", FIGURES["equivariance"])
    made: list[object] = []
    monkeypatch.setattr("vitbench.probing.probe.reader", lambda: made.append(0) or reader())
    (tmp_path / "mine.yaml").write_text(f"{STUDY}  - probe=shift checkpoint=trained\n")
    assert vitbench("probe", "study=mine.yaml", "file=two.svg").code == 0
    assert Path("two.svg").read_text() == f"5 ['{trained}', '{trained} (init)']" and len(made) == 1
    (tmp_path / "mine.yaml").write_text(f"{STUDY}  - probe=lie\n")
    assert "draws one probe of one network" in vitbench("probe", "study=mine.yaml", "file=two.svg").err


def test_a_probe_that_does_not_apply_is_refused_by_name_and_left_out_of_all(
    vitbench: Cli, tmp_path: Path, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(subject: Subject, *, seed: int, **options: object) -> list[Row]:
        raise DoesNotApply("it has none")

    monkeypatch.setattr(
        "vitbench.probing.probe.look_up", lambda kind, name, menu: lacking if name == "shift" else stub_of_any
    )
    call = ("probe", f"run={trained}", "images=20", "figures=false")
    line = "probe=shift: does not apply to vit: it has none; these do: equivariance, "
    output = vitbench(*call, "probe=shift")
    assert output.code == 2 and line in output.err and output.err.count("\n") == 1
    output = vitbench(*call, "checkpoint=[trained,init]")
    assert output.code == 0 and output.err.count(line) == 1, output.err
    probes = tmp_path / "runs" / trained / "probes"
    assert (probes / "lie.csv").exists() and (probes / "lie.init.csv").exists() and not [*probes.glob("shift*")]


def stub_of_any(subject: Subject, *, seed: int, **options: object) -> list[Row]:
    return [{"protocol": "stub@v1", "metric": "size", "value": 1.0}]


def test_another_run_is_found_by_its_settings_and_seen_with_the_same_images(
    vitbench: Cli, tmp_path: Path, run_folder: Path
) -> None:
    runs = tmp_path / "runs"
    own, twin, far = (shutil.copytree(run_folder, runs / name) for name in (run_folder.name, "twin", "far"))
    record = json.loads((own / "record.json").read_text())
    for folder, seed, changed in ((twin, 1, {}), (far, 2, {"data_fingerprint": "other"})):
        config = record["config"] | {"seed": seed}
        fake_runs.change(folder, config=config, **changed)
    call = ("probe", f"run={own.name}", "probe=cka", "images=20", "figures=false", "checkpoint=[trained,init]")
    assert vitbench(*call, "probe.cka.other={again:{seed:[0,1]},none:{seed:0}}").code == 0
    trained, init = (lines(own / "probes" / name) for name in ("cka.csv", "cka.init.csv"))
    assert {row["options"] for row in trained} == {'{"other": {"again": "twin", "none": null}}'}
    diagonal = [float(row["value"]) for row in (*trained, *init) if row["metric"] == "diagonal"]
    assert diagonal[0] == pytest.approx(1, abs=1e-6) and diagonal[2] < 0.999 and math.isnan(diagonal[1])
    output = vitbench(*call[:-1], "probe.cka.other=far")
    assert output.code == 3 and "far was trained on other images (fingerprint other)" in output.err
    assert output.err.count("\n") == 1
    for words, expected in {
        ("probe=cka", "probe.cka.other={a:twn}"): "probe.cka.other.a: runs/twn is no finished run; did you mean twin",
        (
            "probe=cost",
            "probe.cost.batches=x",
        ): "probe.cost.batches=x: must be a list of whole numbers, for example [1,2]",
    }.items():
        output = vitbench(*call[:2], *words, "images=20")
        assert output.code == 2 and expected in output.err and output.err.count("\n") == 1, output.err


def test_images_that_a_network_was_not_trained_on_are_its_validation_images(vitbench: Cli, trained: str) -> None:
    from vitbench.data.share import load
    from vitbench.settings.share import share_options, source_options

    assert vitbench("probe", f"run={trained}", "probe=shift", "images=20").code == 0
    assert SEEN[0].held_out is not None
    images, labels = SEEN[0].held_out(15)
    config = read_record(Path("runs") / trained / "record.json")["config"]
    data = source_options(config["data"]) | share_options(config)
    validation = load(**data, progress=False).validation(images.device)
    assert validation is not None and len(validation[1]) == 20
    assert torch.equal(images, validation[0][:15]) and torch.equal(labels, validation[1][:15])  # type: ignore[arg-type]


STUDY = """\
with: data.train_images=200 data.test_images=50 optim.steps=6 optim.batch_size=16 eval_every=2
runs: ['model=vit data.fraction=0.5,1']
probes:
  - probe=shift probe.shift.draws=5 images=10
  - probe=shift checkpoint=init where.data.fraction=1
"""


def test_a_study_names_its_probes_and_typed_words_win(vitbench: Cli, tmp_path: Path, trained: str) -> None:
    (tmp_path / "mine.yaml").write_text(STUDY)
    output = vitbench("probe", "study=mine.yaml", "images=30")
    assert output.code == 0 and "missing: 1 of the 2 planned runs" in output.err, output.err
    assert [len(subject.images) for subject in SEEN] == [30, 30]
    probes = tmp_path / "runs" / trained / "probes"
    assert [lines(probes / name)[0]["value"] for name in ("shift.csv", "shift.init.csv")] == ["5.0", "4.0"]
    (tmp_path / "mine.yaml").write_text(f"{STUDY}  - probe=shift where.model=resnet checkpoint=init images=10\n")
    # the new line chooses no run, which is an error only where no other line chooses one either
    assert vitbench("probe", "study=mine.yaml", "seed=5", "images=30").code == 0 and len(SEEN) == 4
    assert "where.model=cnn: none of" in vitbench("probe", "study=mine.yaml", "where.model=cnn").err
    (tmp_path / "mine.yaml").write_text(STUDY.replace("images=10", "machine.device=cpu"))
    assert "probes: machine.device" in vitbench("probe", "study=mine.yaml").err


def weights(tmp_path: Path, classes: int = 10) -> Path:
    from torchvision.models import get_model

    torch.manual_seed(0)
    path = tmp_path / f"{classes}.pth"
    torch.save({"state_dict": get_model("squeezenet1_1", num_classes=classes).state_dict()}, path)
    return path


DATA = ["data=shapes", "data.test_images=50", "data.train_images=200"]
OUTSIDE = ["probe", "probe=shift", "model=torchvision", "arch=squeezenet1_1", *DATA, "images=10"]


def test_a_network_from_outside_becomes_a_run_that_tables_read(vitbench: Cli, tmp_path: Path, trained: str) -> None:
    path = weights(tmp_path)
    output = vitbench(*OUTSIDE, f"weights={path}")
    assert output.code == 0, output.err
    (folder,) = (tmp_path / "runs").glob("torchvision-squeezenet1_1-shapes-*")
    record = read_record(folder / "record.json")
    assert record["mean"] == [0.485, 0.456, 0.406] and record["train_images"] == 0
    bias = SEEN[0].model.state_dict()["net.features.0.bias"]
    assert torch.equal(bias, torch.load(path)["state_dict"]["features.0.bias"])
    by_name = [word.replace("arch=", "name=") for word in OUTSIDE]  # another word for it
    assert "measured already: shift" in vitbench(*by_name, f"weights={path}").out
    as_in_train = [word.replace("arch=", "model.arch=") for word in OUTSIDE]
    assert "measured already: shift" in vitbench(*as_in_train, f"init={path}").out
    table = vitbench("table", "value=[test_accuracy,stub.size]", "format=json")
    assert {group["settings"]["model"] for group in json.loads(table.out)["tables"][0]["groups"]} == {
        "torchvision",
        "vit",
    }
    assert (
        "type model=, arch=, weights= and data= again"
        in vitbench("probe", f"run={folder.name}", "probe=shift", "images=10", "seed=1").err
    )


def test_a_network_from_outside_is_tested_on_all_images_a_batch_at_a_time(
    vitbench: Cli, tmp_path: Path, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[object] = []

    def watched(model: torch.nn.Module, images: Stream, *given: Any, **more: Any) -> Evaluation:
        met.append(images)
        return evaluate(model, images, *given, **more)

    monkeypatch.setattr("vitbench.training.evaluate.evaluate", watched)
    assert vitbench(*OUTSIDE[:-1], "images=50", f"weights={weights(tmp_path)}").code == 0
    (folder,) = (tmp_path / "runs").glob("torchvision-*")
    right = (predict(SEEN[0]).argmax(1) == SEEN[0].labels).double().mean().item()
    assert isinstance(met[0], Stream) and read_record(folder / "record.json")["test_accuracy"] == right


def test_a_file_of_weights_is_not_loaded_into_another_network_than_its_own(vitbench: Cli, tmp_path: Path) -> None:
    call = [word for word in OUTSIDE if word != "probe=shift"] + ["probe=cka", "figures=false"]
    first = weights(tmp_path)
    second = tmp_path / "second.pth"
    torch.save({name: 2 * value for name, value in torch.load(first)["state_dict"].items()}, second)
    for path in (first, second):
        assert vitbench(*call, f"weights={path}").code == 0
    there = {
        read_record(path)["config"]["model"]["weights"]: path.parent for path in Path("runs").glob("*/record.json")
    }
    other = there[checksum(second)].name
    output = vitbench(*call, f"weights={first}", f"probe.cka.other={other}")
    assert output.code == 2 and f"weights={first}: is not the file of {other}; only one file can be typed" in output.err
    assert output.err.count("\n") == 1


class Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return Path.touch, (Path("executed"),)  # type: ignore[return-value]


def test_files_of_weights_are_data(vitbench: Cli, tmp_path: Path, trained: str) -> None:
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_text("hello")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    few = weights(tmp_path, 7)
    for file, expected in {
        "none.pth": "No such file",
        "evil.pth": "could run code",
        "text.pth": "is not a file of weights",
        "list.pth": "is not a state_dict",
        "text.safetensors": "No such file",
        few.name: "for 7 classes, and the data have 10",
    }.items():
        output = vitbench(*OUTSIDE, f"weights={tmp_path / file}")
        assert output.code == 2 and expected in output.err and output.err.count("\n") == 1, (file, output.err)
    assert not (tmp_path / "executed").exists() and SEEN == []
    whole = weights(tmp_path)
    for words, expected in {
        ("model=torchvison",): "model=torchvison: did you mean torchvision?",
        ("arch=squeezenet1_2",): "model.arch=squeezenet1_2: did you mean squeezenet1_",
        ("arch=squeezenet1_1", "name=squeezenet1_0"): "arch=squeezenet1_1 name=squeezenet1_0: both name the network",
        ("mean=[0.5]",): "mean=[0.5]: must be 3 numbers",
    }.items():
        key = words[0].split("=")[0]
        call = [word for word in OUTSIDE if not word.startswith(f"{key}=")]
        output = vitbench(*call, *words, f"weights={whole}")
        assert output.code == 2 and expected in output.err, output.err
