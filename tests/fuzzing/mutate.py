"""Valid things made bad: bytes, trees of values (JSON and TOML), and what they are written as."""

import copy
import datetime
import json
import math
from typing import Any

from hypothesis import strategies as st

Tree = Any

_NAN, _INF = math.nan, math.inf
_FLOATS = [_NAN, _INF, -_INF, -1.5, -0.0, 0.5, 1e17, 1e-320, 1e308, -1e308]
_WHOLE = [-1, 0, 3, 1000000, 2**53 + 1, 2**63, 2**64, 10**30, 10**400]
NUMBERS = st.sampled_from([*_FLOATS, *_WHOLE])
_SIGNS = ["", " ", "x", "\x00", "\u202eevil", "é\u0301", "\ufeff", "💥", "a\nb", "a" * 5000]
_WORDS = ["<script>alert(1)</script>", "\"'`", "../../etc/passwd", "/dev/zero", "{{ 7*7 }}", "$x^2$", "%s%n"]
TEXTS = st.sampled_from([*_SIGNS, *_WORDS, "NaN", "1e3", "*", "["])
_LEAVES = st.one_of(
    NUMBERS,
    TEXTS,
    st.sampled_from([None, True, False, datetime.date(2026, 1, 1)]),
    st.integers(),
    st.floats(),
)
VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(tree: Tree, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside ``tree``."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = [at] if at else []
    for key, value in items:
        found += places(value, (*at, key))
    return found


def _one(draw: Any, tree: Tree) -> None:
    """Change one place of ``tree``."""
    path = draw(st.sampled_from(places(tree)))
    above = tree
    for key in path[:-1]:
        above = above[key]
    key, old = path[-1], above[path[-1]]
    kinds = ["replace", "drop", "wrap", "add", "other"]
    kinds += ["rename", "rename"] if isinstance(above, dict) else ["repeat", "swap"]
    kinds += ["number"] * 4 if isinstance(old, int | float) else ["text"] if isinstance(old, str) else []
    kind = draw(st.sampled_from(kinds))
    if kind == "drop":
        del above[key]
    elif kind == "wrap":
        above[key] = draw(st.sampled_from([[old], {"x": old}, [old, old], str(old)]))
    elif kind == "other":  # a value from elsewhere in the same file
        value: Tree = tree
        for part in draw(st.sampled_from(places(tree))):
            value = value[part]
        above[key] = copy.deepcopy(value)
    elif kind == "add":
        new = draw(st.text(max_size=4) | st.sampled_from(["name", "values", "each", "seed"]))
        if isinstance(above, dict):
            above.setdefault(new, draw(VALUES))
        else:
            above.append(draw(VALUES))
    elif kind == "rename":
        new = draw(st.sampled_from([f"{key}x", str(key)[:-1], str(key).upper(), ""]) | st.text(max_size=4))
        above[new] = above.pop(key)
    elif kind == "repeat":
        above.insert(key, copy.deepcopy(old))
    elif kind == "swap":
        other = draw(st.integers(0, len(above) - 1))
        above[key], above[other] = above[other], above[key]
    elif kind == "number":
        small = abs(old) < 1e15  # of larger ones neither sums with fractions nor texts can be had
        near = [-old, old * 1000, old + 0.5, str(old)] if small else [-old]
        above[key] = draw(st.sampled_from(near) | NUMBERS)
    elif kind == "text":
        above[key] = draw(st.sampled_from([f"{old} ", old[:-1], old.swapcase()]) | TEXTS)
    else:
        above[key] = draw(VALUES)


@st.composite
def mutated(draw: Any, tree: Tree) -> Tree:
    """``tree`` with one to three places changed; sometimes it is another thing altogether."""
    if draw(st.integers(0, 30)) == 0:
        return draw(VALUES)
    bad = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        if isinstance(bad, dict | list) and bad:
            _one(draw, bad)
    return bad


_TOKENS = [
    b"\x00",
    b"\xff",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"NaN",
    b"-",
    b"1e999",
    b"\n",
    b"\r",
    b",",
    b'"',
    b"'",
]
_TOKENS += [b"[" * 20_000, b"{" * 20_000, b'{"a":' * 5000, b"[[", b"]]", b"#", b"=", b"9" * 6000, b" " * 3]
_TOKENS += [
    b"0x" + b"f" * 5000,
    "\u202e".encode(),
    "é".encode("utf-16"),
    b"null",
    b"\\ud800",
    b"1_000",
    b"PK\x05\x06",
]


@st.composite
def spoiled(draw: Any, content: bytes) -> bytes:
    """``content`` cut short, with bytes flipped, put in, taken out or repeated."""
    bad = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(bad)))
        kind = draw(st.sampled_from(["flip", "flip", "insert", "delete", "cut", "repeat", "byte"]))
        if kind == "flip" and at < len(bad):
            bad[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte" and at < len(bad):
            bad[at] = draw(st.integers(0, 255))
        elif kind == "insert":
            bad[at:at] = draw(st.sampled_from(_TOKENS))
        elif kind == "delete":
            del bad[at : at + draw(st.sampled_from([1, 2, 7, 100]))]
        elif kind == "repeat":
            bad[at:at] = bad[at : at + draw(st.sampled_from([1, 10, 200]))]
        elif kind == "cut":
            del bad[at:]
    return bytes(bad)


def as_json(tree: Tree) -> bytes:
    """JSON, with the NaN and Infinity that Python's own writer lets through."""
    return json.dumps(tree, default=str).encode("utf-8", "surrogatepass")


def as_toml(tree: Tree) -> bytes:
    """TOML with inline tables; what TOML cannot hold is written in a way that it must refuse."""
    if not isinstance(tree, dict):
        return _toml(tree).encode("utf-8", "surrogatepass")
    return "".join(f"{_key(k)} = {_toml(v)}\n" for k, v in tree.items()).encode("utf-8", "surrogatepass")


def _key(name: Any) -> str:
    return json.dumps(str(name), ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml(value: Tree) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return hex(value) if abs(value) > 10**40 else str(value)
    if isinstance(value, str):
        return _key(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(k)} = {_toml(v)}' for k, v in value.items())}}}"
    return "null" if value is None else str(value)
