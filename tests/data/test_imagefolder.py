from __future__ import annotations

import errno
import io
import json
import os
import re
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from vitbench.data import imagefolder
from vitbench.data.decode import decode, decode_and_notice
from vitbench.data.imagefolder import load
from vitbench.data.refusals import imagefolder as refuse
from vitbench.data.split import Dataset
from vitbench.errors import DataError, UserError

SIZE = 8
RANDOM = np.random.default_rng(0)


def draw(path: Path | bytes, size: tuple[int, int] = (SIZE, SIZE)) -> None:
    """One image of random pixels, unlike every other."""
    path = os.fsencode(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        Image.fromarray(RANDOM.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(file, "png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, cat and dog, of three images in train and two in test."""
    for split, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                draw(tmp_path / "pets" / split / name / f"{i}.png")
    return tmp_path / "pets"


def opened(root: Path, **options: Any) -> Dataset:
    return load(root=root, cache=root.parent / "cache", **options)


def refused(root: Path, **options: Any) -> str:
    """The message with which the folder is refused, one line."""
    with pytest.raises(DataError) as error:
        opened(root, **options)
    assert "\n" not in str(error.value) and error.value.exit_code == 3
    str(error.value).encode()  # raises an error where the text is not valid Unicode
    return str(error.value)


def test_images_labels_and_classes_are_those_of_the_folders(root: Path) -> None:
    dataset = opened(root)
    assert dataset.classes == ("cat", "dog") and dataset.warnings == ()
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert dataset.train.images.shape == (6, 3, SIZE, SIZE)
    for image, name in zip(dataset.test.images, ("cat/0", "cat/1", "dog/0", "dog/1"), strict=True):
        assert np.array_equal(image.transpose(1, 2, 0), np.asarray(Image.open(root / "test" / f"{name}.png")))


def test_val_stands_in_for_test_and_classes_may_have_folders(root: Path) -> None:
    (root / "test").rename(root / "val")
    (root / "val" / "cat" / "2024" / "may").mkdir(parents=True)
    (root / "val" / "cat" / "0.png").rename(root / "val" / "cat" / "2024" / "may" / "x.PNG")
    dataset = opened(root)
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert dataset.warnings == (
        "train/ holds the training images, val/ the test images; validation images are cut from the training images "
        "(data.val_fraction)",
    )


def test_a_copy_elsewhere_has_the_same_fingerprint_and_a_changed_file_another(root: Path) -> None:
    first = opened(root).fingerprint
    assert opened(root.rename(root.parent / "copy")).fingerprint == first
    draw(root.parent / "copy" / "train" / "cat" / "1.png")
    assert opened(root.parent / "copy").fingerprint != first


def decoded_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list to which every path is added that is decoded from now on."""
    paths: list[str] = []

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda path, *options, **more: paths.append(path) or function(path, *options, **more)

    monkeypatch.setattr(imagefolder, "decode", noting(decode))
    monkeypatch.setattr(imagefolder, "decode_and_notice", noting(decode_and_notice))
    return paths


@pytest.mark.parametrize("change", ["time", "size", "new file", "renamed"])
def test_changed_files_are_decoded_again_and_unchanged_ones_are_not(
    change: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = decoded_paths(monkeypatch)
    opened(root)
    opened(root)
    assert len(decoded) == 10
    path = root / "train" / "dog" / "1.png"
    if change == "time":
        os.utime(path, (1, 1))
    elif change == "size":
        status = path.stat()
        path.write_bytes(path.read_bytes() + b"x")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "renamed":
        path.rename(path.with_name("9.png"))
    else:
        draw(path.with_name("9.png"))
    opened(root)
    assert len(decoded) == (21 if change == "new file" else 20)


def test_several_processes_decode_what_one_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagefolder, "CHUNK", 3)
    (root / "train" / "dog" / "1.png").write_bytes(b"")
    alone, together = (
        load(root=root, cache=root.parent / name, workers=workers, skip_broken=True)
        for name, workers in (("a", 1), ("b", 2))
    )
    assert alone.fingerprint == together.fingerprint and alone.warnings == together.warnings
    assert np.array_equal(alone.train.images, together.train.images)


# --- the rule of conversion ------------------------------------------------------------------------------------------

RED, WHITE, GREY = (255, 0, 0), (255, 255, 255), (100, 100, 100)


def palette() -> Image.Image:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 9, 9, *RED])
    return image


def animation() -> bytes:
    buffer, frames = io.BytesIO(), [Image.new("RGB", (4, 4), colour) for colour in (RED, (0, 255, 0))]
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def grey16(value: int) -> Image.Image:
    return Image.fromarray(np.full((4, 4), value, np.uint16))


MODES: dict[str, tuple[bytes, tuple[int, int, int]]] = {
    "grey": (saved(Image.new("L", (4, 4), 100), "png"), GREY),
    "grey, half transparent": (saved(Image.new("LA", (4, 4), (100, 51)), "png"), (224, 224, 224)),
    "transparent": (saved(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "png"), WHITE),
    "half transparent": (saved(Image.new("RGBA", (4, 4), (255, 0, 0, 51)), "png"), (255, 204, 204)),
    "palette": (saved(palette(), "png"), RED),
    "palette, transparent": (saved(palette(), "png", transparency=1), WHITE),
    "one colour transparent": (saved(Image.new("RGB", (4, 4), RED), "png", transparency=RED), WHITE),
    "CMYK tiff": (saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "tiff"), RED),
    "CMYK jpeg": (saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "jpeg", quality=100), RED),
    "1 bit white": (saved(Image.new("1", (4, 4), 1), "png"), WHITE),
    "1 bit black": (saved(Image.new("1", (4, 4), 0), "png"), (0, 0, 0)),
    "16 bit": (saved(grey16(100 * 257), "png"), GREY),
    "16 bit, dark": (saved(grey16(200), "png"), (1, 1, 1)),
    "16 bit tiff, white": (saved(grey16(65535), "tiff"), WHITE),
    "16 bit pgm": (b"P5 4 4 65535\n" + struct.pack(">16H", *[100 * 257] * 16), GREY),
    "animation": (animation(), RED),
    "1 x 1": (saved(Image.new("RGB", (1, 1), RED), "png"), RED),
    "webp": (saved(Image.new("RGB", (4, 4), RED), "webp", lossless=True), RED),
    "bmp": (saved(Image.new("RGB", (4, 4), RED), "bmp"), RED),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb_by_the_stated_rule(mode: str, tmp_path: Path) -> None:
    data, colour = MODES[mode]
    (tmp_path / "x").write_bytes(data)
    image = decode(tmp_path / "x", SIZE)
    assert image.shape == (3, SIZE, SIZE) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - np.array(colour)[:, None, None]).max() <= (1 if mode == "CMYK jpeg" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(orientation: int, tmp_path: Path) -> None:
    upright = np.zeros((SIZE, SIZE, 3), np.uint8)
    upright[0, :, 0] = 255  # a red line on top
    upright[:, 0, 2] = 255  # a blue line on the left
    T = Image.Transpose  # below, those of the orientations 2 to 8
    turns = [T.FLIP_LEFT_RIGHT, T.ROTATE_180, T.FLIP_TOP_BOTTOM, T.TRANSPOSE, T.ROTATE_90, T.TRANSVERSE, T.ROTATE_270]
    stored, exif = Image.fromarray(upright), Image.Exif()
    if orientation > 1:
        stored = stored.transpose(turns[orientation - 2])
    exif[0x0112] = orientation
    stored.save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(decode(tmp_path / "x.png", SIZE).transpose(1, 2, 0), upright)


@pytest.mark.parametrize("across", [False, True])
def test_of_a_strip_the_middle_is_kept(across: bool, tmp_path: Path) -> None:
    strip = np.zeros((10, 10_000), np.uint8)
    strip[:, 4995:5005] = 50 + 10 * np.arange(10)[:, None]
    Image.fromarray(strip.T if across else strip).save(tmp_path / "x.png")
    resized = np.asarray(Image.fromarray(strip).resize((32_000, 32), Image.Resampling.BILINEAR))
    middle, resized_middle = strip[:, 4995:5005], resized[:, 15_984:16_016]
    if across:
        middle, resized_middle = middle.T, resized_middle.T
    assert np.array_equal(decode(tmp_path / "x.png", 10)[0], middle)
    assert np.abs(decode(tmp_path / "x.png", 32)[0].astype(int) - resized_middle).max() <= 1


@pytest.mark.parametrize("width", [SIZE + 1, SIZE + 2, SIZE + 5])
def test_a_cut_without_resizing_leaves_the_pixels_as_they_are(width: int, tmp_path: Path) -> None:
    draw(tmp_path / "x.png", (width, SIZE))
    left = (width - SIZE) // 2
    whole = np.asarray(Image.open(tmp_path / "x.png"))
    assert np.array_equal(decode(tmp_path / "x.png", SIZE).transpose(1, 2, 0), whole[:, left : left + SIZE])


def test_large_images_are_averaged_not_sampled(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)  # black and white alternate
    for name in ("x.png", "x.jpg"):
        Image.fromarray(board).save(tmp_path / name)
        assert np.abs(decode(tmp_path / name, SIZE).astype(int) - 128).max() <= 4


def test_float_pixels_have_no_rule_and_are_refused(tmp_path: Path) -> None:
    fractions, large = np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70_000, np.int32)
    for image, message in ((fractions, "floating-point"), (large, "16 bit")):
        Image.fromarray(image).save(tmp_path / "x.tif")
        with pytest.raises(ValueError, match=message):
            decode(tmp_path / "x.tif", SIZE)


@pytest.mark.parametrize("other", [(SIZE, SIZE + 1), (SIZE + 1, SIZE + 1)])
def test_without_a_size_all_images_must_have_one_and_be_square(other: tuple[int, int], root: Path) -> None:
    assert opened(root).train.image_size == SIZE
    draw(root / "train" / "dog" / "9.png", other)
    message = refused(root)
    assert f"{root}/train/dog/9.png has {other[0]} x {other[1]} px" in message
    assert "set data.image_size=PIXELS" in message
    assert opened(root, image_size=6).train.images.shape == (7, 3, 6, 6)


# --- broken files ----------------------------------------------------------------------------------------------------


def png(
    width: int, height: int, rows: int, *, depth: int = 1, interlaced: bool = False, content: bytes | None = None
) -> bytes:
    """A black grey-scale PNG whose header promises `height` rows; it holds `content` and then `rows` rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pack, line = zlib.compressobj(9), bytes(1 + (width * depth + 7) // 8)
    packed = pack.compress(content or b"") + b"".join(pack.compress(line) for _ in range(rows)) + pack.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def cut_and_ended() -> bytes:
    data = saved(Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), np.uint8)), "jpeg")
    return data[: len(data) // 2] + b"\xff\xd9"


BROKEN: dict[str, Callable[[], bytes]] = {
    "empty.png": lambda: b"",
    "text.png": lambda: b"not an image\n",
    "cut.jpg": lambda: saved(Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), np.uint8)), "jpeg")[:1500],
    "short.png": lambda: png(64, 64, 10),
    "cut and ended.jpg": lambda: cut_and_ended(),
    "script.png": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
    "float.tif": lambda: saved(Image.new("F", (8, 8)), "tiff"),
    "bomb.png": lambda: png(20_000, 20_000, 20_000),
    "110 megapixels.png": lambda: png(11_000, 10_000, 10_000),  # of which Pillow only warns
    "half a bomb.png": lambda: png(12_000, 10_000, 1),
}


