"""Fixtures of the extension's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qmeter_native import _native
from tests.fakes.build import build_fake
from tests.fakes.fake_cupti import FakeCupti


@pytest.fixture
def new_spool(tmp_path: Path) -> Callable[..., _native.Spool]:
    """Makes a spool at ``tmp_path / "spool"``; options are those of the constructor."""

    def make(**options: int) -> _native.Spool:
        return _native.Spool(str(tmp_path / "spool"), identity='{"format": "qmeter-spool", "version": 1}', **options)

    return make


@pytest.fixture(scope="session")
def fake_cupti_path() -> Path:
    return build_fake("fake_cupti.cpp", "libcupti.so.13")


@pytest.fixture(scope="session")
def loaded_fake_cupti(fake_cupti_path: Path) -> FakeCupti:
    return FakeCupti(fake_cupti_path)


@pytest.fixture
def fake_cupti(loaded_fake_cupti: FakeCupti) -> Iterator[FakeCupti]:
    loaded_fake_cupti.reset()
    yield loaded_fake_cupti
    loaded_fake_cupti.reset()
