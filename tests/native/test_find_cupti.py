"""Where CUPTI is looked for, each case in a process of its own: a library once loaded stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Place = Callable[[str], Path]

SCRIPT = """
import ctypes, sys
from qmeter_native import _native
preload, *folders = sys.argv[1:]
if preload:
    ctypes.CDLL(preload)
found = _native.find_cupti(folders)
print(found["path"], found["version"], found["how"], *(path for path, why in found["tried"] if why), sep="\\n")
"""


@pytest.fixture
def place(tmp_path: Path, fake_cupti_path: Path) -> Place:
    """Puts a copy of the fake into a folder below ``tmp_path``."""

    def make(folder: str) -> Path:
        (tmp_path / folder).mkdir(parents=True)
        return Path(shutil.copy(fake_cupti_path, tmp_path / folder / "libcupti.so.13"))

    return make


def find(*folders: Path, preload: Path | None = None, **environment: str) -> list[str]:
    """Path, version, how it was found, and what was tried before."""
    clean = {name: value for name, value in os.environ.items() if name not in ("CUDA_HOME", "CUDA_PATH")}
    command = [sys.executable, "-c", SCRIPT, str(preload or ""), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**clean, **environment})
    return done.stdout.splitlines()


def test_what_is_loaded_already_comes_first(place: Place) -> None:
    loaded, other = place("loaded"), place("other")
    path, version, how, *tried = find(other.parent, preload=loaded, QMETER_CUPTI_PATH=str(other))
    assert (path, version, how, tried) == (str(loaded), "130001", "already loaded", [])


def test_the_environment_variable_comes_before_search_folders(place: Place) -> None:
    named, folder = place("named"), place("folder")
    assert find(folder.parent, QMETER_CUPTI_PATH=str(named))[:3:2] == [str(named), "QMETER_CUPTI_PATH"]
    assert find(folder.parent, QMETER_CUPTI_PATH=str(named.parent))[0] == str(named)


def test_search_folders_come_before_the_toolkit(place: Place) -> None:
    folder, toolkit = place("folder"), place("cuda/extras/CUPTI/lib64")
    home = str(toolkit.parents[3])
    assert find(toolkit.parents[3] / "nothing", folder.parent, CUDA_HOME=home)[:3:2] == [
        str(folder),
        "search directory",
    ]
    assert find(CUDA_HOME=home)[:3:2] == [str(toolkit), "CUDA_HOME"]
    assert find(CUDA_PATH=home)[:3:2] == [str(toolkit), "CUDA_PATH"]


def test_the_toolkits_lib64_will_do(place: Place) -> None:
    library = place("cuda/lib64")
    assert find(CUDA_HOME=str(library.parents[1]))[0] == str(library)


def test_a_broken_candidate_is_passed_over_and_mentioned(place: Place, tmp_path: Path) -> None:
    good = place("good")
    broken = tmp_path / "libcupti.so.13"
    broken.write_text("no library")
    path, _, how, *tried = find(good.parent, QMETER_CUPTI_PATH=str(broken))
    assert (path, how) == (str(good), "search directory")
    assert str(broken) in tried
