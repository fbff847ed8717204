"""Runs in trackers are those of metrics.csv and record.json, each step once, as the trackers' own readers say."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tests import fake_runs
from tests.conftest import TINY, TINY_32, Output, process
from tests.training.test_train import assert_same_run, cut_run, folder
from vitbench.machine.disk import sha256_of
from vitbench.machine.redact import REDACTED
from vitbench.machine.seal import sealed
from vitbench.runs import follow
from vitbench.runs.run import Run
from vitbench.settings.check import check
from vitbench.settings.compose import as_settings, compose
from vitbench.settings.identity import run_id
from vitbench.trackers import menu
from vitbench.trackers.base import Settings

Cli = Callable[..., Output]
Values = dict[str, dict[int, list[float]]]  # by name and step all values that are there

KEY = "hf_" + "aB3" * 12
LINES = "step,epoch,lr,train_loss,val_accuracy,val_loss,train_seconds\n60,0.5,0.001,2.25,0.1,2.5,1.5\n120,1,0,1,,,3\n"


def in_tensorboard(run: Path) -> Values:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(run), size_guidance={SCALARS: 0})  # 0: all of them
    events.Reload()
    found: Values = {}
    for name in events.Tags()[SCALARS]:
        for event in events.Scalars(name):
            found.setdefault(name, {}).setdefault(event.step, []).append(event.value)
    return found


def in_trackio(run: Path) -> Values:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    assert [each.name for each in trackio.Api().runs("vitbench")].count(run.name) == 1
    found: Values = {}
    for log in SQLiteStorage.get_logs("vitbench", run.name):
        for name in log.keys() - {"step", "timestamp"}:
            found.setdefault(name, {}).setdefault(log["step"], []).append(log[name])
    return found


READERS: dict[str, Callable[[Path], Values]] = {"tensorboard": in_tensorboard, "trackio": in_trackio}


@pytest.fixture(params=READERS)
def tracker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tracker that keeps all it has on this machine, in an empty folder."""
    name: str = request.param
    pytest.importorskip(name, reason="make test-oldest has it")
    if name == "trackio":
        import trackio.sqlite_storage

        monkeypatch.setattr(trackio.sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
    return name


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on how long a busy machine takes, and none on the warnings of another one."""
    monkeypatch.setattr(follow, "SECONDS_AT_THE_END", 120.0)
    monkeypatch.setattr(follow, "SECONDS_AFTER_A_CUT", 120.0)
    monkeypatch.setattr(follow, "_told", set())


def expected(run: Path) -> Values:
    """What metrics.csv and the record say, each value once."""
    found: Values = {}
    for row in csv.DictReader((run / "metrics.csv").read_text().splitlines()):
        for name, cell in row.items():
            if name != "step" and cell:
                found.setdefault(name, {})[int(row["step"])] = [float(cell)]
    if (run / "record.json").exists():
        record = json.loads((run / "record.json").read_text())
        for name, value in record.items():
            if name.startswith(("test_", "train_eval_")) and isinstance(value, float):
                found[name] = {record["steps"]: [value]}
    return found


def assert_same(tracker: str, run: Path) -> None:
    """TensorBoard keeps float32."""
    kind = np.float32 if tracker == "tensorboard" else np.float64
    wanted = {
        name: {step: [float(kind(value)) for value in values] for step, values in its.items()}
        for name, its in expected(run).items()
    }
    assert wanted and READERS[tracker](run) == wanted


def ended(runs: Path, name: str, **changed: Any) -> Path:
    """The folder of a run that nobody trained."""
    run = fake_runs.write(runs, name, 0.5, **changed)
    (run / "metrics.csv").write_text(LINES)
    return run


def test_what_track_hands_over_is_what_the_run_wrote_and_a_second_time_adds_nothing(
    vitbench: Cli, tmp_path: Path, tracker: str
) -> None:
    runs = [ended(tmp_path / "runs", name) for name in ("one", "two")]
    assert vitbench("track", f"trackers={tracker}").out == f"{tracker}: 24 new values; it now has 2 of 2 runs\n"
    files = [{path.name for path in run.iterdir()} for run in runs]
    assert vitbench("track", f"trackers=[{tracker}]").out == f"{tracker}: 0 new values; it now has 2 of 2 runs\n"
    assert files == [{path.name for path in run.iterdir()} for run in runs]
    for run in runs:
        assert_same(tracker, run)


def test_a_run_that_was_cut_and_resumed_is_one_run_with_each_step_once(
    vitbench: Cli, tmp_path: Path, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["runs=r", f"trackers={tracker}"]
    cut_run(vitbench, monkeypatch, *words)
    run = folder(tmp_path / "r")
    assert_same(tracker, run)
    assert vitbench("train", *TINY, *words).code == 0
    assert len(expected(run)["epoch"]) == 3 and "test_accuracy" in expected(run)
    assert_same(tracker, run)
    assert vitbench("track", "runs=r", f"trackers={tracker}").out == f"{tracker}: 0 new values; it now has 1 of 1 run\n"
    assert vitbench("train", *TINY, "runs=without").code == 0
    assert_same_run(folder(tmp_path / "without"), run)


@pytest.mark.slow
def test_a_run_that_was_killed_three_times_is_one_run_with_each_step_once(vitbench: Cli, tmp_path: Path) -> None:
    words = [*TINY_32, "optim.steps=60", "eval_every=3", "runs=r", "trackers=tensorboard"]
    words = [word for word in words if word not in ("optim.steps=6", "eval_every=2")]
    for kills in range(1, 4):
        child = process("train", *words, cwd=tmp_path)
        while child.poll() is None and len([*tmp_path.glob("r/*/events.out.tfevents.*")]) < kills:
            time.sleep(0.02)
        time.sleep(0.1 * kills)
        child.kill()
        child.communicate()
    assert vitbench("train", *words).code == 0
    assert len(expected(folder(tmp_path / "r"))["epoch"]) == 20
    assert_same("tensorboard", folder(tmp_path / "r"))


def test_a_line_that_no_saved_state_holds_is_not_handed_over(vitbench: Cli, tmp_path: Path) -> None:
    """Resuming takes such a line back, and its seconds would be others."""

    def kill(self: Run, blob: bytes) -> None:
        if saves.append(blob) or len(saves) == 2:  # type: ignore[func-returns-value]
            raise KeyboardInterrupt

    saves: list[bytes] = []
    words = [*TINY, "runs=r", "trackers=tensorboard"]
    with pytest.MonkeyPatch.context() as patch:
        save = Run.save_state
        patch.setattr(Run, "save_state", lambda self, blob: (kill(self, blob), save(self, blob)))
        assert vitbench("train", *words).code == 130
    run = folder(tmp_path / "r")
    assert [*expected(run)["epoch"]] == [2, 4] and [*in_tensorboard(run)["epoch"]] == [2]
    assert vitbench("track", "runs=r", "trackers=tensorboard").out.startswith("tensorboard: 0 new values")
    assert vitbench("train", *words).code == 0
    assert_same("tensorboard", run)


def test_runs_of_a_stack_are_followed_each(vitbench: Cli, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("runs: ['model=vit seed=0,1']")
    words = [*TINY, "model.width=16", "model.depth=2", "model.heads=2", "trackers=tensorboard"]
    assert vitbench("sweep", "study=two.yaml", *words, "hydra/launcher=stacked").code == 0
    runs = sorted(path.parent for path in tmp_path.glob("runs/*/record.json"))
    assert len(runs) == 2
    for run in runs:
        assert_same("tensorboard", run)


def test_tensorboard_compares_runs_by_their_settings(vitbench: Cli, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    run = ended(tmp_path / "runs", "one", **{"data.fraction": 0.25, "data.root": "/home/me"})
    assert vitbench("track", "trackers=tensorboard").code == 0
    events = EventAccumulator(str(run))
    events.Reload()
    (blob,) = events.PluginTagToContent("hparams").values()
    settings = HParamsPluginData.FromString(blob).session_start_info.hparams
    assert settings["data.fraction"].number_value == 0.25 and settings["model.pe.name"].string_value == "learned"
    assert not {"data.root", "runs", "machine.device"} & settings.keys()


class StandIn:
    """A tracker in the place of wandb, which keeps what it is given, or does what `acts` says instead."""

    opened: ClassVar[dict[str, StandIn]] = {}
    acts: ClassVar[Callable[[], None]] = staticmethod(lambda: None)

    def __init__(self, run: str, folder: Path, settings: Settings) -> None:
        self.settings, self.steps, self.is_closed = settings, list[int](), False
        self.opened[run] = self

    def held(self) -> dict[str, set[int]]:
        return {}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.acts()
        self.steps.append(step)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    monkeypatch.setitem(menu.MENU, "wandb", menu.MENU["wandb"]._replace(target=f"{__name__}:StandIn"))
    monkeypatch.setattr(menu, "_is_installed", lambda package: True)
    monkeypatch.setattr(StandIn, "acts", lambda self: None)
    StandIn.opened.clear()
    return StandIn


def test_settings_reach_a_tracker_without_secrets(vitbench: Cli, tmp_path: Path, stand_in: type[StandIn]) -> None:
    ended(tmp_path / "runs", "one", init=f"https://me:{KEY}@host/x", **{"data.name": f"token={KEY}"})
    assert vitbench("track", "trackers=wandb").code == 0
    settings = stand_in.opened["one"].settings
    assert settings["init"] == f"https://{REDACTED}host/x".replace("host", "@host") and KEY not in str(settings)


def test_a_tracker_that_fails_is_one_warning_and_the_run_ends_as_without(
    vitbench: Cli, tmp_path: Path, stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: StandIn) -> None:
        raise ConnectionError(f"no route to https://me:{KEY}@host\nat all")

    monkeypatch.setattr(stand_in, "acts", fail)
    done = vitbench("train", *TINY, "runs=r", "trackers=[wandb,tensorboard]")
    assert done.code == 0 and "finished, test accuracy" in done.out
    assert done.err.count("warning: ") == 1 and KEY not in done.err
    assert "trackers=wandb: ConnectionError: no route to https://[redacted]@host at all; the run continues" in done.err
    assert_same("tensorboard", folder(tmp_path / "r"))
    track = vitbench("track", "runs=r", "trackers=[wandb,tensorboard]")
    assert track.code == 75 and track.err.count("\n") == 1 and KEY not in track.err


def test_a_tracker_that_hangs_holds_up_no_run(
    vitbench: Cli, stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr(stand_in, "acts", lambda self: released.wait(300))
    monkeypatch.setattr(follow, "SECONDS_AT_THE_END", 0.1)
    done = vitbench("train", *TINY, "trackers=wandb")
    released.set()
    assert done.code == 0 and "trackers=wandb: no answer within 0.1 s; the run continues" in done.err


def test_a_tracker_is_closed_when_the_run_has_ended(vitbench: Cli, stand_in: type[StandIn]) -> None:
    assert vitbench("train", *TINY, "trackers=wandb").code == 0
    (run,) = stand_in.opened.values()
    assert run.is_closed and run.steps == [2, 4, 6, 6]


def test_only_process_0_of_several_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "RANK", 1)
    follower = follow.Follower(Run(tmp_path, {"trackers": ["nobody"]}))
    follower.saved(1)
    assert follower._thread is None


# ------------------------------------------------------------------------------------------------------------- settings


def test_trackers_change_no_run(vitbench: Cli, tmp_path: Path) -> None:
    base = as_settings(compose([]))
    assert run_id(check(base | {"trackers": ["tensorboard"]})) == run_id(check(base))
    ended(tmp_path / "runs", "one", trackers=["tensorboard"])
    ended(tmp_path / "runs", "two", trackers=None, seed=1)
    assert "trackers" not in vitbench("table").out and "trackers" not in vitbench("table", "per=run").out


@pytest.mark.parametrize("command", ["train", "track"])
@pytest.mark.parametrize("typed", ["tensorbord", "[tensorboard,trackoi]", "[1]"])
def test_an_unknown_tracker_is_answered_with_the_menu(vitbench: Cli, command: str, typed: str) -> None:
    done = vitbench(command, f"trackers={typed}")
    assert done.code == 2 and done.err.startswith("vitbench: trackers=") and done.err.count("\n") == 1
    assert "choices: tensorboard, trackio, wandb" in done.err


@pytest.mark.parametrize("name", menu.MENU)
@pytest.mark.parametrize("command", ["train", "track"])
def test_a_tracker_that_is_not_installed_is_one_line(
    vitbench: Cli, tmp_path: Path, name: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    done = vitbench(command, f"trackers={name}")
    assert done.code == 2 and not [*tmp_path.iterdir()]
    assert done.err == f"vitbench: trackers={name}: comes with an extra: pip install 'vitbench[{name}]'\n"


def test_without_trackers_none_is_imported_and_track_needs_no_torch(tmp_path: Path) -> None:
    ended(tmp_path / "runs", "one")
    for words, unwanted in (
        (["train", *TINY, "runs=r"], {*menu.MENU}),
        (["track", "trackers=tensorboard"], {"torch", "tensorflow", "trackio", "wandb"}),
    ):
        code = f"import sys; from vitbench import cli; assert not cli.run({words})"
        code += f"; print({unwanted} & {{*sys.modules}}, file=sys.stderr)"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.stderr.splitlines()[-1:] == ["set()"] and done.stdout, done.stderr


def test_a_study_names_no_tracker(vitbench: Cli, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("runs: ['seed=0 trackers=tensorboard']")
    done = vitbench("sweep", "study=s.yaml", "dry_run=true")
    assert done.code == 2 and "trackers=tensorboard: a study cannot say this; type it on the command line" in done.err


def test_track_says_which_runs_it_means(vitbench: Cli, tmp_path: Path) -> None:
    assert "trackers=null: name the programs that get the runs" in vitbench("track").err
    assert "no run in runs=runs" in vitbench("track", "trackers=tensorboard").err
    for name in ("one", "two"):
        ended(tmp_path / "runs", name)
    assert vitbench("track", "trackers=tensorboard", "run=two").out.endswith("it now has 1 of 1 run\n")
    assert [path.parent.name for path in tmp_path.glob("runs/*/events.out.tfevents.*")] == ["two"]
    missing = vitbench("track", "trackers=tensorboard", "run=tow")
    assert missing.code == 2 and "did you mean two" in missing.err
    (tmp_path / "runs" / "one" / "record.json").write_text("{")
    damaged = vitbench("track", "trackers=tensorboard")
    assert damaged.code == 3 and "is not a whole record" in damaged.err and "it now has 1 of 2 runs" in damaged.out


def test_a_failed_run_that_was_followed_can_go(vitbench: Cli, tmp_path: Path) -> None:
    run = ended(tmp_path / "runs", f"vit-{'0' * 8}")
    assert vitbench("track", "trackers=tensorboard").code == 0
    (run / "config.yaml").write_text(json.dumps(fake_runs.record(0.5)["config"]))
    (run / "record.json").unlink()
    (run / "failure.json").write_text('{"error": "x"}')
    (run / ".wandb.json").write_text("{}")
    assert vitbench("clean", "what=failed", "days=0", "remove=true").code == 0 and not run.exists()


def test_a_run_that_a_process_trains_is_left_to_it(vitbench: Cli, tmp_path: Path) -> None:
    run = ended(tmp_path / "runs", "one")
    with Run(run, {}).claim():
        done = vitbench("track", "trackers=tensorboard")
    assert done.code == 75 and "one is held by process" in done.err and "it now has 0 of 1 run" in done.out


def test_values_that_a_tracker_lost_come_again_and_none_twice(vitbench: Cli, tmp_path: Path) -> None:
    run = ended(tmp_path / "runs", "one")
    record = json.loads((run / "record.json").read_text())
    files = []
    for steps in (60, 120):
        (run / "record.json").write_text(json.dumps(record | {"steps": steps}))
        assert vitbench("track", "trackers=tensorboard").code == 0
        files += {*run.glob("events.out.tfevents.*")} - {*files}
    first, second = files
    second.rename(run / "events.out.tfevents.1.a.1.0")  # as of a machine whose clock is late
    (run / "events.out.tfevents.2.a.1.0").symlink_to(tmp_path / "nowhere")
    assert vitbench("track", "trackers=tensorboard").out == "tensorboard: 0 new values; it now has 1 of 1 run\n"
    first.unlink()
    assert vitbench("track", "trackers=tensorboard").code == 0
    (run / "events.out.tfevents.2.a.1.0").unlink()
    assert {step: len(values) for step, values in in_tensorboard(run)["train_loss"].items()} == {60: 1, 120: 1}


def test_a_run_that_a_tracker_cannot_take_keeps_no_other_from_it(vitbench: Cli, tmp_path: Path) -> None:
    for name in ("a", "b"):
        ended(tmp_path / "runs", name)
    (tmp_path / "runs" / "a").rename(tmp_path / "runs" / "a\udcff")
    done = vitbench("track", "trackers=tensorboard")
    assert done.code == 3 and done.out == "tensorboard: 12 new values; it now has 1 of 2 runs\n"
    assert done.err.startswith("vitbench: trackers=tensorboard: a") and done.err.count("\n") == 1
    assert_same("tensorboard", tmp_path / "runs" / "b")


@pytest.mark.parametrize("damage", [lambda path: path.write_text(LINES.replace("2.25", "777")), Path.unlink])
def test_a_run_whose_metrics_are_damaged_is_named_and_not_handed_over(
    vitbench: Cli, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    run = ended(tmp_path / "runs", "one")
    record = json.loads((run / "record.json").read_text())
    record["files"] = {"metrics.csv": sha256_of(run / "metrics.csv")}
    (run / "record.json").write_text(json.dumps(sealed(record)))
    assert vitbench("track", "trackers=tensorboard").code == 0
    damage(run / "metrics.csv")
    done = vitbench("track", "trackers=tensorboard")
    assert done.code == 3 and "metrics.csv" in done.err and done.err.count("\n") == 1
    assert done.out == "tensorboard: 0 new values; it now has 0 of 1 run\n"