def test_a_400_megapixel_png_is_small_on_disk() -> None:
    assert len(BROKEN["bomb.png"]()) < 60_000


def test_broken_files_are_all_named_or_skipped_and_decoded_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = decoded_paths(monkeypatch)
    whole = opened(root, image_size=SIZE)
    decoded.clear()
    for name, data in BROKEN.items():
        (root / "train" / "cat" / name).write_bytes(data())
    message = refused(root, image_size=SIZE)
    assert message.startswith("10 broken files: ") and message.endswith("or set data.skip_broken=true")
    assert "11,000 x 10,000 px, more than 100,000,000 pixels" in message
    dataset = opened(root, image_size=SIZE, skip_broken=True)
    assert len(decoded) == 10 + len(BROKEN)
    for name in BROKEN:
        assert f"{root}/train/cat/{name} (" in message and f"{root}/train/cat/{name} (" in dataset.warnings[0]
    assert dataset.fingerprint == whole.fingerprint and np.array_equal(dataset.train.images, whole.train.images)


def test_what_is_noticed_in_whole_files_is_told_once_with_its_number(root: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for split in ("train", "test"):
        Image.new("RGB", (SIZE, SIZE), RED if split == "train" else GREY).save(
            root / split / "cat" / "new.png", icc_profile=profile
        )
        dark = np.full((SIZE, SIZE), 200 if split == "train" else 40_000, np.uint16)
        Image.fromarray(dark).save(root / split / "dog" / "new.png")
    assert opened(root).warnings == (
        "1 of 14 images are grey of 12 or 16 bits and use at most 1/16 of their range, so they are nearly black; scale "
        "their values up",
        "2 of 14 images have a colour profile other than sRGB, which is ignored: 1 profile: Lab identity built-in",
    )


def test_only_folders_whose_files_are_read_by_another_rule_now_are_decoded_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in [*root.rglob("*.png")]:
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    decoded = decoded_paths(monkeypatch)
    versions: list[dict[str, int]] = [{}, {".png": 2, ".jpg": 3}, {".bmp": 2}]
    for version in versions:
        monkeypatch.setattr(imagefolder, "DECODING", version)
        opened(root)
    assert len(decoded) == 20


def test_broken_files_do_not_hide_the_common_size(root: Path) -> None:
    (root / "train" / "cat" / "0.png").write_bytes(b"")
    assert f"1 broken file: {root}/train/cat/0.png (not an image)" in refused(root)
    assert opened(root, skip_broken=True).train.image_size == SIZE


@pytest.mark.parametrize("depth, channels", [(1, 1), (8, 1), (8, 3), (8, 4), (16, 1)])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (9, 8), (64, 33)])
def test_whole_pngs_are_not_taken_for_short_ones(
    size: tuple[int, int], depth: int, channels: int, tmp_path: Path
) -> None:
    mode = {(1, 1): "1", (8, 1): "L", (8, 3): "RGB", (8, 4): "RGBA", (16, 1): "I;16"}[depth, channels]
    Image.new(mode, size).save(tmp_path / "x.png")
    assert decode(tmp_path / "x.png", SIZE).max() in (0, 255)  # transparent pixels are 255


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("missing", [0, 1, 4])  # bytes; the last row has 4, and Pillow itself notices a cut row
def test_a_png_that_lacks_the_end_is_noticed(missing: int, interlaced: bool, tmp_path: Path) -> None:
    # 3 x 5 grey pixels; the passes are 1x1, none, 1x1, 1x2, 2x1, 1x3 and 3x2, and each row begins with a filter byte
    whole = 2 + 2 + 4 + 3 + 6 + 8 if interlaced else 5 * 4
    (tmp_path / "x.png").write_bytes(png(3, 5, 0, depth=8, interlaced=interlaced, content=bytes(whole - missing)))
    if missing:
        with pytest.raises(ValueError, match="too few rows" if missing == 4 else "truncated"):
            decode(tmp_path / "x.png", SIZE)
    else:
        assert decode(tmp_path / "x.png", SIZE).max() == 0


