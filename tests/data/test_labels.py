from __future__ import annotations

from pathlib import Path

import pytest

from vitbench.data.labels import labelled
from vitbench.data.layout import Layout
from vitbench.errors import DataError

IMAGES = ("1.jpg", "2.jpg", "more/3.png", "more/4.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four empty files that are images by their endings."""
    for name in IMAGES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def read(root: Path, table: str, encoding: str = "utf-8") -> Layout:
    (root / "labels.csv").write_bytes(table.encode(encoding))
    return labelled(root, "labels.csv", follow_links=False)


def refused(root: Path, table: str) -> str:
    with pytest.raises(DataError) as error:
        read(root, table)
    assert "\n" not in str(error.value) and error.value.exit_code == 3
    return str(error.value)


def classes(layout: Layout) -> dict[str, str]:
    return {file.stamp[0]: file.label for file in layout.train}


EXPECTED = {"1.jpg": "cat", "2.jpg": "dog", "more/3.png": "cat", "more/4.png": "dog"}
TABLES = {
    "usual": "file,label\n1.jpg,cat\n2.jpg,dog\nmore/3.png,cat\nmore/4.png,dog\n",
    "other names": "Class,Filename\ncat,1.jpg\ndog,2.jpg\ncat,more/3.png\ndog,more/4.png\n",
    "no endings": "id,label\n1,cat\n2,dog\nmore/3,cat\nmore/4,dog\n",
    "only other column": "id,breed\n1,cat\n2,dog\nmore/3,cat\nmore/4,dog\n",
    "semicolons": "image;target;size\n1.jpg;cat;9\n2.jpg;dog;9\nmore/3.png;cat;9\nmore/4.png;dog;9\n",
    "tabs": "path\tcategory\n1.jpg\tcat\n2.jpg\tdog\nmore/3.png\tcat\nmore/4.png\tdog\n",
    "from Windows": "\ufefffile,label\r\n1.jpg,cat\r\n2.jpg,dog\r\nmore\\3.png,cat\r\n.\\more\\4.png, dog\r\n\r\n",
    "quotes": 'file,label\n"1.jpg","cat"\n"2.jpg","dog"\n"more/3.png",cat\n"more/4.png",dog',
    "said twice": "file,label\n1.jpg,cat\n1.jpg,cat\n2.jpg,dog\nmore/3.png,cat\nmore/4.png,dog\n",
}


@pytest.mark.parametrize("how", TABLES)
def test_tables_as_people_write_them_are_read(how: str, root: Path) -> None:
    layout = read(root, TABLES[how])
    assert classes(layout) == EXPECTED and layout.test is None and layout.where == "labels.csv"


def test_files_come_class_by_class_whatever_the_order_of_the_lines(root: Path) -> None:
    backwards = "file,label\nmore/4.png,dog\nmore/3.png,cat\n2.jpg,dog\n1.jpg,cat\n"
    assert read(root, backwards).train == read(root, TABLES["usual"]).train
    assert [file.label for file in read(root, backwards).train] == ["cat", "cat", "dog", "dog"]


def test_columns_and_images_that_are_left_out_are_told(root: Path) -> None:
    layout = read(root, "id,breed\n1,cat\n2,dog\n")
    assert layout.notes == (
        "labels.csv: files in column id, classes in column breed; 2 other images below data.root are left out",
    )


def test_the_table_itself_is_no_file_that_is_ignored(root: Path) -> None:
    (root / "notes.txt").touch()
    assert read(root, TABLES["usual"]).ignored == ("ignored 1 file: notes.txt (without the ending of an image)",)


def test_the_column_split_says_which_images_are_test_images(root: Path) -> None:
    layout = read(
        root, "file,label,split\n1.jpg,cat,train\n2.jpg,dog,Train\nmore/3.png,cat,test\nmore/4.png,dog,test\n"
    )
    assert layout.test is not None
    assert [file.stamp[0] for file in layout.train + layout.test] == [*IMAGES] and len(layout.test) == 2


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_images_of_a_table_are_the_test_images_where_it_has_no_others(name: str, root: Path) -> None:
    layout = read(root, f"file,label,split\n1.jpg,cat,train\n2.jpg,dog,train\nmore/3,cat,{name}\nmore/4,dog,{name}\n")
    assert layout.test is not None and len(layout.test) == 2
    assert "lines with split=val are the test images" in layout.notes[0]


def test_validation_images_of_a_table_are_not_used_beside_test_images(root: Path) -> None:
    layout = read(root, "file,label,split\n1.jpg,cat,train\n2.jpg,dog,val\nmore/3.png,cat,test\n")
    assert layout.test is not None and [file.stamp[0] for file in layout.test] == ["more/3.png"]
    assert "lines with split=val are not used: validation images are cut from" in layout.notes[0]


def test_lines_that_are_all_for_training_leave_the_split_to_us(root: Path) -> None:
    assert read(root, "file,label,split\n1.jpg,cat,train\n2.jpg,dog,train\n").test is None


WRONG = {
    "empty": ("", "labels.csv is empty; expected a header, for example file,label"),
    "header alone": ("file,label\n", "labels.csv has no lines; expected a header, for example file,label"),
    "no column of files": (
        "where,label\n1,cat\n",
        "has no column for the file; its columns: where, label; known names",
    ),
    "no column of labels": ("file,a,b\n1,x,y\n", "has no column for the label; its columns: file, a, b; known names"),
    "a column twice": ("file,label,Label\n1,x,y\n", "labels.csv has the column label twice"),
    "missing": (
        "file,label\n1.jpg,cat\n7.jpg,cat\n8,dog\n",
        "labels.csv: 2 rows: 7.jpg, 8: no such image below data.root",
    ),
    "elsewhere": ("file,label\n3.png,cat\n", "; there is more/3.png: paths are relative to data.root"),
    "outside": ("file,label\n../1.jpg,cat\n", "labels.csv: 1 row: ../1.jpg: no such image below data.root"),
    "two labels": ("file,label\n1.jpg,cat\n1,dog\n2,cat\n", "two labels for 1 file: 1 (cat, dog); keep one"),
    "two splits": ("file,label,split\n1,cat,train\n1.jpg,cat,test\n", "1.jpg is in two splits, lines 2 and 3"),
    "no label": ("file,label\n1.jpg,cat\n2.jpg,\n", "labels.csv, line 3 has no label; complete the line or remove it"),
    "no file": ("file,label\n,cat\n", "labels.csv, line 2 has no file"),
    "a split unheard of": ("file,label,split\n1,cat,tran\n", "line 2: split=tran: did you mean train or training?"),
    "no training": ("file,label,split\n1,cat,test\n", "labels.csv: no line has split=train"),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_table_is_refused_in_one_line(how: str, root: Path) -> None:
    table, expected = WRONG[how]
    assert expected in refused(root, table)


def test_a_name_without_its_ending_must_be_of_one_file(root: Path) -> None:
    (root / "1.png").touch()
    assert "line 2: 1 may be 1.jpg, 1.png; add its ending" in refused(root, "file,label\n1,cat\n2,dog\n")


def test_what_is_no_text_and_what_is_not_there_are_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv is not a table of labels: it is not UTF-8 text"):
        read(root, "file,label\n1,caf\u00e9\n", "latin-1")
    with pytest.raises(DataError, match=r"data\.labels=other\.csv: no such file, neither in data\.root="):
        labelled(root, "other.csv", follow_links=False)
    with pytest.raises(DataError, match="no such folder"):
        labelled(root / "nowhere", "labels.csv", follow_links=False)
