from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Output, process
from vitbench import cli

Cli = Callable[..., Output]


def test_help_opens_with_commands_to_copy(vitbench: Cli) -> None:
    lines = vitbench("--help").out.splitlines()
    assert all(line.startswith("  vitbench ") for line in lines[:5])
    for name in cli.COMMANDS:
        assert any(line.startswith(f"  {name} ") for line in lines)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from vitbench import cli; cli.run(['--help']);"
        "sys.exit(', '.join({'torch', 'hydra', 'numpy', 'pandas', 'rich'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "sweep",
        "probe",
        "table",
        "plot",
        "fit",
        "report",
        "inspect",
        "advise",
        "predict",
        "export",
        "features",
        "doctor",
        "clean",
        "pack",
        "merge",
        "watch",
        "track",
    ],
)
def test_hydras_own_flags_answer_without_torch_and_leave_nothing(tmp_path: Path, command: str) -> None:
    code = f"""
import contextlib, io, sys
from vitbench import cli
for flags in ["--help"], ["--cfg", "job"], ["--info", "defaults"]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try: code = cli.run([{command!r}, *flags])
        except SystemExit as end: code = end.code
    assert not code and out.getvalue().strip(), flags
    if flags == ["--help"]: assert out.getvalue().startswith("  vitbench {command}"), "it opens with commands to copy"
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


MISTAKES = {
    "a command": (["trian"], "did you mean train"),
    "a model": (["train", "model=vitt"], "model=vitt: did you mean vit?"),
    "an encoding": (["train", "pe=ropee"], "pe=ropee: did you mean rope"),
    "a data set": (["train", "data=cifar"], "did you mean cifar10"),
    "a recipe": (["train", "optim=vitt"], "optim=vitt: did you mean vit?"),
    "an augmentation": (["train", "augment=lite"], "augment=lite: did you mean light?"),
    "a key": (["train", "modell=vit"], "modell=vit: no such setting of `vitbench train`; did you mean model?"),
    "a nested key": (["train", "data.fracton=0.1"], "did you mean data.fraction"),
    "an option of the model": (["train", "model.widht=3"], "did you mean model.width"),
    "an option of another encoding": (["train", "pe=none", "pe.theta=3"], "pe.theta=3: no such setting"),
    "an added key": (["train", "+modell=vit"], "+modell=vit: settings cannot be added or removed"),
    "a removed key": (["train", "~pe"], "~pe: settings cannot be added or removed"),
    "steps and epochs": (
        ["train", "optim.steps=5", "optim.epochs=2"],
        "optim.steps=5 and optim.epochs=2: give one of them",
    ),
    "a key given twice": (["train", "pe=none", "pe=rope"], "pe is given twice: pe=none and pe=rope"),
    "no number": (["advise", "minutes=two"], "minutes=two: must be a number"),
    "no folder": (["advise"], "type the folder of your photographs, data.root=FOLDER"),
    "a bare word": (["train", "vit"], "vit: settings are typed key=value"),
    "text for a number": (["train", "seed=abc"], "seed=abc"),
    "no value": (["train", "seed="], "seed="),
    "a negative seed": (["train", "seed=-1"], "seed=-1: must be 0 to"),
    "a setting of another model": (["train", "model.sharing=false"], "it is a setting of model=resnet"),
    "a setting of other images": (["train", "data=mnist", "data.online=true"], "it is a setting of data=shapes"),
    "text for a model's number": (["train", "model.width=abc"], "model.width=abc: must be a whole number or null"),
    "a fraction of 0": (["train", "data.fraction=0"], "data.fraction=0.0: must be above 0 and at most 1"),
    "a negative fraction": (["train", "data.fraction=-1"], "data.fraction=-1.0: must be above 0"),
    "a fraction above 1": (["train", "data.fraction=1.5"], "data.fraction=1.5: must be above 0"),
    "a fraction of nan": (["train", "data.fraction=nan"], "data.fraction=nan: must be above 0"),
    "both sizes": (["train", "data.fraction=0.5", "data.count=10"], "give one of them"),
    "an empty batch": (["train", "optim.batch_size=0"], "optim.batch_size=0: must be 1 or more"),
    "an unknown optimizer": (["train", "optim.optimizer=adam"], "optim.optimizer=adam: did you mean adamw?"),
    "an encoding of a CNN": (
        ["train", "model=resnet", "pe=rope"],
        "resnet is not a ViT and takes no position encoding; drop pe=rope",
    ),
    "a mirror that changes the class": (["train", "data.task=relation", "augment=light"], "add data.flip=false"),
    "an open list": (["train", "data.fraction=[1,2"], "data.fraction=[1,2"),
    "a missing interpolation": (
        ["train", "optim.steps=${nope}"],
        "optim.steps=${nope}: Interpolation key 'nope' not found",
    ),
    "where images come from": (
        ["train", "machine.images=cash"],
        "machine.images=cash: did you mean cache? choices: auto, cache, files, memory",
    ),
    "a device": (["train", "machine.device=gpu"], "machine.device=gpu: must be auto, cpu, cuda or cuda:N"),
    "a device by its number": (["train", "machine.device=0"], "machine.device=0: must be auto, cpu, cuda or cuda:N"),
    "a device of a probe": (["probe", "run=x", "machine.device=gpu"], "machine.device=gpu: must be auto, cpu, cuda or"),
    "threads of a probe": (["probe", "run=x", "machine.threads=-1"], "machine.threads=-1: must be 1 or more"),
    "rerunning a file": (["train", "--experimental-rerun=x"], "--experimental-rerun=x is refused"),
    "rerunning a file, abbreviated": (["train", "--experimental=x"], "--experimental=x is refused"),
    "an unknown flag": (["train", "--mutlirun"], "--mutlirun: did you mean --multirun"),
    "a flag's value": (["train", "--cfg", "foo"], "--cfg foo: choices: all, hydra, job"),
    "an empty choice": (["train", "model=null"], "model=null: a choice cannot be empty"),
    "the inner name of a choice": (["train", "data.source=cifar10"], "data.source=cifar10: type data=cifar10"),
    "an encoding as a setting": (["train", "model.pe=rope"], "model.pe=rope"),
    "no folder of runs": (["train", "runs="], "runs=: must not be empty"),
    "a seed of many digits": (["train", "seed=99999999999"], "seed=99999999999: must be 0 to 4294967295"),
    "several values": (["train", "seed=0,1"], "seed=0,1: several values; -m runs them all"),
    "several values of a setting that is the encoding's": (
        ["train", "pe=rope", "pe.theta=1,2"],
        ": pe.theta=1,2: several",
    ),
    "an option that the encoding has not": (
        ["train", "pe=rope", "pe.thta=1"],
        ": pe.thta=1: no such setting of `vitbench train`; did you mean pe.theta?",
    ),
    "an option of the encoding twice": (
        ["train", "pe.theta=1", "pe.theta=2"],
        "pe.theta is given twice: pe.theta=1 and pe",
    ),
    "several networks": (["probe", "model=a,b"], "model=a,b: has several values; model= takes one network"),
    "a list of networks": (["probe", "model=[a,b]"], "model=[a,b]: Cannot convert"),
    "a word near model": (["probe", "modl=timm"], "modl=timm: no such setting of `vitbench probe`; did you mean model"),
    "several runs": (["probe", "run=a,b"], "run=a,b: several values; a list is typed run=[a,b]"),
    "a table of many": (["table", "-m", "where.seed=1"], "vitbench table has no --multirun"),
    "a study": (["sweep", "study=quickstrat"], "did you mean quickstart?"),
    "no study": (["sweep"], "study=NAME is missing"),
    "a checkpoint that is a pickle": (
        ["train", "init=net.pth"],
        "init=net.pth: must be a run's id below runs=, or a file",
    ),
    "a file of weights": (["train", "init=net.safetensors"], "init=net.safetensors: no such file"),
    "no init": (["train", "init="], "init=: must not be empty"),
    "a new head of nothing": (["train", "head=new"], "head=new: without init= every head is new; drop it"),
    "what is frozen": (["train", "freeze=head"], "freeze=head: choices: backbone, none"),
    "words of an init": (["train", "init=data.fracton=1"], "init='data.fracton=1': data.fracton=1: no such setting"),
    "an init of another model": (["train", "init=model=resnet"], "a run can only begin from a run of its own model"),
    "no encoding": (["train", "pe=null"], "pe=null: type pe=none for a ViT without a position encoding"),
    "words of several runs": (["train", "init=seed=1,2"], "init='seed=1,2': seed=1,2: has several values"),
    "an open quote in an init": (["train", "init=seed='1"], "a quote is not closed"),
    "one class": (["train", "data.classes=[3]"], "data.classes=[3]: must be two or more numbers of classes"),
    "a class twice": (["train", "data.classes=[3,3]"], "data.classes=[3,3]: must be two or more numbers of classes"),
    "a turn that changes the class": (
        ["train", "data.task=relation", "augment.rotate=90"],
        "augment.rotate=90: such angles change the class",
    ),
    "endless epochs": (["train", "optim.epochs=1e308"], "optim.epochs=1e+308: must be above 0 and at most 1,000,000"),
    "a decay above 1": (["train", "optim.layer_decay=1.5"], "optim.layer_decay=1.5: must be above 0 and at most 1"),
    "a switch that is neither": (["check", "repair=maybe"], "repair=maybe: must be true or false"),
    "a key without its group": (
        ["train", "steps=5"],
        "steps=5: no such setting of `vitbench train`; did you mean optim.st",
    ),
    "a choice that is a folder": (
        ["train", "data=./pets"],
        "data=./pets: a choice is a name, not a file; data=imagefolder",
    ),
    "a file name with a line break": (["train", "runs=a\nb"], "a setting can have no line breaks"),
    "an encoding of a CNN in a sweep": (["sweep", "study=quickstart", "pe=rope"], "resnet is not a ViT"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_slip_gets_one_line_with_what_would_be_right(vitbench: Cli, tmp_path: Path, mistake: str) -> None:
    words, expected = MISTAKES[mistake]
    output = vitbench(*words)
    assert output.code == 2
    assert expected in output.err
    assert output.err.startswith("vitbench: ") and output.err.count("\n") == 1
    assert output.out == ""
    assert list(tmp_path.iterdir()) == []


LATE = {  # these slips show only once the model or the images are known
    "no patch divides the image": (["data.image_size=30"], "model.patch_size=4"),
    "heads do not divide the width": (["model.width=64", "model.heads=7"], "model.heads=7"),
    "an unknown size": (["model.size=smal"], "did you mean small"),
    "a share without a class": (["data.fraction=0.001"], "data.fraction=0.001"),
    "more images than there are": (["data.count=100000"], "data.count=100000"),
    "a class that is not there": (
        ["data.classes=[0,10]"],
        "data.classes: there is no class 10; these images have 10, 0 to 9",
    ),
    "a run that is not there": (["init=vit-f1-s0-00000000"], "init=vit-f1-s0-00000000: no finished run in runs=runs"),
    "a run that is still to be trained": (
        ["init=data.fraction=1", "data.fraction=0.5"],
        "it is trained by: vitbench train",
    ),
    "a GPU that is not there": (["machine.device=cuda:7"], "machine.device=cuda:7"),
}


@pytest.mark.parametrize("mistake", LATE)
def test_a_slip_that_shows_late_is_one_line_too(vitbench: Cli, mistake: str) -> None:
    words, expected = LATE[mistake]
    output = vitbench("train", "data.train_images=200", "data.test_images=50", *words)
    assert output.code in (2, 3)
    assert expected in output.err and output.err.count("\n") == 1


def test_a_missing_image_folder_is_a_data_error_with_the_layout(vitbench: Cli, tmp_path: Path) -> None:
    output = vitbench("train", "data=imagefolder", f"data.root={tmp_path / 'nowhere'}")
    assert output.code == 3 and "nowhere" in output.err and output.err.count("\n") == 1


def test_runs_in_a_read_only_place_are_a_storage_error(vitbench: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    output = vitbench("train", "data.train_images=200", "data.test_images=50", f"runs={tmp_path / 'file'}")
    assert output.code == 4 and str(tmp_path / "file") in output.err


def test_multirun_is_hydras_own(vitbench: Cli, tmp_path: Path) -> None:
    tiny = ["data.train_images=200", "data.test_images=50", "data.image_size=16", "optim.steps=1", "runs=r"]
    assert vitbench("train", *tiny, "seed=0,1", "-m").code == 0
    assert len(list((tmp_path / "r").glob("*/record.json"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.mark.slow
def test_help_answers_in_under_a_third_of_a_second(tmp_path: Path) -> None:
    """The limit is generous, because it only guards against an import of Hydra, pandas or torch on this path."""
    best = 9.0
    for _ in range(5):
        begin = time.monotonic()
        process("--help", cwd=tmp_path).communicate()
        best = min(best, time.monotonic() - begin)
    assert best < 0.3


CONFIG_FILES = {
    "tabs": (b"name: vit\n\tsize: nano", "is not valid YAML"),
    "a key twice": (b"name: vit\nname: vit", "name is given twice"),
    "a list": (b"- vit", "must hold settings"),
    "empty": (b"", "must hold settings"),
    "not UTF-8": ("name: é".encode("latin-1"), "is not UTF-8 text"),
    "code": (b"name: !!python/object/apply:os.system ['touch executed']", "is not valid YAML"),
    "an alias bomb": (
        b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 120)),
        "aliases",
    ),
}


@pytest.mark.parametrize("kind", CONFIG_FILES)
def test_a_broken_file_in_a_folder_of_ones_own_is_named(vitbench: Cli, tmp_path: Path, kind: str) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_bytes(CONFIG_FILES[kind][0])
    output = vitbench("train", "model=mine", "--config-dir", str(tmp_path / "conf"))
    assert output.code == 2 and "mine.yaml" in output.err and CONFIG_FILES[kind][1] in output.err
    assert output.err.count("\n") == 1 and not (tmp_path / "executed").exists()


def test_an_option_of_ones_own_is_a_yaml_in_a_folder(vitbench: Cli, tmp_path: Path) -> None:
    (tmp_path / "conf" / "augment").mkdir(parents=True)
    text = "defaults:\n  - /schema_augment@_here_\n  - _self_\nname: mirror\nflip: true\n"
    (tmp_path / "conf" / "augment" / "mirror.yaml").write_text(text)
    words = ["data.train_images=200", "data.test_images=50", "data.image_size=16", "optim.steps=1", "runs=r"]
    assert vitbench("train", "--config-dir", str(tmp_path / "conf"), *words, "augment=mirror").code == 0
    assert "flip: true" in next((tmp_path / "r").glob("*/config.yaml")).read_text()


def test_multirun_goes_on_after_a_failing_job_and_tells_it_by_its_exit_code(vitbench: Cli, tmp_path: Path) -> None:
    tiny = ["data.train_images=200", "data.test_images=50", "data.image_size=16", "optim.steps=1", "runs=r"]
    output = vitbench("train", "-m", *tiny, "data.count=100000,50")
    assert output.code == 2 and output.err.count("data.count=100000") == 1
    assert len(list((tmp_path / "r").glob("*/record.json"))) == 1


def test_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", "from vitbench.cli import main; main()", "ls", "models"]
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 4 and done.stderr.count("\n") == 1 and "No space left" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.\nmore lines"),
    ],
)
def test_memory_that_ran_out_is_one_line_in_every_command(
    vitbench: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def runs_out(*_: object) -> None:
        raise error

    monkeypatch.setattr("vitbench.training.train.main", runs_out)
    output = vitbench("train")
    assert output.code == 1 and output.err.startswith("vitbench: memory ran out (") and output.err.count("\n") == 1


def test_other_errors_of_these_kinds_keep_their_traceback(vitbench: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def has_a_bug(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("vitbench.training.train.main", has_a_bug)
    with pytest.raises(RuntimeError, match="a bug"):
        vitbench("train")


def test_an_end_before_anything_could_be_saved_is_said(
    vitbench: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vitbench.training.train.main", lambda config: sys.exit(143))
    with pytest.raises(SystemExit) as end:
        vitbench("train")
    said = capsys.readouterr().err
    assert end.value.code == 143 and said == "vitbench: ended by a signal, before anything could be saved\n"


@pytest.mark.parametrize("word", ["{}", "data.root={}", "data.labels={}", "runs={}", "init={}.safetensors"])
def test_a_name_that_is_too_long_for_a_file_is_one_line(vitbench: Cli, word: str) -> None:
    data = ["data=imagefolder", "data.root=."] if word.startswith("data.labels") else ["data=imagefolder"]
    output = vitbench("train", *data[: 2 if word.startswith("data.labels") else 1], word.format("x" * 5000))
    assert output.code in (2, 3, 4) and output.err.count("\n") == 1, output.err
