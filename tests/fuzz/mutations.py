"""Files as an accident or an attacker makes them: valid ones with changes, and bytes of no kind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

CODE = "__import__('os').system('touch executed')"
DEEP: Any = [[[[[[[[[[[[[1]]]]]]]]]]]]]
# what a value becomes: of another type, beyond its range, commands for terminals, parsers, shells and paths
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, -(2**64), 10**400, 0.5, 1e308, -1e308, 1e-320, -0.0, float("nan"),
    float("inf"), "", " ", "x", "0", "-1", "1e999", "nan", "null", "1,2", "[1", "a=b", "../../x", "/etc/passwd", "~",
    ".", "${oc.env:HOME}", "${seed}", "\x1b[31m", "a\nb", "a\r\nb", "\0", "é", "\u202e", "\U0001f600", "²", "٣",
    "x" * 300, CODE, "range(10)", "range(0,1e9)", "choice(", "'", '"', "\\", [], {}, [[1]], [None], [1, 2, 3],
    ["a", "a"], {"a": 1}, {"": {"": []}}, DEEP,
]  # fmt: skip
TOKENS = [
    b"\0", b"\0" * 8, b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\x80", b"\n", b"\r", b"\r\n", b"\t", b" ",
    b",", b";", b":", b"-", b"'", b'"', b"\\", b"[", b"]", b"{", b"}", b"[" * 3000, b'{"a":' * 3000, b"- " * 2000,
    b"9" * 30, b"9" * 5000, b"1e999", b"NaN", b"-Infinity", b"null", b"true", b"&a [x]", b"*a",
    b"!!python/object/apply:os.system [ls]", b"%", b"#", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3", b"\x1b]0;x\x07",
    b"${oc.env:HOME}", b"_target_: os.system", CODE.encode(), b"cos\nsystem\n(S'touch executed'\ntR.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93", b"PK\x03\x04", b"\x93NUMPY\x01\x00",
]  # fmt: skip


@st.composite
def changed_bytes(draw: Any, valid: Sequence[bytes]) -> bytes:
    """One of the files with bits or bytes changed, parts lost, doubled or taken from another file, or its end cut."""
    blob = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3, 6]))):
        # headers are short and decide most
        place = draw(st.integers(0, min(len(blob), draw(st.sampled_from([16, 64, 300, len(blob)])))))
        kind = draw(st.integers(0, 7))
        if kind == 0 and place < len(blob):
            blob[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == 1 and place < len(blob):
            blob[place] = draw(st.sampled_from([0, 1, 127, 128, 255, *b"0179-.,"]) | st.integers(0, 255))
        elif kind == 2:
            del blob[place : place + draw(st.sampled_from([1, 2, 4, 40]))]
        elif kind == 3:
            blob[place:place] = blob[place : place + draw(st.sampled_from([1, 4, 40, 400]))]
        elif kind == 4:
            del blob[place:]
        elif kind == 5:
            blob[place:place] = draw(st.sampled_from(TOKENS))
        elif kind == 6:
            token = draw(st.sampled_from(TOKENS))
            blob[place : place + len(token)] = token
        else:
            other = draw(st.sampled_from(valid))
            blob[place:] = other[draw(st.integers(0, len(other))) :]
    return bytes(blob)


@st.composite
def changed_tree(draw: Any, valid: Sequence[Any]) -> Any:
    """One of nested lists and mappings with some values changed, removed, doubled, moved or called otherwise."""
    tree = copy.deepcopy(draw(st.sampled_from(valid)))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        places = [*_places(tree)]
        if not places:
            return draw(st.sampled_from(ODD))
        inside, key = draw(st.sampled_from(places))
        kind = draw(st.integers(0, 9))
        if kind <= 4:
            inside[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
        elif kind == 5:
            del inside[key]
        elif kind == 6:
            other, its = draw(st.sampled_from(places))
            is_there = its in other if isinstance(other, dict) else its < len(other)
            inside[key] = copy.deepcopy(other[its]) if is_there else None
        elif kind == 7:
            inside[key] = draw(st.sampled_from([[inside[key]], {"a": inside[key]}, str(inside[key])]))
        elif isinstance(inside, list):
            inside.insert(key, copy.deepcopy(inside[key]))
        else:
            named = draw(st.sampled_from(["", "x", "a.b", "id", "name", "_target_", "hydra", "defaults", "\x1b", "1"]))
            inside[named] = inside.pop(key)
    return tree


def _places(tree: Any) -> Any:
    """Each place of a tree, as the list or mapping that it is in and its index or key."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield tree, key
        yield from _places(value)


def files(valid: Sequence[Any], form: Callable[[Any], bytes] | None) -> st.SearchStrategy[bytes]:
    """Files for a reader: of `valid` ones, which are bytes, or trees of which `form` makes bytes."""
    blobs: list[bytes] = [*valid] if form is None else [form(tree) for tree in valid]
    changed = changed_bytes(blobs)
    other = st.binary(max_size=200) | st.sampled_from([b"", b"\n", b"[]", b"{}", b"null", b"0", b'"x"', *TOKENS])
    if form is None:
        return st.one_of(changed, changed, changed, changed, other)
    trees = changed_tree(valid).map(form)
    return st.one_of(trees, trees, trees, trees, changed, changed, other)
