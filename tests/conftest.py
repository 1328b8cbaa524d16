"""What tests share: grids in files, the CLI as a real subprocess, a training without a worker."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported: two test processes with a thread for each core would spin in each other's way, ten times
# slower than with one.
os.environ["OMP_NUM_THREADS"] = "1"

REPOSITORY = Path(__file__).parent.parent


@dataclass
class Finished:
    """An ended subprocess."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def environment(**more: str) -> dict[str, str]:
    """The tests' environment, without what a developer may have set."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ICBENCH")}
    return kept | more


Icbench = Callable[..., Finished]


@pytest.fixture
def icbench(tmp_path: Path) -> Icbench:
    """Run `icbench ARGUMENTS` in `tmp_path`."""

    def run(*arguments: object, **more: str) -> Finished:
        command = [sys.executable, "-m", "icbench", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(**more), capture_output=True, text=True, timeout=120
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def write_grid(tmp_path: Path) -> Callable[..., Path]:
    """Write a grid's text into a file."""

    def write(text: str, name: str = "grid.yaml") -> Path:
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return file

    return write
