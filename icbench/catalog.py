"""The names of variants are the names of files. Nothing here imports a variant until it is asked for.

A file's docstring begins with the line that `icbench list` shows; paragraphs follow, some of which begin with one of
LABELS and a colon (icbench/markdown.py makes a reference of them). The keyword-only arguments of its function `build`,
or `recurrent` where a norm is for sequences alone, are the variant's options, with their types (see icbench/values.py)
and defaults. All this is read from the source, so that a grid is checked, and `icbench list` answers, without
importing torch.
"""

import ast
import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from icbench.errors import UserError, suggest
from icbench.values import TYPES, Scalar, ValueType

_PACKAGE = Path(__file__).parent
_FOLDERS = {
    "norms": "nets/norms",
    "weights": "nets/weights",
    "activations": "nets/activations",
    "procedures": "train/procedures",
    "orderings": "nets/orderings",
    "optimizers": "train/optimizers",
    "probes": "probes",
    "datasets": "data/sets",
}
_RECIPES = _PACKAGE / "recipes"

KINDS = ("norms", "weights", "activations", "orderings", "procedures", "datasets", "recipes", "optimizers", "probes")

# What a paragraph of a variant's docstring may be about. Norms, weights, activations and procedures have the first and
# the last of these always.
LABELS = ("Formula", "Evaluation", "Data parallel", "Needs")


class Paragraph(NamedTuple):
    """A paragraph of a docstring, on one line. label: one of LABELS, which the text leaves out, or "" for prose."""

    label: str
    text: str


@dataclass(frozen=True)
class Option:
    """One option of a variant."""

    type: ValueType
    default: Scalar


@cache
def names(kind: str) -> tuple[str, ...]:
    """The names of all variants of a kind, sorted."""
    if kind == "recipes":
        return tuple(sorted(path.stem for path in _RECIPES.glob("*.yaml")))
    files = (_PACKAGE / _FOLDERS[kind]).glob("[a-z]*.py")
    return tuple(sorted(path.stem.replace("_", "-") for path in files))


def recipe_file(name: str) -> Path:
    """The file of a recipe. Raises UserError when there is none of that name."""
    _check("recipes", name)
    return _RECIPES / f"{name}.yaml"


@cache
def summary(kind: str, name: str) -> str:
    """The first line of a variant's docstring, or of a recipe's leading comment."""
    if kind == "recipes":
        return recipe_file(name).read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
    return _docstring(_source(kind, name)).split("\n", 1)[0]


@cache
def paragraphs(kind: str, name: str) -> tuple[Paragraph, ...]:
    """What follows the first line of a variant's docstring, in its order. Of a recipe, nothing."""
    if kind == "recipes":
        return ()
    _, _, text = _docstring(_source(kind, name)).partition("\n")
    return tuple(map(_paragraph, _unwrapped(text)))


@cache
def explanation(kind: str, name: str, function: str) -> tuple[str, ...]:
    """The paragraphs, each on one line, of the docstring of a variant's function, such as `build`, if it has one."""
    definition = _definitions(kind, name).get(function)
    return _unwrapped(_docstring(definition)) if definition else ()


@cache
def options(kind: str, name: str) -> dict[str, Option]:
    """The options of a variant: the keyword-only arguments of its `build`, else of its `recurrent`."""
    if kind == "recipes":
        return {}
    definitions = _definitions(kind, name)
    maker = definitions.get("build") or definitions.get("recurrent")
    if maker is None:
        return {}
    return {
        argument.arg: Option(_value_type(argument), ast.literal_eval(default))
        for argument, default in zip(maker.args.kwonlyargs, maker.args.kw_defaults, strict=True)
        if default is not None
    }


@cache
def functions(kind: str, name: str) -> frozenset[str]:
    """The names of the functions that a variant's file defines: a norm with `recurrent` is one for sequences."""
    return frozenset(_definitions(kind, name))


@cache
def constant(kind: str, name: str, constant: str) -> str:
    """The word that a variant's file gives a name at its top; empty where it gives it none."""
    for node in _source(kind, name).body:
        match node:
            case ast.Assign(targets=[ast.Name(given)], value=ast.Constant(str(word))) if given == constant:
                return word
    return ""


def flag(kind: str, name: str, constant: str, *, default: bool) -> bool:
    """What a variant's file gives a name at its top, True or False."""
    for node in _source(kind, name).body:
        match node:
            case ast.Assign(targets=[ast.Name(given)], value=ast.Constant(bool(value))) if given == constant:
                return value
    return default


@cache
def load(kind: str, name: str) -> ModuleType:
    """Import a variant."""
    _check(kind, name)
    package = _FOLDERS[kind].replace("/", ".")
    return importlib.import_module(f"icbench.{package}.{_stem(name)}")


@cache
def _source(kind: str, name: str) -> ast.Module:
    _check(kind, name)
    file = _PACKAGE / _FOLDERS[kind] / f"{_stem(name)}.py"
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def _definitions(kind: str, name: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in _source(kind, name).body if isinstance(node, ast.FunctionDef)}


def _docstring(node: ast.Module | ast.FunctionDef) -> str:
    return ast.get_docstring(node) or ""


def _unwrapped(text: str) -> tuple[str, ...]:
    """Paragraphs, which empty lines part, each on one line."""
    return tuple(" ".join(paragraph.split()) for paragraph in text.split("\n\n") if paragraph.strip())


def _paragraph(text: str) -> Paragraph:
    label, colon, rest = text.partition(": ")
    return Paragraph(label, rest) if colon and label in LABELS else Paragraph("", text)


def _check(kind: str, name: str) -> None:
    if name not in names(kind):
        raise UserError(f"there is no {kind.removesuffix('s')} {name!r}.", suggest(name, names(kind)))


def _stem(name: str) -> str:
    return name.replace("-", "_")


def _value_type(argument: ast.arg) -> ValueType:
    annotation = argument.annotation
    assert isinstance(annotation, ast.Name), f"option {argument.arg} needs one of the types of icbench/values.py"
    return TYPES[annotation.id]
