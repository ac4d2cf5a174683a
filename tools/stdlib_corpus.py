"""Prepares the corpus of `builtin:stdlib-lm` from the Python standard library's own source.

    python tools/stdlib_corpus.py --stdlib Python-3.13.0.tar.xz --out .bench/stdlib

The source is a folder or a CPython source tarball. Files are split by module (`qmeter_native.engines.stdlib_split`),
near-duplicates are removed between and inside splits, and four files are written: ``train.xz``, ``validation.xz``,
``test.xz`` (the kept files one after the other, a zero byte before each) and ``manifest.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import platform
import re
import sysconfig
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.engines.stdlib_split import Split, module_names, split_of, unit_of

SPLITS: tuple[Split, ...] = ("test", "validation", "train")
"""In order of precedence: of two near-duplicates the held-out one is kept, so that training loses the text."""

SHINGLE_BYTES = 50
SAMPLE_ONE_IN = 16  # hashed shingles kept: about 1 100 for the median file of 18 kB
MAX_CONTAINMENT = 0.5  # a file is a near-duplicate when this share of its shingles is in one kept file
EXCLUDED = re.compile(r"(^|/)(site-packages|__pycache__|lib-dynload|config-[^/]*)/|(^|/)_sysconfigdata_[^/]*\.py$")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the standard library: POSIX path, bytes, its module and split, and its sampled shingles (uint64)."""

    path: str
    content: bytes
    unit: str
    split: Split
    shingles: frozenset[int]


def read_stdlib(source: Path) -> dict[str, bytes]:
    """Path → content of every UTF-8 ``*.py`` file in a stdlib folder or a CPython source tarball, sorted by path."""
    pairs = _read_tarball(source) if source.is_file() else _read_folder(source)
    return {path: content for path, content in sorted(pairs) if not EXCLUDED.search(path) and _is_text(content)}


def _read_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*.py"):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def _read_tarball(tarball: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(tarball) as archive:
        for member in archive:
            _, found, path = member.name.partition("/Lib/")
            stream = archive.extractfile(member) if found and member.isfile() and path.endswith(".py") else None
            if stream is not None:
                yield path, stream.read()


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return bool(content.strip()) and b"\0" not in content


def shingles_of(content: bytes) -> frozenset[int]:
    """A fixed 1/16 sample of the hashes of all 50-byte shingles, white space squeezed (indentation is no edit)."""
    squeezed = np.frombuffer(b" ".join(content.split()), dtype=np.uint8).astype(np.uint64)
    num_shingles = max(len(squeezed) - SHINGLE_BYTES + 1, 0)
    hashes: NDArray[np.uint64] = np.zeros(num_shingles, dtype=np.uint64)
    for offset in range(SHINGLE_BYTES):
        hashes = hashes * np.uint64(0x100000001B3) + squeezed[offset : offset + num_shingles]
    hashes = (hashes ^ (hashes >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)  # the top bits become uniform
    return frozenset(hashes[hashes >> np.uint64(32) < np.uint64(2**32 // SAMPLE_ONE_IN)].tolist())


def classify(contents: dict[str, bytes]) -> list[SourceFile]:
    """Every file with its unit and split, in order of precedence."""
    modules = module_names(contents)
    files = []
    for path, content in contents.items():
        unit = unit_of(path, modules)
        files.append(SourceFile(path, content, unit, split_of(unit), shingles_of(content)))
    return sorted(files, key=lambda file: (SPLITS.index(file.split), file.path))


def remove_near_duplicates(files: list[SourceFile]) -> tuple[list[SourceFile], dict[str, str]]:
    """Kept files, and for each removed path the path of the kept file that it nearly equals."""
    kept: list[SourceFile] = []
    owners: dict[int, list[int]] = {}
    removed: dict[str, str] = {}
    for file in files:
        shared = Counter(owner for shingle in file.shingles for owner in owners.get(shingle, ()))
        nearest = shared.most_common(1)
        if nearest and nearest[0][1] >= MAX_CONTAINMENT * len(file.shingles):
            removed[file.path] = kept[nearest[0][0]].path
        else:
            for shingle in file.shingles:
                owners.setdefault(shingle, []).append(len(kept))
            kept.append(file)
    return kept, removed


def seen_share(files: list[SourceFile], split: Split) -> float:
    """Share of a held-out split's sampled shingles that also occur in training text, after removal."""
    train = frozenset().union(*(file.shingles for file in files if file.split == "train"))
    held_out = frozenset().union(*(file.shingles for file in files if file.split == split))
    return len(held_out & train) / max(len(held_out), 1)


def python_version(source: Path) -> str:
    """The version named by the tarball or by a folder above the stdlib, else the running interpreter's."""
    found = re.search(r"(\d+\.\d+\.\d+)", source.name)
    if found:
        return found.group(1)
    for parent in source.resolve().parents:
        if re.fullmatch(r"\d+\.\d+\.\d+", parent.name):
            return parent.name
    return platform.python_version()


def manifest_of(version: str, files: list[SourceFile], removed: dict[str, str]) -> dict[str, Any]:
    """The manifest: what is in each split, file by file, and what was removed as a near-duplicate of what."""
    splits = {}
    for split in SPLITS:
        members = [file for file in files if file.split == split]
        splits[split] = {
            "num_bytes": sum(len(file.content) for file in members),
            "num_files": len(members),
            "num_modules": len({file.unit for file in members}),
            "shingles_seen_in_train": None if split == "train" else round(seen_share(files, split), 5),
            "files": [
                [file.path, file.unit, len(file.content), hashlib.sha256(file.content).hexdigest()] for file in members
            ],
        }
    return {
        "python": version,
        "near_duplicate": f"{MAX_CONTAINMENT:.0%} of a file's {SHINGLE_BYTES}-byte shingles are in one kept file",
        "file_columns": ["path", "module", "bytes", "sha256"],
        "splits": splits,
        "removed": removed,
    }


def write_corpus(folder: Path, manifest: dict[str, Any], files: list[SourceFile]) -> None:
    """Writes ``<split>.xz`` and ``manifest.json``; a zero byte stands before each file, in the manifest's order."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        text = b"".join(b"\0" + file.content for file in files if file.split == split)
        (folder / f"{split}.xz").write_bytes(lzma.compress(text, preset=6))
    rows = json.dumps(manifest, separators=(",", ":"), ensure_ascii=False)
    (folder / "manifest.json").write_text(rows.replace('],["', '],\n["') + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stdlib", type=Path, default=Path(sysconfig.get_path("stdlib")), help="folder or tarball")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    contents = read_stdlib(arguments.stdlib)
    files, removed = remove_near_duplicates(classify(contents))
    manifest = manifest_of(python_version(arguments.stdlib), files, removed)
    write_corpus(arguments.out, manifest, files)
    for split, summary in manifest["splits"].items():
        print(split, {key: value for key, value in summary.items() if key != "files"})
    print(f"CPython {manifest['python']}: removed {len(removed)} near-duplicates of {len(contents)} files")


if __name__ == "__main__":
    main()
