"""What a bench found: ratios first, then tables, each said once, as columns over rows."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from icbench.bench.measure import Comparison, Spread

Tell = Callable[[str], None]
Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table: the key of its values in the rows, its title, how a value is written, and what None is."""

    key: str
    title: str
    write: Callable[[Any], str] = str
    absent: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of JSON values, or Spreads. key: what it is called in JSON. A row may hold more than columns show."""

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: list[Row]


@dataclass
class Findings:
    """What a bench found, and what its reader has to know of it."""

    comparisons: list[Comparison] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __iadd__(self, other: "Findings") -> "Findings":
        self.comparisons += other.comparisons
        self.tables += other.tables
        self.notes += other.notes
        return self

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "ratios": [_value(each._asdict()) for each in self.comparisons],
            "tables": {table.key: _value(table.rows) for table in self.tables},
            "notes": self.notes,
        }


def _value(value: Any) -> Any:
    """Numbers with six digits, which is more than a clock is worth; what is not finite is null."""
    match value:
        case Spread():
            return _value(value._asdict())
        case dict():
            return {key: _value(each) for key, each in value.items()}
        case list() | tuple():
            return [_value(each) for each in value]
        case float():
            return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def digits(value: float | None) -> str:
    """A number with three digits, or all of its whole ones; empty for None."""
    if value is None:
        return ""
    if abs(value) >= 100 or not math.isfinite(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1e-3 else f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}".replace("%", " %")


def spread(value: Spread | None) -> str:
    """The median, and the range where there is more than one: 4.17 (4.02 to 4.31)."""
    if value is None:
        return ""
    return digits(value.median) + ("" if value.n == 1 else f" ({digits(value.least)} to {digits(value.most)})")
