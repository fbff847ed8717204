from __future__ import annotations

from pathlib import Path

import pytest

from vitbench.data.layout import Layout, recognise
from vitbench.errors import DataError


def tree(root: Path, *paths: str) -> Path:
    """A folder with empty files at these places, and folders where a path ends in a slash."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).mkdir() if path.endswith("/") else (root / path).touch()
    return root


def recognised(root: Path, *paths: str) -> Layout:
    return recognise(tree(root, *paths), follow_links=False)


def refused(root: Path, *paths: str) -> str:
    with pytest.raises(DataError) as error:
        recognised(root, *paths)
    assert "\n" not in str(error.value)
    return str(error.value)


def below(layout: Layout) -> tuple[list[str], list[str] | None]:
    """The paths of the training images and of the test images, below the root."""
    test = None if layout.test is None else [file.stamp[0] for file in layout.test]
    return [file.stamp[0] for file in layout.train], test


CLASSES = ("cat/1.png", "cat/2.png", "dog/1.png")
TRAIN = ("train/cat/1.png", "train/dog/1.png")


def test_class_folders_alone_have_no_split(tmp_path: Path) -> None:
    layout = recognised(tmp_path, *CLASSES)
    assert below(layout) == (["cat/1.png", "cat/2.png", "dog/1.png"], None)
    assert layout.where == "2 class folders" and [file.label for file in layout.train] == ["cat", "cat", "dog"]


def test_a_folder_train_alone_has_no_split_either(tmp_path: Path) -> None:
    layout = recognised(tmp_path, *TRAIN)
    assert below(layout) == ([*TRAIN], None) and layout.where == "train/" and layout.notes == ()


def test_the_first_level_of_nested_classes_is_the_class(tmp_path: Path) -> None:
    layout = recognised(tmp_path, "animal/cat/1.png", "animal/dog/1.png", "plant/oak/1.png")
    assert [file.label for file in layout.train] == ["animal", "animal", "plant"]


@pytest.mark.parametrize("name", ["test", "Test", "testing", "val", "valid", "validation", "VAL"])
def test_every_usual_name_of_a_second_folder_is_the_test_set(name: str, tmp_path: Path) -> None:
    layout = recognised(tmp_path, *TRAIN, f"{name}/cat/1.png", f"{name}/dog/1.png")
    assert below(layout)[1] == [f"{name}/cat/1.png", f"{name}/dog/1.png"]
    assert (layout.notes == ()) == (name.lower() in ("test", "testing"))  # those two need no word


def test_a_train_folder_may_have_capital_letters(tmp_path: Path) -> None:
    layout = recognised(tmp_path, "Training/cat/1.png", "Training/dog/1.png", "Testing/cat/1.png", "Testing/dog/1.png")
    assert below(layout)[1] == ["Testing/cat/1.png", "Testing/dog/1.png"] and layout.where == "Training/"


def test_beside_a_test_set_val_is_not_used_and_that_is_told(tmp_path: Path) -> None:
    layout = recognised(tmp_path, *TRAIN, "test/cat/1.png", "test/dog/1.png", "val/cat/1.png", "val/dog/1.png")
    assert below(layout) == ([*TRAIN], ["test/cat/1.png", "test/dog/1.png"])
    assert layout.notes == (
        "train/ holds the training images, test/ the test images; val/ is not used; validation images are cut from the "
        "training images (data.val_fraction)",
    )


def test_other_folders_of_images_beside_train_and_test_are_told(tmp_path: Path) -> None:
    others = ("more/1.png", "training/cat/1.png", "docs/readme.txt")
    layout = recognised(tmp_path, *TRAIN, "test/cat/1.png", "test/dog/1.png", *others)
    assert below(layout) == ([*TRAIN], ["test/cat/1.png", "test/dog/1.png"])
    assert layout.notes == (
        "train/ holds the training images, test/ the test images; 2 other folders: training, more, are not used",
    )


@pytest.mark.parametrize("unlabelled", ["test/1.png", "test/", "test/unknown/1.png"])
def test_a_test_folder_without_the_classes_does_not_hide_a_labelled_val(unlabelled: str, tmp_path: Path) -> None:
    layout = recognised(tmp_path, *TRAIN, unlabelled, "val/cat/1.png", "val/dog/1.png")
    assert below(layout)[1] == ["val/cat/1.png", "val/dog/1.png"]
    assert "val/ the test images; test/ " in layout.notes[0] and "is not used" in layout.notes[0]


def test_a_train_folder_is_split_where_test_is_unlabelled(tmp_path: Path) -> None:
    layout = recognised(tmp_path, *TRAIN, "test/1.png", "test/2.png")
    assert below(layout) == ([*TRAIN], None)
    assert layout.notes == ("test/ holds no class folders and is not used",)


def test_train_beside_buses_and_cars_is_a_class(tmp_path: Path) -> None:
    layout = recognised(tmp_path, "train/1.jpg", "bus/1.jpg", "car/1.jpg")
    assert [file.label for file in layout.train] == ["bus", "car", "train"] and layout.test is None


def test_where_train_may_be_a_class_or_hold_the_classes_both_ways_out_are_named(tmp_path: Path) -> None:
    message = refused(tmp_path, "train/steam/1.jpg", "train/diesel/1.jpg", "bus/1.jpg", "docs/readme.txt")
    assert "train/ holds folders and lies beside 1 folder: bus; if train/ is itself a class, rename it" in message
    assert message.endswith(f"if it holds the classes, type data.root={tmp_path}/train")


def test_class_folders_beside_a_test_folder_are_told_to_go_into_train(tmp_path: Path) -> None:
    message = refused(tmp_path, *CLASSES, "test/1.png")
    assert "2 class folders: cat, dog beside test/; put them into train/, or move test/ out of data.root" in message


def test_folders_that_systems_make_are_no_classes_and_are_told(tmp_path: Path) -> None:
    system = ["__MACOSX/cat/1.png", "$RECYCLE.BIN/1.png", "lost+found/", "cat/@eaDir/1.png", "__pycache__/x.pyc"]
    layout = recognised(tmp_path, *CLASSES, *system, ".git/config", ".ipynb_checkpoints/1.png")
    assert len(layout.train) == 3
    assert layout.ignored == (
        "ignored 2 hidden files",
        "ignored 5 system folders: $RECYCLE.BIN, __MACOSX, __pycache__, @eaDir, lost+found",
    )


def test_a_system_folder_in_every_class_is_counted_and_named_once(tmp_path: Path) -> None:
    layout = recognised(
        tmp_path, *CLASSES, "cat/@eaDir/1.png/thumb.jpg", "dog/@eaDir/1.png/thumb.jpg", ".Trashes/1.png"
    )
    assert len(layout.train) == 3
    assert layout.ignored == ("ignored 1 hidden file", "ignored 2 system folders: @eaDir")


def test_what_systems_leave_beside_a_split_is_no_folder_of_images(tmp_path: Path) -> None:
    layout = recognised(tmp_path, *TRAIN, "docs/@eaDir/1.jpg", "docs/.cache/1.png", "docs/._1.png", "#snapshot/1.png")
    assert below(layout) == ([*TRAIN], None) and layout.notes == ()


@pytest.mark.parametrize("unlabelled", [("test/",), ("test/1.png",), ("test/all/1.png",), ("test/cat/", "test/dog/")])
def test_a_test_folder_without_labels_hides_no_labelled_val(unlabelled: tuple[str, ...], tmp_path: Path) -> None:
    layout = recognised(tmp_path, *TRAIN, *unlabelled, "val/cat/1.png", "val/dog/1.png")
    assert below(layout)[1] == ["val/cat/1.png", "val/dog/1.png"]
    [note] = layout.notes
    assert "val/ the test images" in note and "test/ " in note and "is not used" in note


def test_a_system_folder_does_not_make_train_a_class(tmp_path: Path) -> None:
    assert below(recognised(tmp_path, *TRAIN, "__MACOSX/train/._1.png")) == ([*TRAIN], None)


def test_images_beside_class_folders_are_told(tmp_path: Path) -> None:
    layout = recognised(tmp_path, *CLASSES, "cover.jpg", "notes.txt")
    assert layout.ignored == (
        "ignored 1 image: cover.jpg (in no class folder)",
        "ignored 1 file: notes.txt (without the ending of an image)",
    )


def test_a_folder_around_the_classes_is_pointed_out(tmp_path: Path) -> None:
    message = refused(tmp_path, *(f"pets/{path}" for path in CLASSES), "__MACOSX/pets/1.png")
    assert message.endswith(f"only one class, pets; if its folders are the classes, type data.root={tmp_path}/pets")


def test_a_class_given_for_the_folder_of_classes_is_pointed_out(tmp_path: Path) -> None:
    message = refused(tmp_path / "pets" / "cat", "1.png", "../dog/1.png")
    assert message.endswith(f"has no class folders; is it one of the classes of data.root={tmp_path}/pets?")


def test_images_without_any_class_say_what_is_expected(tmp_path: Path) -> None:
    assert "has no class folders; expected <class>/*" in refused(tmp_path / "c", "1.png", "2.png")
    assert "train holds no class folders" in refused(tmp_path / "a", "train/1.png", "test/1.png")
    assert "has no folder train" in refused(tmp_path / "b", "test/cat/1.png", "val/cat/1.png")
