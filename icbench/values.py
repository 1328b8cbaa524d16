"""The types of the values that people write in YAML: each says what it accepts and what would be right.

The annotations double as declarations: `build(channels, *, groups: PositiveInt = 8)` in a variant's file is all
that the grid needs to check `{name: group, groups: 0}`.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

Scalar = bool | int | float | str

# What variants write in their signatures. To Python and the type checker they are plain numbers; the catalogue reads
# their names.
PositiveInt = int
AtLeastTwo = int
NonNegativeInt = int
OddInt = int
PositiveFloat = float
NonNegativeFloat = float
AtLeastOne = float
AboveOne = float
Fraction = float
Rate = float
ChannelDivisor = int


@dataclass(frozen=True)
class ValueType:
    """A named type: `expects` completes the sentence "should be ..."; `accepts` judges a value of type `kind`."""

    kind: type
    expects: str
    accepts: Callable[[float], bool] = lambda _: True

    def parse(self, value: object) -> Scalar:
        """Return `value` in its canonical Python type; raise ValueError with what would be right.

        Whole floats are accepted for integers (4.0 is 4) and integers for floats; booleans are never numbers.
        """
        if self.kind is bool:
            if isinstance(value, bool):
                return value
        elif self.kind is str:
            if isinstance(value, str):
                return value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            if self.kind is float and abs(value) < math.inf and self.accepts(value):
                with suppress(OverflowError):
                    return float(value) + 0.0  # -0.0 is 0
            if self.kind is int and abs(value) < math.inf and value == int(value) and self.accepts(value):
                if abs(value) < _TOO_LARGE:
                    return int(value)
                raise ValueError(f"{_brief(value)} should be {self.expects}, below 2^31")
        raise ValueError(f"{_brief(value)} should be {self.expects}")


# Results hold whole numbers in 32 bits.
_TOO_LARGE = 2**31


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}..."


TYPES: dict[str, ValueType] = {
    "bool": ValueType(bool, "true or false"),
    "str": ValueType(str, "a word"),
    "int": ValueType(int, "a whole number"),
    "float": ValueType(float, "a number"),
    "PositiveInt": ValueType(int, "a whole number from 1 up", lambda v: v >= 1),
    "AtLeastTwo": ValueType(int, "a whole number from 2 up", lambda v: v >= 2),
    # Every channel count of a net is a multiple of its width, so the grid asks that this divides the width.
    "ChannelDivisor": ValueType(int, "a whole number from 1 up", lambda v: v >= 1),
    "NonNegativeInt": ValueType(int, "a whole number from 0 up", lambda v: v >= 0),
    "OddInt": ValueType(int, "an odd whole number from 1 up", lambda v: v >= 1 and v % 2 == 1),
    "PositiveFloat": ValueType(float, "a number above 0", lambda v: v > 0),
    "NonNegativeFloat": ValueType(float, "a number from 0 up", lambda v: v >= 0),
    "AtLeastOne": ValueType(float, "a number from 1 up", lambda v: v >= 1),
    "AboveOne": ValueType(float, "a number above 1", lambda v: v > 1),
    "Fraction": ValueType(float, "a number above 0, up to 1", lambda v: 0 < v <= 1),
    "Rate": ValueType(float, "a number from 0 up to, but not including, 1", lambda v: 0 <= v < 1),
}