def test_when_no_file_of_a_class_can_be_read_skipping_is_no_answer(root: Path) -> None:
    for path in (root / "test" / "dog").iterdir():
        path.write_bytes(b"")
    assert "no test images are left of 1 class: dog" in refused(root, skip_broken=True)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    assert "none of the 10 files can be read as an image" in refused(root, skip_broken=True)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.ENOENT, errno.EIO])
def test_what_the_system_refuses_is_no_broken_image_and_is_not_remembered(
    code: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str, **_: Any) -> None:
        raise OSError(code, os.strerror(code), path)

    with monkeypatch.context() as system:
        system.setattr(Image, "open", fail)
        message = refused(root, image_size=SIZE, skip_broken=True)
    assert message == f"{root}/train/cat/0.png cannot be read: {os.strerror(code)}"
    assert len(opened(root, image_size=SIZE, skip_broken=True).train) == 6


# --- what is no image, links -----------------------------------------------------------------------------------------


def test_hidden_and_other_files_are_ignored_and_counted(root: Path) -> None:
    before = opened(root).fingerprint
    draw(root / "train" / ".hidden" / "x.png")
    draw(root / "train" / "cat" / ".cache" / "x.png")
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "notes.txt"):
        (root / "train" / "cat" / name).write_bytes(b"x")
    for name in (".DS_Store", "Thumbs.db", "labels.csv"):
        (root / "test" / name).write_bytes(b"x")
    dataset = opened(root)
    assert dataset.fingerprint == before and dataset.classes == ("cat", "dog")
    assert dataset.warnings == (
        "ignored 8 hidden files",
        "ignored 2 files: notes.txt, labels.csv (without the ending of an image)",
    )


