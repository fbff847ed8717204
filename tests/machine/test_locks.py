"""A lock says whose it is and whether it is held, also on a disk that cannot be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from vitbench.errors import StorageError
from vitbench.machine.locks import is_held, lock_errors
from vitbench.runs.run import Run


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter and write; pytest's own are closed."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_lock_is_held_while_somebody_has_it(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    assert not is_held(lock)
    with FileLock(lock):
        assert is_held(lock)
    assert lock.exists() and not is_held(lock)


def test_a_run_is_held_by_another_process(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from vitbench.runs.run import Run\n"
    code += f"with Run(Path({str(tmp_path / 'r')!r}), {{}}).claim(): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert str(Run(tmp_path / "r", {}).held()).startswith(f"held by process {holder.pid} on ")
    holder.communicate("")
    assert Run(tmp_path / "r", {}).held() is None


def test_asking_whether_a_run_is_held_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".lock").touch()
    real = os.open

    def on_a_read_only_disk(path: str, flags: int, *more: int, **options: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            raise OSError(30, "Read-only file system", path)
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", on_a_read_only_disk)
    assert Run(tmp_path, {}).held() is None


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda lock: lock.symlink_to(lock.parent / "elsewhere"), "is a link, but a lock must be a file; remove it"),
        (lambda lock: lock.mkdir(), "is not a file, but a lock must be a file; remove it"),
    ],
)
def test_what_is_no_lock_is_one_line(make: Callable[[Path], None], line: str, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    make(tmp_path / "r" / ".lock")
    with pytest.raises(StorageError, match=line), Run(tmp_path / "r", {}).claim():
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_another_users_lock_is_one_line_with_its_owner(open_folder: Path, as_nobody: None) -> None:
    os.seteuid(0)
    (open_folder / "r").mkdir()
    (open_folder / "r").chmod(0o777)
    (open_folder / "r" / ".lock").touch()
    os.seteuid(65534)
    line = r"r/\.lock belongs to user root, and you have no permission to open it; ask"
    with pytest.raises(StorageError, match=line), Run(open_folder / "r", {}).claim():
        pass
    assert is_held(open_folder / "r" / ".lock") is False


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"), lock_errors(tmp_path / "none"):
        raise OSError(28, "No space left on device")
