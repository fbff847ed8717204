"""The plan for a GPU that is lent for minutes, `tools/gpu.py`, rehearsed on a CPU."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import gpu
from vitbench.errors import UserError
from vitbench.machine.provenance import commit
from vitbench.runs.run import read_metrics
from vitbench.timing.menu import MENU

ROOT = Path(__file__).parent.parent
OF_PROCESSORS = {"defaults", "parallel", "timm"}  # rows that say nothing of a GPU


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_every_row_of_the_bench_is_in_the_plan_or_is_of_processors() -> None:
    assert {*gpu.ROWS} | OF_PROCESSORS == {*MENU} and not {*gpu.ROWS} & OF_PROCESSORS


def test_the_page_says_of_every_row_and_every_test_what_came_out() -> None:
    page = (ROOT / "docs" / "how-to" / "gpu.md").read_text()
    code = "".join(path.read_text() for path in ROOT.glob("tests/gpu/test_*.py"))
    for name in (*gpu.ROWS, *re.findall(r"^def (test_\w+)", code, re.MULTILINE)):
        assert f"\n| `{name}` | " in page, name


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("limit=soon", "limit=soon: must be a number of seconds, such as limit=120"),
        ("lmit=540", "lmit=540: did you mean limit"),
        ("rehearse=yes", "rehearse=yes: did you mean rehearse=true"),
        ("rows=[peek]", "rows=peek: did you mean peak"),
        ("sweeps=tinny", "sweeps=tinny: did you mean tiny"),
    ],
)
def test_a_slip_is_one_line(word: str, line: str) -> None:
    with pytest.raises(UserError) as error:
        gpu.Options.typed([word])
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


def test_a_later_word_takes_the_place_of_an_earlier_one() -> None:
    assert gpu.merged("a=1 b=2", "b=3 c=4", "") == ["a=1", "b=3", "c=4"]


def test_a_step_ends_in_time_whatever_it_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "SECONDS_TO_END", 1.0)
    plan = gpu.Plan(limit=gpu.MARGIN + 60)
    assert plan.do("good", program("")) and not plan.failed
    begin = time.monotonic()
    saving = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); time.sleep(60)"
    assert not plan.do("saves", program(saving), at_most=1)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    assert not plan.do("deaf", program(deaf), at_most=1)
    assert time.monotonic() - begin < 6 and not plan.failed  # to be cut off is no failure
    assert plan.do("bad", program("raise SystemExit(3)")) and plan.failed
    assert not plan.do("later", program(""), keep=60)
    outcomes = [re.sub(r" \d+ s$", "", outcome) for outcome in plan.outcomes.values()]
    assert outcomes == ["done in", "cut off after", "cut off after", "FAILED with exit code 3 after", "no time left"]


def test_no_process_of_a_step_outlives_it(tmp_path: Path) -> None:
    child = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    starts_another = f"""
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {child!r}], cwd={str(tmp_path)!r})
while not os.path.exists({str(tmp_path / "pid")!r}) or not open({str(tmp_path / "pid")!r}).read(): time.sleep(0.01)
"""
    assert gpu.Plan(limit=100).do("starts another", program(starts_another))
    stat = Path("/proc", (tmp_path / "pid").read_text(), "stat")
    time.sleep(0.2)
    assert not stat.exists() or " Z " in stat.read_text()


def run_folder(folder: Path, state: int = 0, ended: bool = True) -> Path:
    """The files of a run, with a state of so many bytes."""
    folder.mkdir(parents=True)
    for file in ("config.yaml", "metrics.csv", ".lock", "labels.npy", *(["record.json"] if ended else [])):
        (folder / file).write_text(file)
    for file in ("state.safetensors", "state.previous.safetensors", "checkpoint.safetensors"):
        (folder / file).write_bytes(b"x" * state)
    return folder


def test_an_archive_has_what_resuming_and_a_report_need_and_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "ARCHIVED_BYTES", 150)
    runs, archive = tmp_path / "runs", tmp_path / "out" / "runs.tar.gz"
    archive.parent.mkdir()
    run_folder(runs / gpu.STUDY / "ended", state=10)
    run_folder(runs / gpu.STUDY / "half", state=100, ended=False)
    run_folder(runs / "small" / "large", state=200, ended=False)
    run_folder(runs / "speed" / "timed")
    (runs / "small" / ".plans").mkdir()
    (runs / "small" / ".plans" / "study.json").write_text("{}")
    line = gpu.pack(runs, archive)
    assert "3 runs, 1 of them ended" in line and "1 of 2 states are too large for the archive and stay in" in line
    there = tmp_path / "there"
    run_folder(there / "small" / "large")
    (there / "small" / "large" / "config.yaml").write_text("newer")
    assert gpu.unpack(archive, there).startswith("2 runs unpacked")
    files = {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()}
    always = {"config.yaml", "metrics.csv", "labels.npy"}
    assert {Path(file).name for file in files if "/ended/" in file} == {*always, "record.json"}
    assert {Path(file).name for file in files if "/half/" in file} == {*always, "state.safetensors"}
    assert "small/.plans/study.json" in files and not any("speed" in file for file in files)
    assert (there / "small" / "large" / "config.yaml").read_text() == "newer"


def test_what_is_no_archive_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs.tar.gz").write_text("no archive")
    with pytest.raises(UserError, match=r"runs\.tar\.gz is not an archive of runs"):
        gpu.unpack(tmp_path / "runs.tar.gz", tmp_path / "runs")


def test_an_earlier_call_is_brought_from_its_folder_or_its_archive(tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (before / "bench-h.json").write_text("before")
    tarfile.open(before / "runs.tar.gz", "w:gz").close()
    for source, files in ((before, {"bench-h.json", "runs.tar.gz"}), (before / "runs.tar.gz", {"runs.tar.gz"})):
        out = tmp_path / f"out{len(files)}"
        out.mkdir()
        gpu.bring(gpu.Options(out=out, source=source))
        assert {path.name for path in out.iterdir()} == files
        (out / "runs.tar.gz").write_text("newer")
        gpu.bring(gpu.Options(out=out, source=source))
        assert (out / "runs.tar.gz").read_text() == "newer"
    with pytest.raises(UserError, match=r"from=.*nowhere: no such file or folder"):
        gpu.bring(gpu.Options(out=out, source=tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"from=.*bench-h.json: is not a runs.tar.gz"):
        gpu.bring(gpu.Options(out=tmp_path, source=before / "bench-h.json"))
    assert not (tmp_path / "runs.tar.gz").exists()


def test_rows_of_another_commit_are_measured_again(tmp_path: Path) -> None:
    figures = [{"row": "peak", "commit": commit()}, {"row": "loop", "commit": "another"}]
    (tmp_path / "bench.json").write_text(json.dumps({"figures": figures}))
    assert gpu.rows_of(tmp_path / "bench.json") == {"peak"}
    assert gpu.rows_of(tmp_path / "nowhere.json") == set()


def test_after_a_step_that_fails_the_others_are_done_and_the_exit_code_is_1(
    handlers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(command: str, *words: str) -> list[str]:
        return program(f"raise SystemExit({3 if command == 'bench' else 0})")

    def broken(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(gpu, "vitbench", fake)
    monkeypatch.setattr(gpu, "report", broken)
    code = gpu.main(["rehearse=true", "tests=0", f"out={tmp_path / 'out'}", f"runs={tmp_path / 'runs'}"])
    summary = capsys.readouterr().out.split("in short:\n")[1].splitlines()
    assert code == 1
    assert [re.sub(r" \d+ s$", "", line) for line in summary] == [
        "  bench peak: FAILED with exit code 3 after",
        f"  sweep {gpu.STUDY}: done in",
        "  report: FAILED: ZeroDivisionError('ours')",
        "  sweep small: done in",
        "  sweep tiny: done in",
    ]
    assert (tmp_path / "out" / "runs.tar.gz").exists()


@pytest.mark.slow
def test_tests_that_passed_before_they_were_cut_off_are_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tests" / "gpu"
    folder.mkdir(parents=True)
    (folder / "test_some.py").write_text(
        "import pathlib, pytest, time\n"
        "@pytest.mark.parametrize('case', ['one', 'two, with words'])\n"
        "def test_quick(case): pathlib.Path('quick').open('a').write(case + ';')\n"
        "def test_long():\n"
        "    if not pathlib.Path('begun').exists():\n"
        "        pathlib.Path('begun').touch(); time.sleep(60)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu, "TESTS", ["tests/gpu"])
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)  # one after the other, so that it is known what passed
    plan = gpu.Plan(limit=100)

    def stop() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        plan.stopped = True

    threading.Thread(target=stop).start()
    for card, outcome, quick in (
        ("A", "cut off after", "one;two, with words;"),
        ("A", "done in", "one;two, with words;"),
        ("A", "done before", "one;two, with words;"),
        ("B", "done in", "one;two, with words;" * 2),
    ):
        gpu.test(plan, gpu.Options(out=tmp_path), card)
        assert plan.outcomes["tests"].startswith(outcome) and not plan.failed
        assert (tmp_path / "quick").read_text() == quick
        plan.stopped = False


def test_a_signal_ends_the_step_and_the_runs_are_packed(
    handlers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "vitbench", lambda command, *words: program("import time; time.sleep(60)"))
    monkeypatch.setattr(gpu, "tell_speed", lambda *_: None)
    threading.Timer(2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    words = ["rehearse=true", "tests=0", "bench=0", f"out={tmp_path / 'out'}", f"runs={tmp_path / 'runs'}"]
    assert gpu.main(words) == 75
    summary = capsys.readouterr().out.split("in short:\n")[1]
    assert f"sweep {gpu.STUDY}: cut off after" in summary and "sweep small: no time left" in summary
    assert (tmp_path / "out" / "runs.tar.gz").exists()


def rehearsal(tmp_path: Path, *words: str) -> tuple[int, str]:
    """The exit code and the output of `make gpu rehearse=true`, with out/ and runs/ where the words say no other."""
    typed = gpu.merged(f"out={tmp_path / 'out'} runs={tmp_path / 'runs'} rehearse=true")
    typed = [word for word in typed if word.partition("=")[0] not in {one.partition("=")[0] for one in words}]
    command = [sys.executable, str(ROOT / "tools" / "gpu.py"), *typed, *words]
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


@pytest.mark.slow
def test_the_whole_plan_leaves_its_files_and_again_does_nothing_twice(tmp_path: Path) -> None:
    sweeps = f"sweeps={gpu.STUDY},small"  # the third would take as long as the second
    code, output = rehearsal(tmp_path, sweeps)
    assert code == 0, output
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    (bench,) = (file for file in files if re.fullmatch(r"bench-[a-z0-9-]+\.json", file))
    evidence = {f"results/{gpu.STUDY}/runs.csv", f"results/{gpu.STUDY}/study.yaml"}
    assert files == {bench, "test-gpu.txt", "runs.tar.gz", *evidence}
    assert "steps a second" in output and "s are left for the sweeps" in output
    records = {path: path.read_bytes() for path in tmp_path.glob("runs/*/*/record.json")}
    assert len(records) == 3 * 2  # of the two sweeps, and of the measurement of speed
    measured = (tmp_path / "out" / bench).read_bytes()
    code, output = rehearsal(tmp_path, sweeps)
    assert code == 0, output
    assert "tests: done before" in output and "bench peak: done before" in output and "nothing to do" in output
    assert {path: path.read_bytes() for path in tmp_path.glob("runs/*/*/record.json")} == records
    assert (tmp_path / "out" / bench).read_bytes() == measured


@pytest.mark.slow
def test_a_sweep_that_the_limit_cuts_off_goes_on_elsewhere_from_its_archive(tmp_path: Path) -> None:
    words = ["tests=0", "bench=0", "sweeps=small", "words=optim.steps=400 eval_every=10"]
    for limit in range(45, 90, 5):  # a slow machine begins to train late
        begin = time.monotonic()
        code, output = rehearsal(tmp_path, f"limit={limit}", *words)
        assert time.monotonic() - begin < limit
        assert code == 0 and "sweep small: cut off after" in output, output
        with tarfile.open(tmp_path / "out" / "runs.tar.gz") as archive:
            states = [name for name in archive.getnames() if name.endswith("/state.safetensors")]
        if states:
            break
    before = {path.parent.name: read_metrics(path.parent) for path in tmp_path.glob("runs/*/*/metrics.csv")}
    assert before and sum(map(len, before.values())) < 2 * 40
    elsewhere = [f"out={tmp_path / 'out2'}", f"runs={tmp_path / 'runs2'}", f"from={tmp_path / 'out'}"]
    code, output = rehearsal(tmp_path, *words, *elsewhere)
    assert code == 0 and f"{len(before)} runs unpacked" in output and "2 of 2 runs finished" in output, output
    for path in tmp_path.glob("runs2/*/*/metrics.csv"):
        lines = read_metrics(path.parent)
        assert [int(line["step"]) for line in lines] == list(range(10, 401, 10))
        its = before.get(path.parent.name, [])
        assert lines[: len(its)] == its  # it did not begin again