@pytest.mark.parametrize("name", ["a.png", "z.png"])
def test_a_link_to_an_image_of_the_split_does_not_count_twice(name: str, root: Path) -> None:
    before = opened(root).fingerprint
    (root / "train" / "cat" / name).symlink_to("0.png")
    dataset = opened(root)
    assert dataset.fingerprint == before
    assert dataset.warnings == ("ignored 1 link to images or folders that are read anyway",)


@pytest.mark.parametrize("target", [".", "..", "../..", "../dog", "../../../pets"])
def test_loops_of_links_end_and_bring_no_image_twice(target: str, root: Path) -> None:
    before = opened(root).fingerprint
    (root / "train" / "cat" / "a loop").symlink_to(target)
    dataset = opened(root)
    assert dataset.fingerprint == before and len(dataset.warnings) == 1


def test_links_to_elsewhere_in_the_root_are_read(root: Path) -> None:
    (root / "pool").mkdir()
    draw(root / "train" / ".pool" / "hidden.png")
    (root / "train" / "cat" / "0.png").rename(root / "pool" / "0.png")
    (root / "train" / "cat" / "0.png").symlink_to(root / "pool" / "0.png")
    (root / "train" / "cat" / "1.png").unlink()
    (root / "train" / "cat" / "1.png").symlink_to("../.pool/hidden.png")
    assert opened(root).train.labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("place", ["train", "train/bird", "train/cat/more", "train/cat/more.png"])
