"""What the catalogue knows of variants, as Markdown: a table of a kind, and a section for each of its variants.

A kind whose variants' docstrings say no more than their first line has the table alone.
"""

import re
from collections.abc import Mapping

from icbench import catalog
from icbench.values import Scalar

# A heading of further columns of a table, each with its cells by variant.
Columns = Mapping[str, Mapping[str, str]]

_CODE = re.compile(r"(`[^`]*`)")
_SPECIAL = re.compile(r"[\\*<]|(?<![^\W_])_|_(?![^\W_])")


def reference(kind: str) -> str:
    """A kind's heading, table and sections."""
    return "\n\n".join([f"## {kind.capitalize()}", table(kind), *sections(kind)])


def table(kind: str, columns: Columns | None = None) -> str:
    """A row for each variant: its name, what it is, the further columns. The name links to its section; where there is
    none, the row tells the options too.
    """
    columns = columns or {}
    numbers = "".join("--:|" for _ in columns)
    lines = [f"| {' | '.join([_one(kind), 'what it is', *columns])} |", f"|---|---|{numbers}"]
    for name in catalog.names(kind):
        label, what = f"`{name}`", escaped(catalog.summary(kind, name)).replace("|", r"\|")
        options = ", ".join(f"`{key}: {_value(option.default)}`" for key, option in catalog.options(kind, name).items())
        if catalog.paragraphs(kind, name):
            label = f"[{label}](#{_one(kind)}-{name})"
        elif options:
            what = f"{what} Options: {options}"
        lines.append(f"| {' | '.join([label, what, *(cells.get(name, '') for cells in columns.values())])} |")
    return "\n".join(lines)


def sections(kind: str, remarks: Mapping[str, str] | None = None) -> list[str]:
    """A section for each variant of which there is more to say than a line; remarks: a last paragraph of each."""
    names = [name for name in catalog.names(kind) if catalog.paragraphs(kind, name)]
    return [_section(kind, name, (remarks or {}).get(name, "")) for name in names]


def escaped(text: str) -> str:
    """Outside code, nothing of a formula is taken for emphasis or HTML. Underscores within words never are."""
    parts = _CODE.split(text)
    return "".join(part if index % 2 else _SPECIAL.sub(r"\\\g<0>", part) for index, part in enumerate(parts))


def _section(kind: str, name: str, remark: str) -> str:
    said = [
        f"**{label}:** {escaped(text)}" if label else escaped(text) for label, text in catalog.paragraphs(kind, name)
    ]
    parts = [
        f"### {_one(kind).capitalize()} `{name}`",
        escaped(catalog.summary(kind, name)),
        *said,
        *_options(kind, name),
        *_in_sequences(kind, name),
        remark,
    ]
    return "\n\n".join(filter(None, parts))


def _options(kind: str, name: str) -> list[str]:
    """The options with their defaults, then what is said of them where they are declared."""
    options = catalog.options(kind, name)
    if not options:
        return ["**Options:** none."]
    functions = catalog.functions(kind, name)
    lines = [f"- `{key}`: {option.type.expects}; default `{_value(option.default)}`" for key, option in options.items()]
    explained = catalog.explanation(kind, name, "build" if "build" in functions else "recurrent")
    return ["**Options:**", "\n".join(lines), *map(escaped, explained)]


def _in_sequences(kind: str, name: str) -> list[str]:
    functions = catalog.functions(kind, name)
    if kind != "norms" or "recurrent" not in functions:
        return []
    if "build" not in functions:
        return ["**In the LSTM** alone, not on maps."]
    return [f"**In the LSTM**, too. {' '.join(map(escaped, catalog.explanation(kind, name, 'recurrent')))}"]


def _one(kind: str) -> str:
    """activations -> activation."""
    return kind.removesuffix("s")


def _value(value: Scalar) -> str:
    """As people write it in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)
