"""Programs that a model writes: beginnings of held-out functions and classes, completed byte by byte, that must be
Python.
"""

from __future__ import annotations

import ast
import codeop
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Beginning", "beginnings_of", "complete", "is_python"]

PROMPT: Final = 384
"""Bytes that the model reads, the same for each beginning: one batch without padding."""

GENERATED: Final = 128
"""Bytes that it writes: three or four lines."""

TEMPERATURE: Final = 0.8

_END: Final = 0
"""Byte that ends a document of the built-in model."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a held-out file was cut, between two statements of a function or class.

    Attributes:
        block: Number of its module.
        prompt: The `PROMPT` bytes before the cut.
        definition: The function or class from its first line to the cut: a part of ``prompt``, and Python by itself.
    """

    block: int
    prompt: bytes
    definition: bytes


def beginnings_of(files: Mapping[str, Sequence[bytes]], num_beginnings: int) -> list[Beginning]:
    """Beginnings from all modules in turn; fewer where there are no more.

    Args:
        files: Contents by module.
        num_beginnings: At most.
    """
    by_module = [_of_module(block, contents) for block, contents in enumerate(files.values())]
    in_turn = (each for turn in zip_longest(*by_module) for each in turn if each is not None)
    return [each for each, _ in zip(in_turn, range(num_beginnings), strict=False)]


def _of_module(block: int, contents: Sequence[bytes]) -> Iterator[Beginning]:
    for content in contents:
        yield from _beginnings(block, content)


def _beginnings(block: int, content: bytes) -> Iterator[Beginning]:
    """One of each function and class at a file's top: the longest that the prompt has room for."""
    lines = content.splitlines(keepends=True)
    starts = np.concatenate([[0], np.cumsum([len(line) for line in lines])])
    tree = _parsed(content)
    for node in [] if tree is None else tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        first = int(starts[_first_line(node) - 1])
        cuts = [int(starts[_first_line(statement) - 1]) for statement in node.body[1:]]
        cuts = [cut for cut in cuts if cut >= PROMPT and cut - PROMPT <= first < cut]
        if cuts and _parsed(content[first : cuts[-1]]) is not None:
            yield Beginning(block, content[cuts[-1] - PROMPT : cuts[-1]], content[first : cuts[-1]])


def _first_line(node: ast.stmt) -> int:
    """A statement's first line, decorators included."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def is_python(definition: bytes, completion: bytes) -> bool:
    """Whether the whole lines of a completion continue a definition to something that is Python, or can become it.

    What the model did not end may be unfinished: an open bracket or string is no error, a wrong one is. A completion
    without one whole line is none.
    """
    text, _, _ = completion.partition(bytes([_END]))
    is_ended = len(text) < len(completion)
    if not is_ended:
        text = text[: text.rfind(b"\n") + 1]
    if not text.strip() and not is_ended:
        return False
    source = definition + text
    return _parsed(source) is not None or (not is_ended and _is_unfinished(source))


def _parsed(source: bytes) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # of its text, encoding and depth
            return None


def _is_unfinished(source: bytes) -> bool:
    try:
        return codeop.compile_command(source.decode("utf-8"), symbol="exec") is None
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return False


def complete(
    model: Any, beginnings: Sequence[Beginning], progress: Callable[[int, int], None], seed: int = 0
) -> list[bytes]:
    """Two completions of each beginning: first the likeliest bytes of all, then drawn bytes of all.

    Draws use the same random numbers for every model (Gumbel's trick), so that models that predict alike write alike.

    Args:
        model: Of bytes, in evaluation mode.
        beginnings: What to complete.
        progress: Told bytes written and bytes in all, of each completion.
        seed: Of the random numbers.
    """
    import torch

    prompts = np.frombuffer(b"".join(each.prompt for each in beginnings), np.uint8).reshape(-1, PROMPT)
    tokens = torch.from_numpy(np.concatenate([prompts, prompts]).astype(np.int64)).to(model.device)
    generator, cache, written = torch.Generator().manual_seed(seed), None, []
    for step in range(GENERATED):
        progress(step, GENERATED)
        with torch.inference_mode():
            output = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
            likeliest, drawn = output.logits[:, -1].float().cpu().chunk(2)
            drawn = drawn - TEMPERATURE * torch.rand(drawn.shape, generator=generator).log().neg().log()
            tokens = torch.cat([likeliest, drawn]).argmax(dim=-1, keepdim=True).to(model.device)
        cache = output.past_key_values
        written.append(tokens.cpu().numpy())
    progress(GENERATED, GENERATED)
    found: NDArray[np.uint8] = np.concatenate(written, axis=1).astype(np.uint8)
    return [row.tobytes() for row in found]
