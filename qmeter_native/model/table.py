"""Columnar tables: frozen dataclasses of numpy arrays, one array a column."""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Table", "column"]

_T = TypeVar("_T", bound="Table")


def column(dtype: str, doc: str) -> Any:
    """Declare a column of a `Table`: its numpy dtype (``O`` for text) and what it holds."""
    return field(metadata={"dtype": np.dtype(dtype), "doc": doc})


@dataclass(frozen=True, slots=True)
class Table:
    """Base of all tables: every field is a one-dimensional array of the same length.

    Raises:
        ValueError: Columns differ in length, or a column is not one-dimensional.
        TypeError: A column does not have its declared dtype.
    """

    NAME: ClassVar[str] = ""

    def __post_init__(self) -> None:
        lengths = set()
        for spec in fields(self):
            values = getattr(self, spec.name)
            if values.dtype != spec.metadata["dtype"]:
                raise TypeError(f"{type(self).__name__}.{spec.name} is {values.dtype}, not {spec.metadata['dtype']}")
            if values.ndim != 1:
                raise ValueError(f"{type(self).__name__}.{spec.name} has {values.ndim} dimensions, not 1")
            lengths.add(len(values))
        if len(lengths) > 1:
            raise ValueError(f"{type(self).__name__} has columns of different lengths: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    @classmethod
    def columns(cls) -> tuple[Field[Any], ...]:
        """The declared columns, in order; ``metadata`` has ``dtype`` and ``doc``."""
        return fields(cls)

    @classmethod
    def from_columns(cls: type[_T], **values: Any) -> _T:
        """Build a table from array-likes, each cast to its declared dtype. Every column must be given."""
        cast = {spec.name: np.asarray(values.pop(spec.name), spec.metadata["dtype"]) for spec in fields(cls)}
        return cls(**cast, **values)

    @classmethod
    def empty(cls: type[_T]) -> _T:
        """A table without rows."""
        return cls(**{spec.name: np.empty(0, spec.metadata["dtype"]) for spec in fields(cls)})

    @classmethod
    def concat(cls: type[_T], parts: list[_T]) -> _T:
        """All rows of ``parts``, in order."""
        if not parts:
            return cls.empty()
        return cls(**{spec.name: np.concatenate([getattr(part, spec.name) for part in parts]) for spec in fields(cls)})

    def take(self: _T, rows: NDArray[Any]) -> _T:
        """The rows that ``rows`` (indices or a mask) selects."""
        return type(self)(**{spec.name: getattr(self, spec.name)[rows] for spec in fields(self)})

    def slice(self: _T, start: int, stop: int) -> _T:
        """The rows from ``start`` up to ``stop``: views, not copies."""
        return type(self)(**{spec.name: getattr(self, spec.name)[start:stop] for spec in fields(self)})
