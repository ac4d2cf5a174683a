"""Which standard-library module a source file belongs to, and whether the shipped model was trained on it.

The unit of the split is a module with its tests: ``json/decoder.py``, ``test/test_json/test_dump.py`` and
``_json.py`` all belong to ``json``, so a held-out module is held out with everything written about it. The split
depends on the unit's name alone; it is the same for every Python version and needs no list.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Literal, TypeAlias

__all__ = ["Split", "module_names", "split_of", "unit_of"]

Split: TypeAlias = Literal["train", "validation", "test"]

TRAIN_SHARE = 0.90
VALIDATION_SHARE = 0.05

# Names in the test suite that do not begin with the module they belong to.
_ALIASES = {
    "certdata": "ssl",
    "context": "contextvars",
    "deque": "collections",
    "defaultdict": "collections",
    "minidom": "xml",
    "ordered_dict": "collections",
    "pulldom": "xml",
    "pyexpat": "xml",
    "sax": "xml",
    "strptime": "time",
    "tokenizedata": "tokenize",
    "turtledemo": "turtle",
    "typinganndata": "typing",
    "userdict": "collections",
    "userlist": "collections",
    "userstring": "collections",
}


def split_of(unit: str) -> Split:
    """The split of a unit: SHA-256 of its name, read as a fraction; 90 % train, 5 % validation, 5 % test."""
    fraction = int.from_bytes(hashlib.sha256(unit.encode()).digest()[:8], "big") / 2**64
    if fraction < TRAIN_SHARE:
        return "train"
    return "validation" if fraction < TRAIN_SHARE + VALIDATION_SHARE else "test"


def module_names(paths: Iterable[str]) -> frozenset[str]:
    """Top-level module names among ``paths`` (POSIX, relative to the stdlib folder), without the ``test`` package."""
    return frozenset(_bare(path.split("/")[0]) for path in paths if not path.startswith("test/"))


def unit_of(path: str, modules: frozenset[str]) -> str:
    """The unit that a source file belongs to.

    Args:
        path: POSIX path relative to the stdlib folder.
        modules: `module_names` of the whole stdlib; a test belongs to the module whose name its own name is or
            starts with (``test_threading_local`` to ``threading``), otherwise it is a unit of its own.
    """
    top, *rest = path.split("/")
    if top != "test" or not rest:
        return _bare(top)
    name = re.sub(r"^_?test_", "", rest[0].removesuffix(".py"))
    words = re.split(r"(?=_)|(?=\d)", name)
    prefixes = [_bare("".join(words[:length])) for length in range(len(words), 0, -1)]
    helped = re.sub(r"_?tests?(er)?$", "", name)  # helpers named after what they test: datetimetester, list_tests
    return next((unit for unit in (*prefixes, helped) if unit in modules), prefixes[0])


def _bare(name: str) -> str:
    """A unit's name without the marks of an implementation detail: ``_pydecimal.py`` is ``decimal``."""
    stem = name.removesuffix(".py")
    bare = stem.removeprefix("_py").lstrip("_") if stem.startswith("_") else stem
    return _ALIASES.get(bare, bare)
