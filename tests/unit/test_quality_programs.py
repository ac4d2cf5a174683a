"""Beginnings of held-out programs, and what counts as Python."""

from __future__ import annotations

import ast

import pytest

from qmeter_native.quality.programs import PROMPT, beginnings_of, is_python

HEAD = "# a comment\n" * 40
SOURCE = (
    HEAD
    + '''
@decorated
def first(a):
    """Says nothing."""
    b = a
    return b


class Second:
    x = 1

    @property
    def y(self):
        return 2


short = 3
'''
)


def test_files_are_cut_between_statements_of_functions_and_classes() -> None:
    first, second = beginnings_of({"m": [SOURCE.encode()]}, 9)
    assert first.definition.decode() == '@decorated\ndef first(a):\n    """Says nothing."""\n    b = a\n'
    assert second.definition.decode() == "class Second:\n    x = 1\n\n"
    for each in (first, second):
        assert len(each.prompt) == PROMPT
        assert each.prompt.endswith(each.definition)
        ast.parse(each.definition)


def test_modules_take_turns() -> None:
    files = {"a": [SOURCE.encode()], "b": [b"not python ("], "c": [SOURCE.encode()] * 2}
    assert [each.block for each in beginnings_of(files, 4)] == [0, 2, 0, 2]
    assert [each.block for each in beginnings_of(files, 99)] == [0, 2, 0, 2, 2, 2]


def test_a_file_too_short_for_the_prompt_has_no_beginning() -> None:
    assert beginnings_of({"m": [SOURCE.removeprefix(HEAD).encode()[:120]]}, 9) == []


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (b"    return a\n", True),
        (b"    return a\n    this line is cut in the mid", True),
        (b"    return f(a,\n             b", True),
        (b"    return f(a,\n", True),
        (b'    """A string that\n    goes on\n', True),
        (b"    if a:\n", True),
        (b"    return a\n\n\nclass Next:\n    pass\n", True),
        (b"    return a\0", True),
        (b"", False),
        (b"    no line ends here", False),
        (b"    return a a\n", False),
        (b"    if a\n        b\n", False),
        (b"  return a\n", False),
        (b"    return f(a,\0", False),
        (b"    f(a b,\n", False),
        (b"    x = '\xff'\n", False),
        (b"    return)\n", False),
    ],
)
def test_whole_lines_must_be_python_or_become_it(completion: bytes, expected: bool) -> None:
    assert is_python(b"def f(a):\n    b = a\n", completion) is expected
