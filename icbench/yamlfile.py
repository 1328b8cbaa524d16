"""YAML files as plain data that remembers its lines, so that every mistake can name the line it stands on.

Words follow YAML 1.2 (as in most people's minds): `1e-3` is a number, `no` and `on` are words, duplicate keys are
an error. PyYAML, by itself, reads YAML 1.1 and lets the last duplicate win.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from icbench.errors import UserError

Path_ = tuple[str | int, ...]


class Mistake(Exception):
    """A mistake at `path` (keys and indices from the document's top): what is wrong, and what would be right."""

    def __init__(self, path: Path_, problem: str, remedy: str = ""):
        super().__init__(problem)
        self.path = path
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Document:
    """A parsed file: `data` of dicts, lists and scalars; `lines` maps each path to its line, counted from 1."""

    file: Path
    text: str
    data: Any
    lines: dict[Path_, int]

    def line(self, path: Path_) -> int:
        """The line of `path`, or of its nearest ancestor that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def error(self, mistake: Mistake) -> UserError:
        """The mistake as the error to show."""
        return UserError(mistake.problem, mistake.remedy, file=self.file, line=self.line(mistake.path))


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema."""


_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1's
_INT = r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _keys = [*_first, ""] if _tag == "null" else list(_first)
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _keys)


_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def read(file: Path) -> Document:
    """Read and parse `file`. Raises UserError: missing, a directory, unreadable, not UTF-8, not YAML, twice a key."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("there is no such file.", _siblings(file), file=file) from None
    except IsADirectoryError:
        raise UserError("this is a directory; a YAML file is needed.", _siblings(file / "x"), file=file) from None
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError("the file is not UTF-8 text.", "Save it as UTF-8.", file=file, line=line) from None
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror}.", file=file) from None
    return parse(text, file)


def parse(text: str, file: Path) -> Document:
    """Parse `text`, which was read from `file`."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        broken = isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError)
        hint = "Check the indentation, the colons and the brackets there and on the line before." if broken else ""
        raise UserError(f"not valid YAML: {problem}.", hint, file=file, line=mark.line + 1 if mark else None) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        character = chr(error.character) if isinstance(error.character, int) else str(error.character)
        problem = f"not valid YAML: the character {character!r} is not allowed."
        raise UserError(problem, "Remove it, or write it as an escape in quotes.", file=file, line=line) from None
    except (OverflowError, ValueError):  # an escape in quotes beyond the last character
        escapes = (m for m in re.finditer(r"\\U([0-9A-Fa-f]{8})", text) if int(m[1], 16) > sys.maxunicode)
        line = text[: next((m.start() for m in escapes), 0)].count("\n") + 1
        raise UserError("not valid YAML: an escape names no character.", file=file, line=line) from None
    except RecursionError:
        raise UserError("the lists and mappings are nested too deeply.", file=file) from None
    reader = _Reader(file)
    data = None if node is None else reader.value(node, ())
    return Document(file, text, data, reader.lines)


def _siblings(file: Path) -> str:
    """What stands where `file` was looked for."""
    if not file.parent.is_dir():
        return f"The directory {file.parent} does not exist either."
    near = sorted(p.name for p in file.parent.glob("*.y*ml"))
    return f"{file.parent} holds: {', '.join(near[:20])}." if near else f"{file.parent} holds no YAML file."


class _Reader:
    """Turns PyYAML's nodes into plain data, noting the line of each path."""

    def __init__(self, file: Path):
        self.file = file
        self.lines: dict[Path_, int] = {}
        self._open: list[yaml.Node] = []

    def value(self, node: yaml.Node, path: Path_) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
            raise self._error(node, f"the tag {node.tag!r} is not supported.")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            with self._inside(node):
                return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node)

    @contextmanager
    def _inside(self, node: yaml.Node) -> Iterator[None]:
        """While its content is read; an alias to it would go on for ever."""
        if any(node is parent for parent in self._open):
            raise self._error(node, "an alias (*) stands inside its own anchor (&).")
        self._open.append(node)
        yield
        self._open.pop()

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        with self._inside(node):
            return self._entries(node, path)

    def _entries(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        data: dict[str, Any] = {}
        merges = []
        for key_node, value_node in node.value:
            if key_node.tag.endswith(":merge"):
                merges.append(value_node)
                continue
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag.endswith(":null"):
                raise self._error(key_node, "a key should be a word.")
            key = str(key_node.value)
            if key in data:
                first = self.lines[(*path, key)]
                raise self._error(key_node, f"the key {key!r} stands here for a second time (first on line {first}).")
            self.lines.setdefault((*path, key), key_node.start_mark.line + 1)
            data[key] = self.value(value_node, (*path, key))
        for merge in merges:
            for source in merge.value if isinstance(merge, yaml.SequenceNode) else [merge]:
                if not isinstance(source, yaml.MappingNode):
                    raise self._error(source, "'<<' merges mappings only.")
                data = self._mapping(source, path) | data
        return data

    def _scalar(self, node: yaml.Node) -> Any:
        tag, text = node.tag.rsplit(":", 1)[-1], str(node.value)
        try:
            match tag:
                case "null":
                    return None
                case "bool" if text.lower() in ("true", "false"):
                    return text.lower() == "true"
                case "int":
                    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
                case "float":
                    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
                case "str":
                    text.encode()  # an escape may have made half a character
                    return text
        except ValueError:
            raise self._error(node, f"{text[:60]!r} is no {tag}.") from None
        problem = f"{text!r} is no bool." if tag == "bool" else f"the tag {node.tag!r} is not supported."
        raise self._error(node, problem)

    def _error(self, node: yaml.Node, problem: str) -> UserError:
        return UserError(problem, file=self.file, line=node.start_mark.line + 1)
