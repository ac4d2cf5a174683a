"""Held-out text: windows, excerpts, files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.engines.model_source import BUILTIN_MODEL, ModelSource
from qmeter_native.engines.stdlib_split import split_of
from qmeter_native.errors import EngineError, UsageError
from qmeter_native.quality.corpus import file_text, held_out_files, stdlib_text
from qmeter_native.quality.text import Document, HeldOutText, Window, spread, windows_of

BYTES_MODEL = ModelSource(BUILTIN_MODEL, "builtin", None, SimpleNamespace(vocab_size=256))
HELD_OUT, TRAINED = ("typing", "filecmp"), ("json", "ast")


def document(length: int) -> Document:
    return Document(0, np.arange(length + 1), np.full(length, 1))


@given(st.integers(1, 3000))
def test_windows_score_every_token_once_with_context_where_there_is_some(length: int) -> None:
    windows = windows_of(document(length))
    scored = np.concatenate([window.tokens[-window.num_scored :] for window in windows])
    assert scored.tolist() == list(range(1, length + 1))
    assert sum(window.num_bytes for window in windows) == length
    for window in windows:
        context = len(window.tokens) - window.num_scored
        first = int(window.tokens[-window.num_scored])
        assert len(window.tokens) <= 1025
        assert context >= min(first, 512)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(1, 40_000))
def test_an_excerpt_takes_as_much_of_each_block_as_there_is(lengths: list[int], num_bytes: int) -> None:
    blocks = [[Window(block, np.arange(513), 512, 512) for _ in range(length)] for block, length in enumerate(lengths)]
    chosen = spread(blocks, num_bytes)
    counts = np.bincount([window.block for window in chosen], minlength=len(lengths))
    assert (counts >= 1).all()
    assert (counts <= lengths).all()
    for block, length in enumerate(lengths):
        assert counts[block] in (length, *range(counts.max() - 1, counts.max() + 1))
    assert sum(window.num_bytes for window in chosen) <= num_bytes + 512 * len(lengths)


def test_batches_hold_windows_of_one_shape_and_all_of_them() -> None:
    windows = tuple(Window(0, np.arange(length), 4, 4) for length in (9, 7, 9, 9, 7))
    batches = list(HeldOutText("", ("a",), windows).batches(2))
    assert [[len(window.tokens) for window in batch] for batch in batches] == [[9, 9], [9], [7, 7]]


def test_a_digest_tells_texts_apart() -> None:
    one = HeldOutText("", ("a",), tuple(windows_of(document(900))))
    assert one.digest == HeldOutText("other name", ("a",), tuple(windows_of(document(900)))).digest
    assert one.digest != HeldOutText("", ("a",), tuple(windows_of(document(901)))).digest


@pytest.fixture
def stdlib(tmp_path: Path) -> Path:
    for name in (*HELD_OUT, *TRAINED):
        (tmp_path / f"{name}.py").write_text(f"# {name}\n" + "x = 1\n" * 400)
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "typing.py").write_text("other")
    return tmp_path


def test_only_modules_that_the_model_was_not_trained_on_are_read(stdlib: Path) -> None:
    assert {split_of(name) for name in HELD_OUT} == {"test"}
    files = held_out_files(stdlib)
    assert sorted(files) == sorted(HELD_OUT)
    assert [len(contents) for contents in files.values()] == [1, 1]


def test_an_excerpt_of_the_standard_library_is_the_same_every_time(stdlib: Path) -> None:
    text = stdlib_text(2000, stdlib)
    assert text.digest == stdlib_text(2000, stdlib).digest
    assert text.blocks == tuple(sorted(HELD_OUT))
    assert {window.block for window in text.windows} == {0, 1}
    assert stdlib_text(10**6, stdlib).num_bytes == sum(len((stdlib / f"{name}.py").read_bytes()) for name in HELD_OUT)


def test_a_python_without_sources_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="has no source") as caught:
        held_out_files(tmp_path)
    assert "--text" in (caught.value.hint or "")


def test_a_file_is_cut_at_a_whole_character(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("ä" * 1000)
    text = file_text(path, BYTES_MODEL, 1001)
    assert text.num_bytes == 1000
    assert len(text.blocks) == len(text.windows) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"", "holds no text"), (b"a\0b" * 9, "holds no text"), (b"\xff\xfe" * 9, "no UTF-8")],
)
def test_what_is_no_text_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        file_text(path, BYTES_MODEL)


class WordTokenizer:
    """A token a word; offsets as transformers' fast tokenizers give them."""

    is_fast = True
    bos_token_id = 1
    eos_token_id = 2

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        offsets, begin = [], 0
        for word in text.split(" "):
            offsets.append((begin, begin + len(word)))
            begin += len(word) + 1
        return {"input_ids": [3] * len(offsets), "offset_mapping": offsets}


def test_bytes_of_all_tokens_are_the_bytes_of_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda _: WordTokenizer())
    path = tmp_path / "text.txt"
    path.write_text("größer als alle " * 400 + "Wörter", encoding="utf-8")
    source = ModelSource("m", "directory", "m", SimpleNamespace(vocab_size=5000, max_position_embeddings=128))
    text = file_text(path, source)
    assert text.num_bytes == len(path.read_bytes())
    assert max(len(window.tokens) for window in text.windows) == 129
    assert text.windows[0].tokens[0] == 1


def test_a_model_without_a_tokenizer_is_told_so(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    path = tmp_path / "text.txt"
    path.write_text("some words")
    source = ModelSource("m", "directory", str(tmp_path), SimpleNamespace(vocab_size=5000))
    with pytest.raises(EngineError, match="no tokenizer"):
        file_text(path, source)
