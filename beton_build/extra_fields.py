"""Further columns of a sample list as fields of a `.beton`: which field type, and each sample's value."""

import math
from typing import Any

import numpy as np

from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.values import Value


def field_of(name: str, values: list[Any]) -> fmt.FieldSpec:
    """The field for a column: int, float (numbers, some perhaps missing), bytes, ndarray, or else JSON.

    Raises:
        BetonError: the arrays of a column differ in shape or cannot be stored.
    """
    kinds = {type(value) for value in values}
    if kinds == {int}:
        return fmt.FieldSpec(name, fmt.INT_FIELD)
    if kinds and kinds <= {int, float, type(None)} and kinds != {type(None)}:
        return fmt.FieldSpec(name, fmt.FLOAT_FIELD)
    if kinds == {bytes}:
        return fmt.FieldSpec(name, fmt.BYTES_FIELD)
    if kinds == {np.ndarray}:
        return fmt.array_field(name, values[0].dtype, values[0].shape)
    return fmt.FieldSpec(name, fmt.JSON_FIELD)


def value_for(spec: fmt.FieldSpec, value: Any) -> Value:
    """The value as the field takes it; a missing number is NaN."""
    return math.nan if value is None and spec.type_id == fmt.FLOAT_FIELD else value
