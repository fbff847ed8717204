"""What one file becomes: whole pixels by a stated rule, or a reason."""

from __future__ import annotations

import io
import itertools
import os
import random
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import EpsImagePlugin, Image, ImageCms, ImageOps, PngImagePlugin

from tests.data.test_similar import photograph
from vitbench.data import decode as decode_module
from vitbench.data.decode import DIM, decode, decode_and_notice, opened, square
from vitbench.data.survey import look_at
from vitbench.errors import DataError

SIDE = 21  # of small images: no multiple of 8, so that rows of few bits end within a byte
Pixels = NDArray[np.uint8]


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def decoded(data: bytes, folder: Path, size: int = SIDE, name: str = "x.img") -> Pixels:
    (folder / name).write_bytes(data)
    return decode(folder / name, size).transpose(1, 2, 0)


def refused(data: bytes, folder: Path, size: int = SIDE) -> str:
    with pytest.raises(ValueError) as error:
        decoded(data, folder, size)
    return str(error.value)


# --- JPEGs whose data ran out ----------------------------------------------------------------------------------------


def place(data: bytes, share: float) -> int:
    """A place in the pixel data of a JPEG."""
    first = data.rindex(b"\xff\xda") + 14
    return first + int((len(data) - first) * share)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: place(data, 0.6)],
    "cut and ended": lambda data: data[: place(data, 0.4)] + b"\xff\xd9",
    "cut near its end and ended": lambda data: data[: place(data, 0.95)] + b"\xff\xd9",
    "no pixels": lambda data: data[: place(data, 0)] + b"\xff\xd9",
    "second half zero": lambda data: data[: len(data) // 2] + bytes(len(data) // 2),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_ran_out_of_data_is_no_image(damage: str, progressive: bool, tmp_path: Path) -> None:
    for quality in (60, 85, 95):
        data = saved(photograph(), "jpeg", quality=quality, progressive=progressive)
        said = refused(DAMAGES[damage](data), tmp_path, 32)
        assert any(word in said for word in ("truncated", "damaged", "broken data", "no picture")), said


def test_most_jpegs_with_a_hole_are_no_images(tmp_path: Path) -> None:
    found = 0
    for _ in range(40):
        data = saved(photograph(), "jpeg", quality=85)
        hole = place(data, 0.5)
        try:
            decoded(data[:hole] + bytes(512) + data[hole + 512 :], tmp_path, 32)
        except ValueError:
            found += 1
    assert found >= 30  # with some, picture and data still end together


def test_whole_jpegs_of_every_kind_are_whole_and_have_the_pixels_they_had(tmp_path: Path) -> None:
    draw, sides = random.Random(0), (1, 7, 8, 9, 16, 17, 33, 100)
    for number in range(150):
        image = photograph((draw.choice(sides), draw.choice(sides))).convert(draw.choice(["RGB", "RGB", "L", "CMYK"]))
        options: dict[str, Any] = {"quality": draw.choice([1, 30, 75, 95, 100]), "optimize": draw.random() < 0.5}
        options["progressive"] = draw.random() < 0.4
        if image.mode == "RGB":
            options["subsampling"] = draw.choice([0, 1, 2])
        if draw.random() < 0.3:
            options["restart_marker_blocks"] = draw.choice([1, 3, 20])
        data = saved(image, "jpeg", **options)
        ends = [b"\xff\xd9", b"\xff\xd9" + b"junk" * 30, b"\xff" * 9 + b"\xff\xd9", b"\0\0\xff\xd9"]
        data = data[:-2] + draw.choice(ends)
        with Image.open(io.BytesIO(data)) as file:
            file.draft("RGB", (8, 8))
            plain = square(file.convert("RGB"), 8).transpose(1, 2, 0)
        assert np.array_equal(decoded(data, tmp_path, 8), plain), (number, image.size, image.mode, options)


def test_no_photograph_of_a_real_set_is_refused_and_cut_ones_are(tmp_path: Path) -> None:
    archive = Path(os.environ.get("VITBENCH_TEST_DATA", "-")) / "imagenette-subset.tar.gz"
    if not archive.is_file():
        pytest.skip("VITBENCH_TEST_DATA has no imagenette-subset.tar.gz")
    with tarfile.open(archive) as files:
        members = [member for member in files if member.isfile() and member.name.endswith(".JPEG")][::10]
        photographs = [files.extractfile(member).read() for member in members]  # type: ignore[union-attr]
    for data in photographs:
        decoded(data, tmp_path, 64)
    cut = [data[: place(data, 0.4)] + b"\xff\xd9" for data in photographs]
    assert all(refused(data, tmp_path, 64) for data in cut)


def test_where_the_digest_is_known_no_jpeg_is_decoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jpg").write_bytes(saved(photograph(), "jpeg", progressive=True))
    pixels = decode(tmp_path / "x.jpg", 32)
    opens, open_image = [], Image.open
    monkeypatch.setattr(Image, "open", lambda *all, **named: opens.append(all) or open_image(*all, **named))
    assert np.array_equal(decode(tmp_path / "x.jpg", 32, known=True), pixels) and len(opens) == 1
    decode(tmp_path / "x.jpg", 32)
    assert len(opens) == 3


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    data = saved(photograph((64, 64)), "jpeg", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert "5,0" in refused(data[:-2] + scan * 5000 + b"\xff\xd9", tmp_path)


# --- TIFF ------------------------------------------------------------------------------------------------------------


def packed(values: NDArray[Any], bits: int, order: str) -> bytes:
    """Rows of values (H, W) of so many bits each; a row ends with its byte."""
    if bits >= 16:
        return values.astype(f"{order}{'iuf'[1]}{bits // 8}").tobytes()
    each = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(len(values), -1, 2), axis=2)
    return np.packbits(each[:, :, 16 - bits :].reshape(len(values), -1), axis=1).tobytes()


def tiff(
    pixels: NDArray[Any],
    bits: int,
    photometric: int,
    *,
    separate: bool = False,
    order: str = "<",
    packs: bool = False,
    tile: int = 0,
    rows: int = 0,
    sample_format: int = 1,
    raw: bytes | None = None,
    more: tuple[tuple[int, int, list[int]], ...] = (),
) -> bytes:
    """A TIFF of pixels (H, W) or (H, W, C), in strips of so many `rows` or in tiles."""
    height, width, channels = (*pixels.shape, 1)[:3]
    cube, blobs = pixels.reshape(height, width, channels), []
    for layer in [cube[:, :, [k]] for k in range(channels)] if separate else [cube]:
        step = tile or rows or height
        if tile:
            layer = np.pad(layer, ((0, -height % tile), (0, -width % tile), (0, 0)))
        across = range(0, layer.shape[1], tile) if tile else [0]
        for top, left in itertools.product(range(0, layer.shape[0], step), across):
            block = layer[top : top + step, left : left + (tile or width)]
            blobs.append(packed(block.reshape(len(block), -1), bits, order))
    blobs = [raw] if raw is not None else [zlib.compress(blob) if packs else blob for blob in blobs]
    short, long = 3, 4
    where, length = (324, 325) if tile else (273, 279)
    tags = {256: (long, [width]), 257: (long, [height]), 258: (short, [bits] * channels)}
    tags |= {259: (short, [8 if packs else 1]), 262: (short, [photometric]), 277: (short, [channels])}
    tags |= {284: (short, [2 if separate else 1]), 339: (short, [sample_format] * channels)}
    tags |= {where: (long, [0] * len(blobs)), length: (long, [*map(len, blobs)])}
    tags |= {322: (short, [tile]), 323: (short, [tile])} if tile else {278: (long, [rows or height])}
    tags |= {tag: (kind, values) for tag, kind, values in more}
    letters = {short: "H", long: "I"}
    end = 8 + 2 + 12 * len(tags) + 4
    outside = {tag: struct.calcsize(f"{len(v)}{letters[k]}") for tag, (k, v) in tags.items()}
    first = end + sum(size for size in outside.values() if size > 4)
    tags[where] = long, [first + sum(map(len, blobs[:i])) for i in range(len(blobs))]
    entries, behind = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        content = struct.pack(f"{order}{len(values)}{letters[kind]}", *values)
        if len(content) > 4:
            content, behind = struct.pack(f"{order}I", end + len(behind)), behind + content
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + content.ljust(4, b"\0")
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return head + entries + bytes(4) + behind + b"".join(blobs)


def gradient(channels: int) -> NDArray[np.int64]:
    """Values 0 to 255 of a small square, (SIDE, SIDE) or (SIDE, SIDE, 3)."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] * 255 // (SIDE - 1)
    return np.stack([x, y, 255 - x // 2 - y // 2], -1) if channels == 3 else x


GREY = [(bits, zero) for bits in (1, 2, 4, 8, 16) for zero in (0, 1)] + [(12, 1)]
NO_RULE = [(16, 0, ">"), (12, 1, ">")]  # white is zero, or 12 bits, in a TIFF of the other byte order


@pytest.mark.parametrize("bits, photometric", [*GREY, (8, 2), (16, 2)])
def test_a_tiff_is_read_as_its_tags_say(bits: int, photometric: int, tmp_path: Path) -> None:
    values = gradient(3 if photometric == 2 else 1) * (2**bits - 1) // 255
    right = (values * 255 + (2**bits - 1) // 2) // (2**bits - 1)
    stored = 2**bits - 1 - values if photometric == 0 else values
    for separate, order, packs, (tile, rows) in itertools.product(
        (False, True), "<>", (False, True), ((0, 0), (0, 5), (16, 0), (32, 0))
    ):
        data = tiff(stored, bits, photometric, separate=separate, order=order, packs=packs, tile=tile, rows=rows)
        if (bits, photometric, order) in NO_RULE:
            assert "not supported" in refused(data, tmp_path)
            continue
        pixels = decoded(data, tmp_path).astype(int)
        difference = np.abs(pixels - (right if photometric == 2 else right[..., None])).max()
        assert difference <= 1, (separate, order, packs, tile, rows)


def test_what_no_rule_tells_of_a_tiff_is_said(tmp_path: Path) -> None:
    values = gradient(1)
    whole = np.stack([values] * 3, -1)
    for data, reason in (
        (tiff(values, 32, 1), "more than 16 bits (32)"),
        (tiff(values, 32, 1, sample_format=2), "more than 16 bits (32)"),
        (tiff(values, 32, 1, sample_format=3), "floating-point"),
        (tiff(values, 16, 1, sample_format=2), "signed"),
        (tiff(values, 8, 1, sample_format=2), "signed"),
        (tiff(np.stack([values] * 4, -1), 16, 5, separate=True), "planes of 16 bits in CMYK"),
        (tiff(whole, 8, 6, raw=bytes(SIDE * SIDE * 3 // 2), more=((530, 3, [2, 2]),)), "colours are subsampled"),
        (tiff(values, 10, 1), "not supported"),
        (b"II*\0", "not supported"),
        (tiff(values, 8, 1, more=((322, 4, [60_000]), (323, 4, [60_000]))), "tiles have 3,600,000,000 pixels"),
    ):
        assert reason in refused(data, tmp_path)


def test_a_tiff_without_all_of_its_strips_is_no_image(tmp_path: Path) -> None:
    whole = tiff(gradient(1), 8, 1, rows=7)
    assert decoded(whole, tmp_path).max() == 255
    of_two = whole.replace(struct.pack("<HHI", 273, 4, 3), struct.pack("<HHI", 273, 4, 2))
    assert "too few rows" in refused(of_two, tmp_path)
    assert "too few rows" in refused(tiff(gradient(3), 16, 2, separate=True, raw=bytes(6 * SIDE * SIDE)), tmp_path)


def test_16_bits_that_are_hardly_used_are_noticed(tmp_path: Path) -> None:
    for top, dim in ((65535 // DIM, True), (65535 // DIM + 1, False), (0, False)):
        Image.fromarray(np.full((4, 4), top, np.uint16)).save(tmp_path / "x.png")
        assert decode_and_notice(tmp_path / "x.png", 4)[1].dim == dim
        assert look_at(str(tmp_path / "x.png"))[0].dim == dim


# --- PNG -------------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: list[bytes], width: int, bits: int, colour: int, before: bytes = b"", after: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + pixels + after + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_white_at_every_depth(bits: int, tmp_path: Path) -> None:
    values = gradient(1) * (2**bits - 1) // 255
    clear = int(values[0, SIDE // 2])
    data = png(
        [packed(row[None], bits, ">") for row in values], SIDE, bits, 0, chunk(b"tRNS", struct.pack(">H", clear))
    )
    right = (values * 255 + (2**bits - 1) // 2) // (2**bits - 1)
    right[values == clear] = 255
    assert np.abs(decoded(data, tmp_path).astype(int) - right[..., None]).max() <= 1


def test_a_transparent_colour_of_16_bits_is_white(tmp_path: Path) -> None:
    values = gradient(3) * 257
    data = [row.astype(">u2").tobytes() for row in values]
    clear = [int(value) for value in values[3, 4]]
    right = gradient(3)
    right[3, 4] = 255
    pixels = decoded(png(data, SIDE, 16, 2, chunk(b"tRNS", struct.pack(">HHH", *clear))), tmp_path)
    assert np.abs(pixels.astype(int) - right).max() <= 1


ROWS = [row.astype(np.uint8).tobytes() for row in gradient(3)]
TOO_LARGE = zlib.compress(bytes(5_000_000), 9)
METADATA = {
    "EXIF without a header": chunk(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03" + bytes(16)),
    "a large profile": chunk(b"iCCP", b"icc\0\0" + TOO_LARGE),
    "a damaged profile": chunk(b"iCCP", b"icc\0\0not packed"),
    "a profile packed in another way": chunk(b"iCCP", b"icc\0\7" + TOO_LARGE),
    "a large text": chunk(b"zTXt", b"c\0\0" + TOO_LARGE),
    "a text packed in another way": chunk(b"zTXt", b"c\0\7" + TOO_LARGE),
    "a large international text": chunk(b"iTXt", b"c\0\1\0\0\0" + TOO_LARGE),
    "a text that is no UTF-8": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0\xff\xfe\xfa"),
    "many texts": b"".join(chunk(b"tEXt", b"c%d\0" % i + bytes(50_000)) for i in range(3)),
    "a text with a wrong sum": chunk(b"tEXt", b"a\0b")[:-4] + b"oops",
    "half a gamma": chunk(b"gAMA", b"\0"),
    "half an animation": chunk(b"acTL", b"\0"),
}


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("what", METADATA)
def test_whole_pixels_are_kept_whatever_lies_around_them(
    what: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 100_000)  # bytes, in place of 64 million
    data = png(ROWS, SIDE, 8, 2, **{where: METADATA[what]})
    assert np.array_equal(decoded(data, tmp_path), gradient(3))
    facts, _ = look_at(str(tmp_path / "x.img"))
    assert facts.error is None and (facts.width, facts.height) == (SIDE, SIDE)


def test_exif_beside_a_damaged_text_still_turns(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = png(ROWS, SIDE, 8, 2, METADATA["a large text"] + chunk(b"eXIf", exif.tobytes()[6:]))
    assert np.array_equal(decoded(data, tmp_path), np.rot90(gradient(3), -1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (6, 7)])
def test_a_png_of_any_one_colour_is_not_taken_for_a_short_one(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    for value in (0, 1, 165, 255):  # decoding begins on 165, then on 0
        colour: Any = (value,) * len(mode) if mode in ("LA", "RGB", "RGBA") else value
        Image.new(mode, size, colour).save(tmp_path / "x.png")
        assert decode(tmp_path / "x.png", 4).shape == (3, 4, 4)


# --- turning, profiles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(10))
def test_jpegs_and_tiffs_are_turned_as_pillow_turns_them(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for format, options in (("jpeg", {"quality": 95}), ("tiff", {})):
        data = saved(photograph((48, 48)), format, exif=exif, **options)
        with Image.open(io.BytesIO(data)) as file:
            upright = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
        assert np.array_equal(decoded(data, tmp_path, 48), upright)


def test_a_colour_profile_changes_no_pixel_and_is_told_unless_it_is_srgb(tmp_path: Path) -> None:
    image = photograph((48, 48))
    for kind, told in (("sRGB", ""), ("LAB", "Lab identity built-in")):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(kind)).tobytes()  # type: ignore[arg-type]
        image.save(tmp_path / "x.png", icc_profile=profile)
        pixels, noticed = decode_and_notice(tmp_path / "x.png", 48)
        assert np.array_equal(pixels.transpose(1, 2, 0), np.asarray(image)) and noticed.profile == told
    image.save(tmp_path / "x.png", icc_profile=b"no profile")
    assert decode_and_notice(tmp_path / "x.png", 48)[1].profile == "unreadable"


# --- what is opened, and what it costs -------------------------------------------------------------------------------


def test_postscript_with_the_name_of_a_png_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executed = tmp_path / "executed"
    for name in ("gs", "gswin32c", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {executed}\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    program = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "drawn.png").write_text(program)
    for look in (lambda path: decode(path, 8), lambda path: opened(path).__enter__()):
        with pytest.raises(ValueError, match="not an image"):
            look(tmp_path / "drawn.png")
    assert look_at(str(tmp_path / "drawn.png"))[0].error == "not an image" and not executed.exists()


@pytest.mark.parametrize("format", ["ico", "jpeg2000", "pdf", "eps", "tga", "pcx", "sgi", "dds", "icns", "msp"])
def test_formats_of_other_endings_are_not_opened(format: str, tmp_path: Path) -> None:
    image = Image.new("1" if format == "msp" else "RGB", (64, 64), 1)
    assert refused(saved(image, format), tmp_path) == "not an image"


@pytest.mark.parametrize("format", ["bmp", "gif", "jpeg", "png", "ppm", "tiff", "webp", "mpo"])
def test_the_content_says_the_format_not_the_ending(format: str, tmp_path: Path) -> None:
    more = {"save_all": True, "append_images": [photograph((64, 64))]} if format == "mpo" else {}
    data = saved(photograph((64, 64)), format, **more)
    (tmp_path / "x.png").write_bytes(data)
    assert decode(tmp_path / "x.png", 64).std() > 10


@pytest.mark.usefixtures("impatient")
def test_only_ordinary_files_of_bounded_size_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(2 * 10**9)  # takes no room
    for name, reason in (("pipe.png", "not an ordinary file"), ("large.png", "2,000,000,000 bytes, more than")):
        with pytest.raises(ValueError, match=reason):
            decode(tmp_path / name, 8)
    with pytest.raises(ValueError, match="not an ordinary file"):
        decode("/dev/zero", 8)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        decode(tmp_path / "gone.png", 8)


PEAK = """
import sys
from vitbench.data.decode import decode
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
decode(sys.argv[1], 8)
print(1024 * (peak() - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of its memory from /proc")
def test_a_small_png_takes_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png([bytes(2 * 4000)] * 3000, 4000, 16, 0))
    command = [sys.executable, "-c", PEAK, str(tmp_path / "x.png")]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert int(done.stdout) <= 12 * 4000 * 3000  # 12 bytes for each pixel; at once, and decoded twice, it was 28


def test_bands_change_no_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clear = photograph((40, 40)).convert("RGBA")
    clear.putalpha(Image.fromarray(gradient(1).astype(np.uint8)).resize((40, 40)))
    grey = Image.fromarray((np.asarray(photograph((40, 40)).convert("L")).astype(np.uint16)) * 200)
    palette = photograph((40, 40)).quantize(16)
    for image, options in ((clear, {}), (grey, {}), (palette, {"transparency": 3}), (clear.convert("LA"), {})):
        image.save(tmp_path / "x.png", **options)
        at_once = decode(tmp_path / "x.png", 40)
        monkeypatch.setattr(decode_module, "BAND", 7 * 40)
        assert np.array_equal(decode(tmp_path / "x.png", 40), at_once)
        monkeypatch.undo()
