"""The corpus of the built-in model: prepared from a folder or a tarball, without near-duplicates."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stdlib_corpus", ROOT / "tools" / "stdlib_corpus.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def source(topic: str) -> str:
    functions = (f"def {topic}_{number}(value):\n    return value * {number * 7} + {number}\n" for number in range(99))
    return "".join(functions)


@pytest.fixture
def stdlib(tmp_path: Path) -> Path:
    files = {
        "typing.py": source("typing"),
        "json.py": source("typing"),
        "csv.py": source("csv"),
        "test/test_csv.py": source("check"),
        "test/test_bad.py": "not utf-8: \udcff",
        "site-packages/other.py": source("other"),
        "_sysconfigdata_x.py": source("build"),
    }
    for name, text in files.items():
        path = tmp_path / "Lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return tmp_path / "Lib"


def test_only_readable_source_of_the_standard_library_is_taken(corpus: ModuleType, stdlib: Path) -> None:
    assert list(corpus.read_stdlib(stdlib)) == ["csv.py", "json.py", "test/test_csv.py", "typing.py"]


def test_a_tarball_gives_the_same_as_its_folder(corpus: ModuleType, stdlib: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "Python-3.99.1.tgz", "w:gz") as archive:
        for path in stdlib.rglob("*.py"):
            content = path.read_bytes()
            member = tarfile.TarInfo(f"Python-3.99.1/Lib/{path.relative_to(stdlib).as_posix()}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert corpus.read_stdlib(tmp_path / "Python-3.99.1.tgz") == corpus.read_stdlib(stdlib)
    assert corpus.python_version(tmp_path / "Python-3.99.1.tgz") == "3.99.1"


def test_of_two_near_duplicates_the_held_out_one_is_kept(corpus: ModuleType, stdlib: Path) -> None:
    kept, removed = corpus.remove_near_duplicates(corpus.classify(corpus.read_stdlib(stdlib)))
    assert removed == {"json.py": "typing.py"}  # typing is a test module, json is not
    assert corpus.seen_share(kept, "test") < 0.05


def test_the_committed_manifest_holds_every_file_once_and_no_module_in_two_splits() -> None:
    manifest = json.loads((ROOT / "tools" / "stdlib_corpus_manifest.json").read_text(encoding="utf-8"))
    rows = [(split, *row) for split, entry in manifest["splits"].items() for row in entry["files"]]
    paths = [row[1] for row in rows]
    assert len(paths) == len(set(paths))
    assert not set(paths) & set(manifest["removed"])
    modules: dict[str, set[str]] = {}
    for split, _, module, *_ in rows:
        modules.setdefault(module, set()).add(split)
    assert all(len(splits) == 1 for splits in modules.values())
