"""What a comparison of our declarations with NVIDIA's headers is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["AbiStruct", "AbiTable"]


@dataclass(frozen=True, slots=True)
class AbiStruct:
    """A struct of ours and all versions of the vendor's that it must fit.

    Attributes:
        ours: Its name in our namespace.
        theirs: Regular expression of the vendor's names. A group in it is a version number.
        fields: The vendor's field for each of ours.
        oldest: Versions below this are not compared.
        is_prefix: Ours may end earlier: the vendor appends fields.
    """

    ours: str
    theirs: str
    fields: Mapping[str, str]
    oldest: int = 0
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class AbiTable:
    """One library.

    Attributes:
        name: For messages.
        header: Ours, below ``csrc``.
        namespace: In which it declares.
        vendor_headers: To include, in this order.
        packages: Distributions that hold the headers, by a label for each version.
        values: The vendor's constant for each of ours.
        newer_if: A condition of the preprocessor, true for headers that have ``newer_values``.
        newer_values: Constants like ``values`` that old headers lack, or number otherwise.
        structs: Structs.
        functions: Exported names; ours is a function type of the same name.
    """

    name: str
    header: str
    namespace: str
    vendor_headers: tuple[str, ...]
    packages: Mapping[str, tuple[str, ...]]
    values: Mapping[str, str] = field(default_factory=dict)
    newer_if: str = "1"
    newer_values: Mapping[str, str] = field(default_factory=dict)
    structs: tuple[AbiStruct, ...] = ()
    functions: tuple[str, ...] = ()
