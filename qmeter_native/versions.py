"""Versions of packages as they are installed."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["installed_versions"]


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each of ``packages`` that is installed, in their order; nothing is imported."""
    from importlib.metadata import PackageNotFoundError, version  # late: it takes a part of a command's start

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
