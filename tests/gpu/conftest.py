"""All tests in this folder need an NVIDIA GPU; without one they are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    torch = pytest.importorskip("torch")
    is_absent = not torch.cuda.is_available()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if is_absent:
                item.add_marker(pytest.mark.skip(reason="no CUDA GPU"))