def test_links_out_of_the_root_need_permission(place: str, root: Path) -> None:
    outside = root.parent / "outside"
    draw(outside / "more.png")
    if place == "train/bird":
        draw(root / "test" / "bird" / "0.png")
    if place == "train":
        outside = (root / "train").rename(root.parent / "elsewhere")
    elif place.endswith(".png"):
        outside = outside / "more.png"
    else:
        (outside / "loop").symlink_to(outside)
    (root / place).symlink_to(outside)
    message = refused(root)
    assert f"{root}/{place} is a link out of data.root, to {outside}" in message
    assert "data.follow_links=true" in message
    assert len(opened(root, follow_links=True).train) == (6 if place == "train" else 7)


@pytest.mark.parametrize("target", ["gone.png", "a.png"])  # the second is the link itself
def test_broken_links_are_named(target: str, root: Path) -> None:
    (root / "train" / "cat" / "a.png").symlink_to(target)
    assert f"{root}/train/cat/a.png is a broken link (to {target})" in refused(root, follow_links=True)


def test_a_pipe_is_named_and_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "train" / "cat" / "pipe.png")
    assert f"{root}/train/cat/pipe.png is not an ordinary file" in refused(root)


# --- classes ---------------------------------------------------------------------------------------------------------


def folder(root: Path, train: list[Any], test: list[Any] | None = None) -> Path:
    """One image in each class; test has the classes of train where none are given."""
    for split, names in (("train", train), ("test", train if test is None else test)):
        for name in names:
            draw(os.path.join(os.fsencode(root / split), os.fsencode(name), b"0.png"))
    return root


def test_class_names_that_look_like_values_stay_text(tmp_path: Path) -> None:
    names = ["1.10", "12:30:00", "<script>alert(1)", "=cmd|'C calc'!A0", "a_b%$#{}", "no", "null", "été"]
    assert opened(folder(tmp_path / "x", names)).classes == tuple(sorted(names))


def test_class_names_that_are_no_text_are_shown_with_escapes(tmp_path: Path) -> None:
    root = folder(tmp_path / "x", [b"caf\xe9", b"th\xe9", "line\nbreak"])
    for dataset in (opened(root), opened(root)):
        assert dataset.classes == (r"caf\xe9", r"line\nbreak", r"th\xe9")
        assert json.loads(json.dumps(dataset.classes, ensure_ascii=False).encode()) == list(dataset.classes)
    (tmp_path / "x" / "train" / "line\nbreak" / "0.png").write_bytes(b"")
    assert r"line\nbreak/0.png (" in refused(root)


ALIKE = {
    "case": ("Cat", "cat"),
    "trailing space": ("cat", "cat "),
    "Unicode form": ("caf\u00e9", "cafe\u0301"),
    "full width": ("cat", "\uff43at"),
    "an escape": (b"caf\xe9", r"caf\xe9"),
}


