"""Decodes JPEGs and detects those that lack data. libjpeg fills the missing part with grey and reports nothing.

A JPEG has no checksum. But in an intact file, the picture and the data end at the same place.
"""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

END, SCAN, ARITHMETIC = b"\xff\xd9", b"\xff\xda", (b"\xff\xc9", b"\xff\xca")
PADDING = b"\xfe" * 16  # libjpeg reads 8 bytes ahead; as JPEG codes, these bytes are few, long and rare
SPARE = 16  # superfluous bytes that are no damage: some cameras fill files up to a round length
OTHER = b"\xa5\x3c" * 64
MOST_SCANS = 500  # a file of 1 MB can hold 70,000 scans, and each takes as long as a picture; 10 are usual


class _Watched(io.BytesIO):
    """Returns bytes up to the first of two places, then up to the second, and notes the places of all reads.

    The decoder reads on only when it has used up all bytes that it has.
    """

    def __init__(self, data: bytes, places: tuple[int, int]) -> None:
        super().__init__(data)
        self.places, self.asked = places, set[int]()

    def read(self, size: int | None = -1) -> bytes:
        here = self.tell()
        self.asked.add(here)
        stop = next((place for place in self.places if here < place), None)
        if stop is not None:
            size = stop - here if size is None or size < 0 else min(size, stop - here)
        return super().read(size)


def load(file: Any, draft: int | None, known: bool = False) -> None:
    """Decodes an open JPEG, at a fraction of its size if it is far larger than `draft` pixels.

    Raises ValueError if its picture and its data do not end together. If the pixels are `known`, because the caller
    will compare them with a digest, no JPEG is decoded twice.
    """
    behind = file.fp.tell()  # Pillow has read up to the first scan
    file.fp.seek(0)
    data = file.fp.read()
    if draft is not None:
        file.draft("RGB", (draft, draft))
    head = data.rfind(SCAN, 0, behind)
    if head < 0 or any(data.find(kind, 0, head) >= 0 for kind in ARITHMETIC):  # rare; libjpeg needs it in one piece
        file.load()
        return
    first = head + 2 + int.from_bytes(data[head + 2 : head + 4], "big")
    end = data.find(END, first)
    end = first + len(data[first : end if end >= 0 else len(data)].rstrip(b"\xff"))  # bytes FF may pad the end
    scans = 1 + data.count(SCAN, first, end)
    if scans > MOST_SCANS:
        raise ValueError(f"it has {scans:,} scans, more than {MOST_SCANS}")
    if scans > 1 or "progressive" in file.info or data[head + 4] < file.layers:
        _load_scans(file, data[:end], draft, known)
    else:
        _load_one_scan(file, data[:end], first)


def _load_one_scan(file: Any, data: bytes, first: int) -> None:
    """Decodes a JPEG of one scan, whose bytes begin at `first`.

    The decoder gets all but the last bytes of the data, then these last bytes and some padding, then the end marker.
    With an intact file it reads the second part and does not need the third.
    """
    if len(data) <= first:
        raise ValueError("truncated: it holds no picture")
    nearly, padded = max(first, len(data) - SPARE), len(data) + len(PADDING)
    watched = _Watched(data + PADDING + END, (nearly, padded))
    file.fp.close()
    file.fp = watched
    if hasattr(file, "_fp"):  # a phone's JPEG with several pictures (MPO) has it
        file._fp = watched
    file.load()
    if padded in watched.asked:
        raise ValueError("truncated: its data end before its picture does")
    if nearly not in watched.asked:
        raise ValueError("damaged: its picture ends before its data do")


def _load_scans(file: Any, data: bytes, draft: int | None, known: bool) -> None:
    """Decodes a progressive JPEG, of which libjpeg reads all data before it gives the first pixel.

    It is decoded twice, the second time with other bytes behind its data. If data are missing, the pictures differ.
    """
    file.load()
    if known:
        return
    with Image.open(io.BytesIO(data + OTHER + END), formats=("JPEG",)) as again:
        if draft is not None:
            again.draft("RGB", (draft, draft))
        if again.tobytes() != file.tobytes():
            raise ValueError("truncated: its data end before its picture does")
