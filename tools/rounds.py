"""Runs vitbench in rounds of kills and faults, and compares the results with an undisturbed run, byte by byte.

children.py has the processes and the comparison. machine_faults.py has the rounds with faults of the machine.
"""

from __future__ import annotations

import itertools
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from tools import machine_faults as machine
from tools.children import PHASES, SAVED_WITHIN, STEPS, Failed, NotTried, Place, fork, run_of, sends, told
from vitbench.errors import UserError, check_choice, did_you_mean

HELP = """\
  make rounds                                          all kinds, with the numbers of rounds below
  python tools/rounds.py kinds=kill,damage rounds=3    three rounds of two kinds
  python tools/rounds.py kinds=damage seed=0 only=17   repeats one round, keeps its folder and prints its name

Disturbs small runs of vitbench, repeats their command until they are finished, and compares their metrics, predictions,
weights and record, without times, with those of an undisturbed run. A round fails if results differ, or if there is a
traceback, a wrong exit code, more than one line of output, or a lost file. The exit code is then 1. Rounds that this
machine does not allow are listed as not tried.

Kinds and their numbers of rounds:
"""

# kinds of rounds -------------------------------------------------------------------------------------------------


def kill(place: Place, name: str, number: int, random: Random) -> str:
    """kill -9 at random times, up to four times"""
    folder = place.fresh(name, drawn=random.random() < 0.5)
    for _ in range(random.randint(1, 4)):
        if told(fork(folder).wait(random.uniform(0, place.seconds), kill=True), 0, -signal.SIGKILL).code == 0:
            return "not reached, " + place.same(folder)
    return place.finished(folder)


def damage(place: Place, name: str, number: int, random: Random) -> str:
    """one to three files of a stopped run are damaged"""
    stage = random.choice([2, 5, 9, STEPS, STEPS + 1])
    folder, other = place.stopped(name, stage), place.halfway(stage, seed=1)
    run, finished = run_of(folder), run_of(place.work / "other")
    done = [_damage(run, random.choice([other, finished]), random) for _ in range(random.randint(1, 3))]
    before = {path: path.read_bytes() for path in run.iterdir() if path.name[0] != "." and path.name != "config.yaml"}
    try:
        if told(fork(folder).wait(), 0, 2, 3, 4).code == 0:
            return place.same(folder)
        if lost := [path.name for path, blob in before.items() if not path.exists() or path.read_bytes() != blob]:
            raise Failed(f"refused, but lost {lost}")
        return "refused in one line, nothing lost"
    except (Failed, UserError) as failed:
        raise Failed(f"{failed} (stopped after {stage} steps; {'; '.join(done)})") from None


