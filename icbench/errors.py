"""The one family of errors that icbench raises on purpose; the CLI prints each as one paragraph."""

import difflib
from collections.abc import Iterable
from pathlib import Path


class IcbenchError(Exception):
    """Something went wrong that a person must hear of, though it is not a mistake in what they wrote."""

    exit_code = 1


class UserError(IcbenchError):
    """What the user gave is wrong: says where, what is wrong and what would be right. Nothing was written."""

    exit_code = 2

    def __init__(self, problem: str, remedy: str = "", *, file: Path | str | None = None, line: int | None = None):
        self.problem = problem
        self.remedy = remedy
        self.file = file
        self.line = line
        where = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(f"{where}{problem}" + (f" {remedy}" if remedy else ""))


def suggest(word: object, valid: Iterable[str], *, what: str = "Valid", cutoff: float = 0.5) -> str:
    """One or two sentences: the valid word nearest to `word`, if one is near, and all valid words.

    cutoff: how near, from 0 to 1, as difflib has it.
    """
    words = sorted(valid)
    near = difflib.get_close_matches(str(word), words, n=1, cutoff=cutoff)
    nearest = f"Did you mean {near[0]!r}? " if near else ""
    return f"{nearest}{what}: {', '.join(words) or '(none)'}."
