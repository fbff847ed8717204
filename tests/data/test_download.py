from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vitbench.data import download
from vitbench.data.download import bring

CONTENT = os.urandom(200_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Host(BaseHTTPRequestHandler):
    """/good sends the archive, /slow a byte every 10 ms the first time, /other another file; there is nothing else."""

    asked: list[str]

    def do_GET(self) -> None:
        first_time = self.path not in self.asked
        self.asked.append(self.path)
        if self.path not in ("/good", "/slow", "/other"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path == "/slow" and first_time:
            try:
                for byte in CONTENT:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.01)
            except OSError:  # nobody reads any more
                return
        self.wfile.write(CONTENT if self.path != "/other" else bytes(len(CONTENT)))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server on this machine; a rate is judged after 0.2 s."""
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    handler = type("Host", (Host,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def brought(folder: Path, *addresses: str) -> None:
    """Brings the archive and checks that it alone is there."""
    bring(folder / "root" / "archive", MD5, addresses)
    assert (folder / "root" / "archive").read_bytes() == CONTENT
    assert os.listdir(folder / "root") == ["archive"]


def test_an_archive_is_brought_once(host: str, tmp_path: Path) -> None:
    brought(tmp_path, f"{host}/good")
    brought(tmp_path, "http://127.0.0.1:1/nobody")


@pytest.mark.parametrize("first", ["/missing", "/other", "/slow"])
def test_where_an_address_is_dead_wrong_or_slow_the_next_is_tried_and_that_is_told(
    first: str, host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brought(tmp_path, f"{host}{first}", f"{host}/good")
    [line] = capsys.readouterr().err.splitlines()
    assert {"/missing": "404", "/other": "another file", "/slow": "kB a second"}[first] in line
    assert line.endswith(f"; trying {host.removeprefix('http://')}")


def test_where_nobody_listens_the_next_is_tried(host: str, tmp_path: Path) -> None:
    brought(tmp_path, "http://127.0.0.1:1/nobody", f"{host}/good")


def test_a_slow_address_is_better_than_none(host: str, tmp_path: Path) -> None:
    brought(tmp_path, f"{host}/slow", f"{host}/missing")


def test_a_damaged_archive_is_brought_again(host: str, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "archive").write_bytes(CONTENT[:-1])
    brought(tmp_path, f"{host}/good")


def test_where_no_address_works_the_first_reason_is_raised_and_nothing_is_left(host: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="404"):
        bring(tmp_path / "root" / "archive", MD5, [f"{host}/missing", f"{host}/other"])
    assert os.listdir(tmp_path / "root") == []


def test_a_full_disk_is_no_fault_of_the_address(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        bring(tmp_path / "root" / "archive", MD5, [f"{host}/good", f"{host}/missing"])
