"""Compile our declarations of NVIDIA's libraries against NVIDIA's own headers.

    python tools/check_abi.py [--headers build/abi]

The headers come from wheels of several CUDA versions, downloaded once, and from ``CUDA_HOME`` if that is set. For each,
a probe made from `abi_tables` asserts every size, offset, value and function shape that we rely on. Exits 1 if a probe
does not compile or no headers can be had.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.abi_table import AbiStruct, AbiTable  # noqa: E402
from tools.abi_tables import TABLES  # noqa: E402

PROBE_HEAD: Final = """
#include <cstddef>
#include <cstdint>
#include <type_traits>

template <typename Ours, typename Theirs>
struct same_shape : std::false_type {};
template <typename Result, typename... Ours, typename Other, typename... Theirs>
struct same_shape<Result(Ours...), Other(Theirs...)> {
  static constexpr bool sizes() {
    if constexpr (sizeof...(Ours) != sizeof...(Theirs)) {
      return false;
    } else {
      return sizeof(Result) == sizeof(Other) && ((sizeof(Ours) == sizeof(Theirs)) && ... && true);
    }
  }
  static constexpr bool value = sizes();
};
"""


def probe_of(table: AbiTable, include_dirs: list[Path]) -> str:
    """C++ that compiles only if ``table`` holds for the headers in ``include_dirs``."""
    headers = [*table.vendor_headers, table.header]
    lines = [PROBE_HEAD, *(f'#include "{name}"' for name in headers)]
    ours = table.namespace
    for name, vendor in table.values.items():
        lines.append(f'static_assert(int64_t({ours}::{name}) == int64_t({vendor}), "{name}");')
    for name, vendor in table.newer_values.items():
        lines.append(f'#if {table.newer_if}\nstatic_assert({ours}::{name} == {vendor}, "{name}");\n#endif')
    for struct in table.structs:
        vendors = list(names_in_headers(struct, include_dirs))
        if not vendors:
            raise SystemExit(f"{table.name}: no header declares {struct.theirs}")
        for vendor in vendors:
            lines.extend(struct_assertions(f"{ours}::{struct.ours}", vendor, struct))
    for name in table.functions:
        lines.append(f'static_assert(same_shape<{ours}::{name}, decltype(::{name})>::value, "{name}");')
    return "\n".join(lines) + "\n"


def names_in_headers(struct: AbiStruct, include_dirs: list[Path]) -> Iterator[str]:
    """All of the vendor's versions of a struct that these headers declare and that we must fit."""
    pattern = re.compile(rf"^\}} ?(?P<name>{struct.theirs});", re.MULTILINE)
    headers = [header.read_text("latin-1") for folder in include_dirs for header in folder.glob("*.h")]
    versions = {match["name"]: match.groups()[1:] for text in headers for match in pattern.finditer(text)}
    for name, version in sorted(versions.items()):
        if not version or int(version[0]) >= struct.oldest:
            yield name


def struct_assertions(ours: str, theirs: str, struct: AbiStruct) -> Iterator[str]:
    """Assertions of one struct against one of the vendor's."""
    relation = "<=" if struct.is_prefix else "=="
    yield f'static_assert(sizeof({ours}) {relation} sizeof({theirs}), "size of {theirs}");'
    for field, vendor in struct.fields.items():
        what = f"{theirs}.{vendor}"
        yield f'static_assert(offsetof({ours}, {field}) == offsetof({theirs}, {vendor}), "offset of {what}");'
        yield f'static_assert(sizeof({ours}::{field}) == sizeof({theirs}::{vendor}), "size of {what}");'


def compile_probe(source: str, include_dirs: list[Path], work_dir: Path) -> str:
    """What the compiler says; empty if all is well."""
    path = work_dir / "probe.cpp"
    path.write_text(source)
    compiler = os.environ.get("CXX", "g++")
    includes = [f"-I{folder}" for folder in (*include_dirs, ROOT / "csrc")]
    command = [compiler, "-std=c++17", "-fsyntax-only", "-w", *includes, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr


def wheel_headers(packages: tuple[str, ...], folder: Path) -> list[Path]:
    """Include folders of wheels, downloaded into ``folder`` unless they are there."""
    stamp = folder / "complete"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "-d", str(folder), *packages], check=True, stderr=subprocess.DEVNULL)
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder, [name for name in archive.namelist() if "/include/" in name])
            wheel.unlink()
        stamp.touch()
    return sorted(folder.glob("nvidia/*/include"))


def header_sets(table: AbiTable, cache: Path) -> Iterator[tuple[str, list[Path]]]:
    """A label and the include folders of each version to compare with."""
    for label, packages in table.packages.items():
        name = re.sub(r"\W+", "-", " ".join(packages))
        try:
            yield label, wheel_headers(packages, cache / name)
        except subprocess.CalledProcessError:
            print(f"{table.name}, {label}: pip cannot download {', '.join(packages)}", file=sys.stderr)
    home = os.environ.get("CUDA_HOME")
    if home is not None:
        folders = [Path(home) / "extras/CUPTI/include", Path(home) / "include"]
        if all(any((folder / name).exists() for folder in folders) for name in table.vendor_headers):
            yield "CUDA_HOME", [folder for folder in folders if folder.exists()]


def check(table: AbiTable, cache: Path) -> tuple[int, int]:
    """Number of versions compared, and of those that do not fit."""
    num_checked = num_failed = 0
    for label, include_dirs in header_sets(table, cache):
        complaint = compile_probe(probe_of(table, include_dirs), include_dirs, cache)
        print(f"{table.name}, {label}: {'does not fit' if complaint else 'fits'}")
        if complaint:
            print(complaint, file=sys.stderr)
        num_checked += 1
        num_failed += bool(complaint)
    return num_checked, num_failed


def main() -> int:
    """Check all tables."""
    parser = argparse.ArgumentParser(description="Compile our declarations against NVIDIA's headers.")
    parser.add_argument("--headers", type=Path, default=ROOT / "build/abi", help="where downloaded headers are kept")
    cache = parser.parse_args().headers
    cache.mkdir(parents=True, exist_ok=True)
    results = [check(table, cache) for table in TABLES]
    return 0 if all(num_checked > 0 and num_failed == 0 for num_checked, num_failed in results) else 1


if __name__ == "__main__":
    sys.exit(main())
