from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Output
from tests.upkeep.test_clean import begun, everything, finished
from vitbench.upkeep import doctor, folder_findings, machine_findings
from vitbench.upkeep.finding import DISK, GOOD, LOOK, SETTING, WRONG, Finding, spoken_bytes
from vitbench.upkeep.machine_findings import Packages

Cli = Callable[..., Output]
WHOLE = Packages({}, [], 2, None)  # all can be imported, and there is no GPU


@pytest.fixture
def examined(vitbench: Cli, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Output]:
    """`vitbench doctor` on an ordinary machine, in an empty folder."""
    for name in (*machine_findings.DANGEROUS, *machine_findings.THREADS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine_findings, "look_at_packages", lambda: WHOLE)
    monkeypatch.setattr(folder_findings, "LITTLE_ROOM", 0)
    monkeypatch.setattr(folder_findings, "NO_ROOM", 0)
    monkeypatch.setattr(folder_findings, "PASSING", {})
    return lambda *words: vitbench("doctor", "data.cache=c", *words)


def found(output: Output, what: str) -> dict[str, Any]:
    """The finding of this name in what was printed as JSON."""
    (one,) = [each for each in json.loads(output.out)["findings"] if each["what"] == what]
    return dict(one)


def test_a_fit_machine_has_exit_code_0_and_nothing_is_written(examined: Callable[..., Output], tmp_path: Path) -> None:
    begun(tmp_path / "runs")
    before = everything(tmp_path)
    told = examined()
    assert told.code == 0 and "0 wrong" in told.out and everything(tmp_path) == before
    assert not [line for line in told.out.splitlines() if line.startswith("wrong")]
    assert "torch" in told.out and max(map(len, told.out.splitlines())) <= 120


def test_json_has_every_line_and_every_version(examined: Callable[..., Output]) -> None:
    told = json.loads(examined("format=json").out)
    assert told["exit_code"] == 0 and {"python", "torch", "hydra-core", "filelock", "timm"} <= told["versions"].keys()
    assert {one["part"] for one in told["findings"]} == {"versions", "machine", "folders", "environment"}
    assert {one["verdict"] for one in told["findings"]} <= {GOOD, LOOK}
    assert examined("format=csv").code == 2


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([Finding("a", "", LOOK)], 0),
        ([Finding("a", "", WRONG)], SETTING),
        ([Finding("a", "", WRONG), Finding("b", "", WRONG, exit_code=DISK)], DISK),
    ],
)
def test_the_exit_code_is_that_of_what_is_wrong(findings: list[Finding], code: int) -> None:
    assert doctor.exit_code({"machine": findings}) == code


