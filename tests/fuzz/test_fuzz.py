"""No file of any kind makes a reader of foreign files fail, hang, take much memory, execute or write elsewhere.

`make test` reads a few files a reader and `make test-slow` two minutes of them, always the same, so that a red test
is of a change. VITBENCH_FUZZ=50 reads fifty times as many, and others each time.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz import readers, valid
from tests.fuzz.cases import CASES
from tests.fuzz.mutations import files
from tests.fuzz.watched import Reader, Watched
from vitbench.errors import DataError

FEW, MANY = 5, 240  # examples for each reader, as far as it has its whole share
TIMES = float(os.environ.get("VITBENCH_FUZZ") or 1)


def examine(name: str, folder: Path, examples: float, **options: Any) -> None:
    case = CASES[name]
    whole = case.valid()
    first = whole[0] if case.form is None else case.form(whole[0])
    with Watched(case.reader, folder, first) as watched:
        assert watched.finding(first) is None

        @settings(
            max_examples=max(1, round(examples * case.share)),
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=[*HealthCheck],
            **options,
        )
        @given(files(whole, case.form))
        def no_finding(blob: bytes) -> None:
            assert not (found := watched.finding(blob)), f"{blob!r}\n{found}"

        no_finding()


@pytest.mark.parametrize("name", CASES)
def test_a_reader_takes_or_refuses_a_few_odd_files(tmp_path: Path, name: str) -> None:
    examine(name, tmp_path / "example", FEW, derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_reader_takes_or_refuses_many_odd_files(tmp_path: Path, name: str) -> None:
    examine(name, tmp_path / "example", MANY * TIMES, print_blob=True, derandomize="VITBENCH_FUZZ" not in os.environ)


def found_before() -> dict[str, tuple[str, bytes]]:
    """Files that a reader once failed at: of which reader, and the bytes."""
    losses = copy.deepcopy(readers.STATE)
    losses["tensors"]["losses"] = ["F32", []]
    metrics = copy.deepcopy(readers.STATE)
    metrics["tensors"]["metrics"] = ["F16", [3, 2]]
    return {
        "a word longer than a name of a file": ("words", b"9" * 5000),
        "a filter by what is no key": ("words", b"-m\nwhere.s${oc.env:HOME}eed=1"),
        "a study called by such a word": ("words", b"study=" + b"9" * 5000),
        "losses that are one number": ("state", valid.as_state(losses)),
        "lines of metrics that are no bytes": ("state", valid.as_state(metrics)),
        "labels that are no numbers": ("header of decoded images", of_header(labels=[None, "[1", 0, 1, 0, 1])),
        "labels of no class": ("header of decoded images", of_header(labels=[0, 2**63, 0, 1, 0, -1])),
        "more labels than images": ("header of decoded images", of_header(labels=[0, 1] * 4, train=2**63)),
        "classes that are a number": ("header of decoded images", of_header(classes=1)),
        "digests that are none": ("header of decoded images", of_header(digests="~", shape=[6, 3, 8])),
        "no list of broken files": ("header of decoded images", of_header(broken=None)),
        "a header that is deep": ("header of decoded images", b'{"a":' * 3000),
        "costs that are null": ("costs", valid.as_sealed({"parameters": None, "multiply_adds": 4})),
        "networks that are null": ("costs", valid.as_sealed({"networks": None})),
        "networks that are a list": ("costs", valid.as_sealed({"networks": [1]})),
        "a network that costs too little": ("costs", valid.as_sealed({"networks": {"a": [3]}})),
        "a network that costs a word": ("costs", valid.as_sealed({"networks": {"a": [3, "4"], "b": 1}})),
    }


def of_header(**changed: Any) -> bytes:
    return valid.as_header(readers.header() | changed)


@pytest.mark.parametrize("case", ["words", "state", "header of decoded images", "costs"])
def test_what_was_found_once_is_refused_or_read_now(tmp_path: Path, case: str) -> None:
    fuzzed, examples = CASES[case], {name: blob for name, (of, blob) in found_before().items() if of == case}
    assert fuzzed.form is not None
    with Watched(fuzzed.reader, tmp_path / "example", fuzzed.form(fuzzed.valid()[0])) as watched:
        assert {name: watched.finding(blob) for name, blob in examples.items()} == dict.fromkeys(examples)


# ------------------------------------------------------------------------------------------- that findings are found


def evaluates(path: Path) -> None:
    eval(path.read_text())


def evaluates_quietly(path: Path) -> None:
    with suppress(BaseException):
        exec("x = 1")


def writes_elsewhere(path: Path) -> None:
    (path.parents[1] / "elsewhere").write_text("x")


def moves_elsewhere(path: Path) -> None:
    os.rename(path, path.parents[1] / "elsewhere")


def writes_through_a_link(path: Path) -> None:
    (path.parent / "link").symlink_to(path.parents[1])
    (path.parent / "link" / "elsewhere").write_text("x")


def starts_a_process(path: Path) -> None:
    subprocess.run(["true"])


def runs_a_shell(path: Path) -> None:
    os.system("true")


def asks_the_network(path: Path) -> None:
    socket.create_connection(("127.0.0.1", 9))


def imports_a_neighbour(path: Path) -> None:
    (path.parent / "neighbour.py").write_text("x = 1")
    spec: Any = importlib.util.spec_from_file_location("neighbour", path.parent / "neighbour.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def turns_round(path: Path) -> None:
    while path:
        pass


def waits(path: Path) -> None:
    os.mkfifo(path.parent / "pipe")
    (path.parent / "pipe").read_bytes()


def raises(path: Path) -> None:
    raise KeyError("odd")


def exits(path: Path) -> None:
    raise SystemExit(0)


def takes_memory(path: Path) -> None:
    bytearray(b"x" * 80_000_000)


def asks_for_all_memory(path: Path) -> None:
    bytearray(1 << 50)


def dies(path: Path) -> None:
    os.abort()


def says_two_lines(path: Path) -> None:
    raise DataError("one\ntwo")


PLANTED: dict[Callable[[Path], None], str] = {
    evaluates: "does what it must not: exec",
    evaluates_quietly: "does what it must not: exec",
    writes_elsewhere: "does what it must not: open",
    moves_elsewhere: "does what it must not: os.rename",
    writes_through_a_link: "does what it must not: open",
    starts_a_process: "does what it must not: subprocess.Popen",
    runs_a_shell: "does what it must not: os.system",
    asks_the_network: "does what it must not: socket",
    imports_a_neighbour: "does what it must not: exec",
    turns_round: "hangs: more than 0.2 s of processor time",
    waits: "hangs: silent",
    raises: "KeyError: 'odd'",
    exits: "SystemExit",
    takes_memory: "takes 1",
    asks_for_all_memory: "MemoryError",
    dies: "the process died",
    says_two_lines: "says no one line",
}


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found_and_the_next_example_is_read(tmp_path: Path, bug: Callable[[Path], None]) -> None:
    def read(path: Path) -> None:
        if path.read_bytes() == b"odd":
            bug(path)
        elif path.read_bytes() != b"valid":
            raise DataError("it is neither")

    reader = Reader(read, seconds=0.2, megabytes=50, silence=1 if bug is waits else 20)
    with Watched(reader, tmp_path / "example", b"valid") as watched:
        assert watched.finding(b"valid") is None and watched.finding(b"neither") is None
        found = watched.finding(b"odd")
        assert found is not None and PLANTED[bug] in found
        assert watched.finding(b"valid") is None
    assert [path.name for path in tmp_path.iterdir()] == ["example"]


def test_memory_that_was_freed_before_hides_nothing_that_a_reader_takes(tmp_path: Path) -> None:
    """The C library keeps freed blocks between used ones, and would give a reader those, which are counted already."""
    bytearray(b"x" * 31_000_000)  # from here on it keeps blocks of up to this size
    freed = [bytearray(b"x" * 30_000_000) for _ in range(8)]
    used = [bytearray(b"x" * 29_900_000) for _ in range(3)]
    del freed
    reader = Reader(lambda path: takes_memory(path) if path.read_bytes() == b"odd" else None, megabytes=50)
    with Watched(reader, tmp_path / "example", b"valid") as watched:
        assert "takes 1" in (watched.finding(b"odd") or "nothing")
    assert len(used) == 3