@pytest.mark.parametrize("across", [False, True], ids=["within a split", "between train and test"])
@pytest.mark.parametrize("how", ALIKE)
def test_class_names_that_one_would_confuse_are_both_named(how: str, across: bool, tmp_path: Path) -> None:
    one, other = ALIKE[how]
    root = folder(tmp_path / "x", ["dog", one], ["dog", other]) if across else folder(tmp_path / "x", [one, other])
    message = refused(root)
    assert "differ only in case, space or Unicode form" in message
    assert all(ascii(os.fsdecode(name)) in message for name in (one, other))


def test_folders_that_no_classifier_can_learn_from_say_what_is_missing(tmp_path: Path) -> None:
    assert "there is only one class, cat" in refused(folder(tmp_path / "one", ["cat"]))
    root = folder(tmp_path / "two", ["cat", "dog"], ["cat", "cow"])
    assert "cow (only in test), dog (only in train)" in refused(root)
    root = folder(tmp_path / "three", ["cat", "dog"])
    (root / "test" / "cow").mkdir()
    assert f"{root}/test: no images in 1 class: cow (endings of images: .bmp" in refused(root)


def test_folders_of_another_layout_say_what_is_expected(tmp_path: Path) -> None:
    expected = "expected <class>/*, or train/<class>/* and test/<class>/* (or val/<class>/*), or data.labels=FILE.csv"
    root = tmp_path / "x"
    message = refused(root)
    assert message.startswith(f"data.root={root}: no such folder") and expected in message
    root.mkdir()
    assert "has no class folders" in refused(root) and expected in refused(root)
    draw(root / "val" / "cat" / "0.png")
    assert "has no folder train" in refused(root) and expected in refused(root)
    draw(root / "train" / "0.png")
    assert f"{root}/train holds no class folders; expected train/<class>/*, or data.labels=" in refused(root)
    file = tmp_path / "file.zip"
    file.write_text("")
    assert f"data.root={file}: is a file" in refused(file)