def _damage(run: Path, other: Path, random: Random) -> str:
    """Damages a random file of a run, and says how; `other` is a run with other settings."""
    path = random.choice(
        [*sorted(run.iterdir()), run / "metrics.csv", *sorted(run.glob("state*"))]
    )  # these files are the most important, so they are chosen more often
    blob = bytearray(path.read_bytes()) if path.exists() else bytearray()
    how = random.choice(["flip", "truncate", "zero", "delete", "swap", "add"])
    if how == "add":
        path = run / random.choice(sorted(file.name for file in other.iterdir()))
    if how in ("swap", "add"):
        source = other / path.name
        blob = bytearray(source.read_bytes() if source.exists() else b"")
    elif how == "delete":
        path.unlink(missing_ok=True)
        return f"{path.name} deleted"
    elif blob:
        at = random.randrange(len(blob))
        if how == "flip":
            blob[at] ^= 1 << random.randrange(8)
        elif how == "zero":
            blob[at : at + 512] = bytes(len(blob[at : at + 512]))
        else:
            del blob[random.choice([0, 4, len(blob) // 2, at, -1]) :]
    path.write_bytes(blob)
    return f"{path.name}: {how}"


SIGNALS = {
    "SIGTERM": [signal.SIGTERM],
    "SIGINT": [signal.SIGINT],
    "SIGINT twice": [signal.SIGINT, signal.SIGINT],
    "SIGUSR1": [signal.SIGUSR1],
    "SIGHUP": [signal.SIGHUP],
}


def signals(place: Place, name: str, number: int, random: Random) -> str:
    """each signal, before each phase of a run"""
    phase, what = [*itertools.product(PHASES, SIGNALS)][number % (len(PHASES) * len(SIGNALS))]
    nth, folder = random.randint(1, PHASES[phase][2]), place.fresh(name, drawn=random.random() < 0.5)
    by_hand = signal.SIGINT in SIGNALS[what]
    codes = [130 if by_hand else 75]
    if phase in ("start", "data"):  # there is nothing to save yet
        codes = [130] if by_hand else [143, -SIGNALS[what][0]]
    told(fork(folder, before=sends(phase, nth, SIGNALS[what])).wait(), *codes)
    if (took := time.monotonic() - float((folder / "sent").read_text())) > SAVED_WITHIN:
        raise Failed(f"{what} before {phase}: it took {took:.0f} s to end")
    return ("nothing to save, then " if phase in ("start", "data") else "stopped, then ") + place.finished(folder)


KINDS: dict[str, tuple[Callable[[Place, str, int, Random], str], int]] = {
    "kill": (kill, 50),
    "damage": (damage, 200),
    "signals": (signals, 35),
    "inject": (machine.inject, 60),
    "descriptors": (machine.descriptors, 6),
    "memory": (machine.memory, 8),
    "clock": (machine.clock, 4),
    "network": (machine.network, 2),
    "host": (machine.host, 5),
    "nobody": (machine.nobody, 3),
    "readonly": (machine.readonly, 3),
    "full": (machine.full, 8),
}


def typed(words: Sequence[str]) -> dict[str, str]:
    """Reads `key=value` words. Raises UserError for an unknown or wrong one."""
    options = dict(word.partition("=")[::2] for word in words)
    for key, value in options.items():
        if key not in ("kinds", "rounds", "seed", "only", "work"):
            raise UserError(f"{key}: {did_you_mean(key, ['kinds', 'rounds', 'seed', 'only', 'work'])}")
        if key in ("rounds", "seed", "only") and not re.fullmatch("[0-9]{1,9}", value):
            raise UserError(f"{key}={value}: must be a number, such as {key}=3")
    for kind in options.get("kinds", "kill").split(","):
        check_choice("kinds", kind, KINDS)
    return options


def rounds_of(place: Place, kind: str, numbers: Sequence[int], keep: bool) -> bool:
    """Does the rounds of a kind and prints its row; returns whether a round failed."""
    one, _ = KINDS[kind]
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    begin = time.monotonic()
    stopped = False
    for number in numbers:
        name = f"{kind}-{number}"
        try:
            outcome = one(place, name, number, Random(f"{place.seed} {kind} {number}"))
        except KeyboardInterrupt:
            stopped = True
            break
        except NotTried as reason:
            outcome = f"not tried ({reason})"
        except (Failed, UserError, OSError, ValueError) as failed:
            again = f"python tools/rounds.py kinds={kind} seed={place.seed} only={number}"
            outcome, failures = "FAILED", [*failures, f"  {again}: {failed}"]
        outcomes[outcome] += 1
        if keep:
            print(place.work / name, outcome)
        else:
            shutil.rmtree(place.work / name, ignore_errors=True)
    counts = "; ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"{kind:<12}{outcomes.total():>6}  {time.monotonic() - begin:>5.0f} s  {counts}")
    print("".join(line + "\n" for line in failures), end="", flush=True)
    if stopped:
        raise KeyboardInterrupt
    return bool(failures)


def main(words: Sequence[str]) -> int:
    if {"-h", "--help", "help"} & {*words}:
        print(HELP + "".join(f"  {kind:<12}{many:>4}  {one.__doc__}\n" for kind, (one, many) in KINDS.items()), end="")
        return 0
    options = typed(words)
    for number in (signal.SIGINT, signal.SIGTERM):  # so that the row of the finished rounds is printed
        signal.signal(number, signal.default_int_handler)
    only, seed = options.get("only"), int(options.get("seed", 0))
    work = Path(options["work"] if "work" in options else tempfile.mkdtemp(prefix="rounds-")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    work.chmod(0o755)  # the rounds of `nobody` need access
    place = Place(work, seed)
    try:
        place.begin()
        undisturbed = f"an undisturbed child takes {place.seconds:.1f} s"
        print(f"{'kind':<12}rounds  {'took':>7}  outcomes (seed={seed}; {undisturbed})", flush=True)
        failed = False
        for kind in options["kinds"].split(",") if "kinds" in options else KINDS:
            many = int(options.get("rounds", KINDS[kind][1]))
            failed |= rounds_of(place, kind, [int(only)] if only else range(many), keep=only is not None)
    finally:
        if only is None:
            shutil.rmtree(work, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"rounds: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("rounds: stopped", file=sys.stderr)
        sys.exit(130)
