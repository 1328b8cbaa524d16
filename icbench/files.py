"""Files that appear whole or not at all, whatever is killed at whatever moment."""

import json
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

# Less than a checkpoint needs.
_LITTLE_SPACE = 2**18


def write_whole(target: Path, write: Callable[[IO[bytes]], object], *, durable: bool = True) -> None:
    """Have `write` fill a hidden file beside `target`, bring it to the disk, then rename it to `target`.

    A reader sees the old file or the new one. What a killed writer leaves behind is named `.tmp-*`, which Parquet
    readers skip. Without `durable` the file may be lost or damaged in a power cut, though not by a killed process.
    """
    temporary = target.with_name(f".tmp-{target.name}-{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            write(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync_directory(target.parent)


def write_json(target: Path, value: Any, *, durable: bool = True) -> None:
    """Write `value` as JSON, whole or not at all."""
    text = json.dumps(value, indent=1, allow_nan=False)
    write_whole(target, lambda file: file.write(text.encode()), durable=durable)


def say_in_log(words: str) -> None:
    """Write a line to standard error, where a job's goes into a file; whose disk may be full.

    What Python's own stream could not write it would try again at the end, and change the exit code for it.
    """
    with suppress(OSError):
        os.write(2, f"{words}\n".encode())


def is_full(folder: Path) -> bool:
    """Whether the file system of a folder has no space to speak of left."""
    return shutil.disk_usage(folder).free < _LITTLE_SPACE


def remove_leftovers(target: Path) -> None:
    """Remove what killed writers of `target` left behind; nobody else may be writing it."""
    for leftover in target.parent.glob(f".tmp-{target.name}-*"):
        leftover.unlink(missing_ok=True)


def read_json(file: Path) -> Any:
    """The JSON in `file`, or None when there is none or it is damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def last_words(file: Path, lines: int = 15) -> str:
    """The end of a text file that a job wrote."""
    try:
        content = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "(nothing)"
    return "\n".join(content[-lines:]) or "(nothing)"


def _sync_directory(folder: Path) -> None:
    """Make a rename last through a power cut, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