def test_a_folder_that_may_not_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if str(path).endswith("dog"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert refused(root) == f"{root}/train/dog cannot be read: Permission denied"


# --- images that occur twice -----------------------------------------------------------------------------------------


def copy(root: Path, source: str, target: str) -> None:
    (root / target).write_bytes((root / source).read_bytes())


def test_images_of_train_that_are_also_in_test_are_listed(root: Path) -> None:
    copy(root, "train/cat/0.png", "test/cat/7.png")
    Image.open(root / "train/dog/2.png").save(root / "test/dog/8.bmp")  # another file with the same pixels
    pairs = "train/cat/0.png = test/cat/7.png, train/dog/2.png = test/dog/8.bmp"
    expected = f"the same image is in train and in test: 2 images: {pairs}"
    assert opened(root).warnings == (expected,)


def test_images_under_two_classes_are_listed(root: Path) -> None:
    copy(root, "train/cat/0.png", "train/cat/1.png")  # a copy in the same class and split is harmless
    copy(root, "train/cat/0.png", "train/dog/9.png")
    assert opened(root).warnings == ("the same image is in two classes: 1 image: train/cat/0.png = train/dog/9.png",)
    copy(root, "train/cat/0.png", "test/cat/9.png")
    assert opened(root).warnings == (
        "the same image is in train and in test: 1 image: train/cat/0.png = test/cat/9.png",
        "the same image is in two classes: 1 image: train/cat/0.png = train/dog/9.png",
    )


# --- photographs -----------------------------------------------------------------------------------------------------


def photographs(to: Path, per_class: int = 4) -> Path:
    """A few Imagenette photographs of each class; without the archive, drawn JPEGs of such sizes and modes."""
    archive = Path(os.environ.get("VITBENCH_TEST_DATA", "-")) / "imagenette-subset.tar.gz"
    if archive.exists():
        with tarfile.open(archive) as files:
            extracted: Counter[str] = Counter()
            for member in files:
                class_folder = os.path.dirname(member.name)
                if member.isfile() and extracted[class_folder] < per_class:
                    extracted[class_folder] += 1
                    files.extract(member, to, filter="data")
        return to
    for split in ("train", "val"):
        for name in ("n01440764", "n02102040", "n02979186"):
            (to / split / name).mkdir(parents=True)
            for i in range(per_class):
                pixels = RANDOM.integers(0, 256, (6, 8, 3), np.uint8)
                image = Image.fromarray(pixels).resize((298 + i, 224), Image.Resampling.BICUBIC)
                image.convert("L" if i == 0 else "RGB").save(to / split / name / f"{i}.JPEG")
    return to


def test_photographs_of_many_sizes_become_squares_that_still_show_them(tmp_path: Path) -> None:
    root = photographs(tmp_path / "photographs")
    dataset = opened(root, image_size=64)
    K = len(dataset.classes)
    assert np.bincount(dataset.train.labels).tolist() == np.bincount(dataset.test.labels).tolist() == [4] * K
    assert dataset.train.images.shape == (4 * K, 3, 64, 64)
    assert dataset.warnings[0].startswith("train/ holds the training images, val/ the test images")
    assert all("are not square: their middle is cut out" in line for line in dataset.warnings[1:])
    assert np.asarray(dataset.train.images).std(axis=(1, 2, 3)).min() > 10  # no image is of one colour
    first = sorted((root / "train" / dataset.classes[0]).iterdir())[0]
    with Image.open(first) as file:
        whole = file.convert("RGB")
    side = min(whole.size)
    middle = whole.crop([(edge - side) // 2 for edge in whole.size] + [(edge + side) // 2 for edge in whole.size])
    expected = np.asarray(middle.resize((64, 64), Image.Resampling.BOX), float).transpose(2, 0, 1)
    assert np.corrcoef(expected.ravel(), dataset.train.images[0].ravel())[0, 1] > 0.97


# --- folders without a split, tables of labels, images that are not square -------------------------------------------


def plain(root: Path, counts: dict[str, int]) -> Path:
    """Class folders without a split."""
    for name, count in counts.items():
        for i in range(count):
            draw(root / name / f"{i}.png")
    return root


def test_a_folder_of_class_folders_is_split(tmp_path: Path) -> None:
    dataset = opened(plain(tmp_path / "pets", {"cat": 10, "dog": 20}))
    assert dataset.classes == ("cat", "dog")
    assert np.bincount(dataset.train.labels).tolist() == [8, 16] and np.bincount(dataset.test.labels).tolist() == [2, 4]
    assert dataset.warnings == (
        "the 30 images in 2 class folders have no split: 6 of them are the test images (data.test_fraction=0.2)",
    )


def test_another_share_and_another_seed_are_other_test_images(tmp_path: Path) -> None:
    root = plain(tmp_path / "pets", {"cat": 10, "dog": 20})
    half, other = opened(root, test_fraction=0.5), opened(root, split_seed=1)
    assert len(half.test) == 15 and len(other.test) == 6
    assert len({dataset.fingerprint for dataset in (half, other, opened(root))}) == 3


USUAL = {"data.test_fraction": 0.2, "data.split_seed": 0, "data.fit": "crop", "data.labels": None}
NO_FOLDER = {
    "data.test_fraction=0: must be above 0 and below 1": {"data.test_fraction": 0},
    "data.test_fraction=1: must be above 0 and below 1": {"data.test_fraction": 1},
    "data.test_fraction=nan: must be above 0 and below 1": {"data.test_fraction": float("nan")},
    "data.split_seed=-1: must be 0 to 4294967295": {"data.split_seed": -1},
    "data.fit=padd: did you mean pad?": {"data.fit": "padd"},
    "data.labels=: must not be empty": {"data.labels": ""},
}


@pytest.mark.parametrize("message", NO_FOLDER)
def test_what_no_folder_could_mean_is_refused_as_it_was_typed(message: str) -> None:
    refuse(USUAL)
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        refuse(USUAL | NO_FOLDER[message])


def test_a_split_that_nobody_asked_for_is_refused_where_there_are_test_images(root: Path) -> None:
    for options, typed in (
        ({"test_fraction": 0.3}, "test_fraction=0.3"),
        ({"split_seed": 1234567}, "split_seed=1234567"),
    ):
        with pytest.raises(UserError, match=f"^data.{typed}: these images come with test images of their own; drop it"):
            opened(root, **options)


def test_broken_files_of_a_folder_without_a_split_are_named_or_skipped(tmp_path: Path) -> None:
    root = plain(tmp_path / "pets", {"cat": 10, "dog": 10})
    whole = opened(root)
    (root / "cat" / "3broken.png").write_bytes(b"x")
    assert "1 broken file: " in refused(root)
    assert opened(root, skip_broken=True).fingerprint == whole.fingerprint


def test_a_folder_of_broken_files_alone_names_them(tmp_path: Path) -> None:
    root = plain(tmp_path / "pets", {"cat": 2, "dog": 2})
    for path in root.rglob("*.png"):
        path.write_bytes(b"x")
    message = refused(root, image_size=SIZE, skip_broken=True)
    assert "no train images are left of 2 classes: cat, dog after 4 broken files: " in message
    assert "none of the 4 files can be read as an image" in refused(root)


def test_a_table_of_labels_gives_the_classes(tmp_path: Path) -> None:
    root = plain(tmp_path / "pets", {"images": 6})
    kinds = ["train"] * 4 + ["test"] * 2
    lines = [f"images/{i},{'cat' if i % 2 else 'dog'},{kind}" for i, kind in enumerate(kinds)]
    (root / "labels.csv").write_text("\n".join(["id,label,split", *lines]))
    dataset = opened(root, labels="labels.csv")
    assert dataset.classes == ("cat", "dog") and dataset.test.labels.tolist() == [0, 1]
    (root / "labels.csv").write_text("\n".join(["id,label,split", *lines]).replace("cat", "cow"))
    assert opened(root, labels="labels.csv").classes == ("cow", "dog")
    (root / "labels.csv").write_text("\n".join(["id,label,split", "images/0,Cat,train", "images/1,cat,test"]))
    assert "classes 'Cat' and 'cat' differ only in case" in refused(root, labels="labels.csv")


def test_the_labels_of_a_table_are_part_of_what_is_cached(tmp_path: Path) -> None:
    root = plain(tmp_path / "pets", {"images": 8})

    def opened_with(labels: str) -> Dataset:
        lines = [f"{i},{label},{'train' if i < 4 else 'test'}" for i, label in enumerate(labels)]
        (root / "labels.csv").write_text("\n".join(["id,label,split", *(f"images/{line}" for line in lines)]))
        return opened(root, labels="labels.csv")

    assert opened_with("aabbaabb").train.labels.tolist() == [0, 0, 1, 1]
    assert opened_with("aaabaabb").train.labels.tolist() == [0, 0, 0, 1]


def test_a_wide_image_is_cropped_padded_or_squashed(root: Path) -> None:
    wide = np.zeros((SIZE, 2 * SIZE, 3), np.uint8)
    wide[:, :SIZE], wide[:, SIZE:] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(wide).save(root / "train" / "cat" / "0.png")
    images = {}
    for fit, told in (("crop", "middle is cut out"), ("pad", "black borders"), ("squash", "stretched to a square")):
        dataset = opened(root, image_size=SIZE, fit=fit)
        assert "1 of 10 images are not square: " in dataset.warnings[0] and told in dataset.warnings[0]
        images[fit] = dataset.train.images[0]
    half, quarter = SIZE // 2, SIZE // 4
    assert np.array_equal(images["crop"], wide[:, half : half + SIZE].transpose(2, 0, 1))
    assert not images["pad"][:, :quarter].any() and not images["pad"][:, -quarter:].any()
    assert images["pad"][0, half, 0] == 255 and images["pad"][2, half, -1] == 255
    assert images["squash"][0, :, 0].tolist() == images["squash"][2, :, -1].tolist() == [255] * SIZE


@pytest.mark.parametrize("fit", ["pad", "squash"])
def test_a_strip_and_a_square_have_a_rule_in_every_fit(fit: str, tmp_path: Path) -> None:
    Image.new("RGB", (10_000, 10), RED).save(tmp_path / "strip.png")
    assert decode(tmp_path / "strip.png", SIZE, fit).shape == (3, SIZE, SIZE)
    draw(tmp_path / "square.png", (20, 20))
    assert np.array_equal(decode(tmp_path / "square.png", SIZE, fit), decode(tmp_path / "square.png", SIZE))


def test_images_decoded_whenever_they_are_needed_have_the_same_fit(root: Path) -> None:
    draw(root / "train" / "cat" / "0.png", (2 * SIZE, SIZE))
    cached, streamed = opened(root, image_size=SIZE, fit="pad"), opened(root, image_size=SIZE, fit="pad", files=True)
    read: Any = streamed.train.images
    target = np.empty((1, 3, SIZE, SIZE), np.uint8)
    read.prefetch(np.array([0]))(target)
    assert np.array_equal(target[0], cached.train.images[0]) and streamed.fingerprint == cached.fingerprint