# ------------------------------------------------------------------------------------------------------------ packages


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("raise ImportError('libc10.so: cannot open')", "ImportError: libc10.so: cannot open"),
        ("import os; os.kill(os.getpid(), 11)", "importing it ends Python with code -11"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("print('{'); raise OSError('no\\nGPU')", "OSError: no GPU"),
        ("import time; time.sleep(60)", "importing it takes more than 2 s"),
    ],
)
def test_a_broken_torch_is_told_and_breaks_nothing(
    code: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(machine_findings, "IMPORTED", ("json", "torch"))
    monkeypatch.setattr(machine_findings, "SECONDS_TO_IMPORT", 2)
    packages = machine_findings.look_at_packages()
    assert packages.broken.keys() == {"torch"}
    (broken,) = [one for one in machine_findings.of_versions(packages) if one.what == "torch"]
    assert broken.verdict == WRONG and line in broken.means and "pip install" in broken.type


def test_it_does_not_import_torch_itself(tmp_path: Path) -> None:
    code = (
        "import sys; from vitbench import cli; from vitbench.upkeep import machine_findings\n"
        "machine_findings.IMPORTED = ()\n"
        "code = cli.run(['doctor', 'data.cache=c'])\n"
        "assert 'torch' not in sys.modules and code in (0, 2, 4), code"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_packages_that_are_here_work() -> None:
    packages = machine_findings.look_at_packages()
    assert not packages.broken and packages.threads and packages.threads >= 1


def test_an_old_package_is_wrong_with_the_command_that_renews_it(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"filelock": "3.16.0", "torch": None, "timm": None}
    monkeypatch.setattr(machine_findings, "_version", lambda name: versions.get(name, "99"))
    monkeypatch.setattr(machine_findings, "_extra", lambda line: "")
    by_name = {one.what: one for one in machine_findings.of_versions(WHOLE)}
    assert by_name["filelock"].verdict == WRONG and by_name["filelock"].type.startswith("pip install 'filelock>=3.")
    assert by_name["torch"].verdict == WRONG and by_name["torch"].found == "not installed"
    assert by_name["timm"].verdict == GOOD and "vitbench[timm]" in by_name["timm"].means


def test_a_gpu_that_does_not_compute_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [
        {"name": "A", "free": 10**10, "memory": 2 * 10**10, "error": None},
        {"name": "B", "error": "no kernel image is available"},
    ]
    one, other = (
        finding for finding in machine_findings.of_hardware(Packages({}, gpus)) if finding.what.startswith("GPU")
    )
    assert one.verdict == GOOD and one.found == "A, 10 GB of 20 GB free"
    assert other.verdict == WRONG and "no kernel image" in other.means


# --------------------------------------------------------------------------------------------------------- environment


def environment(**variables: str) -> dict[str, Finding]:
    given = {"HOME": "/home/me", **variables}
    return {one.what: one for one in machine_findings.of_environment(given)}


@pytest.mark.parametrize("name", machine_findings.DANGEROUS)
def test_a_dangerous_variable_is_told_with_what_removes_it(name: str) -> None:
    finding = environment(**{name: "7"})[name]
    assert finding.verdict in (LOOK, WRONG) and finding.means.startswith("It ") and finding.type == f"unset {name}"
    assert name not in environment() and name not in environment(**{name: ""})


@pytest.mark.parametrize(("name", "value"), [(name, values[0]) for name, values in machine_findings.HARMLESS.items()])
def test_a_harmless_value_is_not_told(name: str, value: str) -> None:
    assert name not in environment(**{name: value})


def test_code_in_weights_is_the_variable_that_is_wrong() -> None:
    assert environment(TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"].verdict == WRONG
    assert environment(PYTHONPATH="/a")["PYTHONPATH"].verdict == LOOK


@pytest.mark.parametrize(
    ("value", "verdict"), [("100000", LOOK), ("abc", LOOK), ("-1", LOOK), ("9" * 30, LOOK), ("1", GOOD)]
)
def test_a_number_of_threads_that_slows_everything_is_told(value: str, verdict: str) -> None:
    assert environment(OMP_NUM_THREADS=value)["OMP_NUM_THREADS"].verdict == verdict


def test_a_quota_below_the_cores_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_findings, "processor_quota", lambda: 1.5)
    monkeypatch.setattr(machine_findings, "cores", lambda: 8)
    processors = next(one for one in machine_findings.of_hardware(WHOLE) if one.what == "processors")
    assert processors.verdict == LOOK and processors.type == "export OMP_NUM_THREADS=1" and "1.5" in processors.found
    assert environment(OMP_NUM_THREADS="2")["OMP_NUM_THREADS"].verdict == LOOK


def test_no_home_is_told() -> None:
    assert {one.what for one in machine_findings.of_environment({})} >= {"HOME"} and "HOME" not in environment()


# ------------------------------------------------------------------------------------------------------------- folders


def a_file(place: Path) -> None:
    place.write_text("x")


def a_link_to_nowhere(place: Path) -> None:
    place.symlink_to(place.parent / "nowhere")


def a_loop(place: Path) -> None:
    place.symlink_to(place)


@pytest.mark.parametrize("make", [a_file, a_link_to_nowhere, a_loop])
@pytest.mark.parametrize("below", ["", "/deeper/still"])
@pytest.mark.parametrize("setting", ["runs", "results", "data.cache"])
def test_what_is_no_folder_is_wrong_with_exit_code_4(
    make: Callable[[Path], None], below: str, setting: str, examined: Callable[..., Output], tmp_path: Path
) -> None:
    make(tmp_path / "place")
    told = doctor.examine(
        **{
            **{"runs": tmp_path / "r", "results": tmp_path / "x", "cache": tmp_path / "c"},
            setting.removeprefix("data."): tmp_path / f"place{below}",
        }
    )
    (finding,) = [one for one in told["folders"] if one.what == f"{setting}="]
    assert finding.verdict == WRONG and "where a folder is needed" in finding.means
    assert doctor.exit_code(told) == DISK


def test_a_disk_that_cannot_be_written_is_wrong(
    examined: Callable[..., Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**options: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(folder_findings.tempfile, "TemporaryFile", refused)
    told = examined("format=json")
    assert told.code == DISK and "cannot be written: Read-only file system" in found(told, "runs=")["means"]


def test_a_disk_without_locks_is_wrong(examined: Callable[..., Output], monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refused(*arguments: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    told = examined("format=json")
    assert told.code == DISK and "two processes could train the same run" in found(told, "runs=")["means"]


def test_little_room_is_told(examined: Callable[..., Output], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_findings, "LITTLE_ROOM", 10**18)
    told = examined("format=json")
    assert told.code == 0 and found(told, "data.cache=")["verdict"] == LOOK
    monkeypatch.setattr(folder_findings, "NO_ROOM", 10**18)
    assert examined().code == DISK


@pytest.mark.parametrize(
    ("kind", "verdict"), [("ext4", GOOD), ("nfs4", LOOK), ("cifs", LOOK), ("fuse.sshfs", LOOK), ("tmpfs", LOOK)]
)
def test_a_file_system_that_matters_is_told(
    kind: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_findings, "LITTLE_ROOM", 0)
    monkeypatch.setattr(folder_findings, "NO_ROOM", 0)
    mounts = tmp_path / "mountinfo"
    place = str(tmp_path / "a b").replace(" ", "\\040")
    mounts.write_text(f"1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {place} rw shared:1 - {kind} server:/x rw\n3 torn\n")
    (tmp_path / "a b").mkdir()
    assert folder_findings.file_system(tmp_path / "a b", mounts) == kind
    assert folder_findings.file_system(tmp_path, mounts) == "ext4"
    monkeypatch.setattr(folder_findings, "file_system", lambda folder: kind)
    assert folder_findings.of_folder("runs", tmp_path).verdict == verdict


# --------------------------------------------------------------------------------------------------------------- locks


def test_who_holds_what_is_told(examined: Callable[..., Output], tmp_path: Path) -> None:
    from vitbench.runs.run import Run

    folder = begun(tmp_path / "runs")
    with Run(folder, {}).claim():
        told = found(examined("format=json"), "held now")["found"]
    assert told.startswith(f"1 lock: {folder.name} by process {os.getpid()} on ")
    assert found(examined("format=json"), "held now")["found"] == "nothing"


def test_what_a_killed_process_left_is_told_and_what_a_finished_run_left_is_not(
    examined: Callable[..., Output], tmp_path: Path
) -> None:
    folder, ended = begun(tmp_path / "runs"), finished(tmp_path / "runs")
    for each in (folder, ended):
        (each / ".holder.json").write_text(json.dumps({"pid": 7, "host": "a"}))
    told = examined("format=json")
    assert told.code == 0 and found(told, "killed runs")["found"] == folder.name


def test_a_run_of_somebody_else_is_wrong_and_names_the_owner(
    examined: Callable[..., Output], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ended = begun(tmp_path / "runs"), finished(tmp_path / "runs")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != ".lock")
    (ended / ".lock").touch()
    told = examined("format=json")
    rights = found(told, "rights")
    assert told.code == DISK and f"{folder.name}/.lock of user " in rights["found"]
    assert ended.name not in rights["found"]


@pytest.mark.parametrize(("size", "words"), [(5, "5 bytes"), (1_500, "1.5 kB"), (71e9, "71 GB"), (2.5e12, "2.5 TB")])
def test_sizes_are_spoken(size: float, words: str) -> None:
    assert spoken_bytes(size) == words
