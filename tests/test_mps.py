"""How NVIDIA's service for shared GPUs is started and ended. It needs a GPU: here a program of its name takes notes."""

import os
import tempfile
from pathlib import Path

import pytest

from icbench import mps, profile
from icbench.errors import IcbenchError, UserError

NOTES = """#!/bin/sh
echo "$* $CUDA_MPS_PIPE_DIRECTORY $(cat <&0 2>/dev/null)" >> {notes}
[ "$1" = -d ] && touch "$CUDA_MPS_PIPE_DIRECTORY/control"
exit {code}
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> Path:
    program, notes = folder / mps.CONTROL, folder / "notes"
    program.write_text(NOTES.format(notes=notes, code=code))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return notes


def test_the_service_runs_while_it_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notes, folder = install(tmp_path, monkeypatch), tmp_path / "service"
    with mps.serving(folder) as environment:
        assert environment == mps.environment(folder)
        assert notes.read_text().split() == ["-d", str(folder / "pipe")]
        assert mps.wait_for(folder) == environment
    assert notes.read_text().splitlines()[1].split() == [str(folder / "pipe"), "quit"]


def test_the_service_shows_all_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If it showed GPUs 2 and 3 alone, they would be its clients' 0 and 1."""
    notes = install(tmp_path, monkeypatch)
    program = tmp_path / mps.CONTROL
    program.write_text(f'#!/bin/sh\necho "${{CUDA_VISIBLE_DEVICES-all}}" >> {notes}\n')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    with mps.serving(tmp_path / "service") as environment:
        assert "CUDA_VISIBLE_DEVICES" not in environment
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert notes.read_text().split() == ["all", "all"]


def test_its_sockets_have_short_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with mps.pipe_folder() as folder:
        assert folder.parent == Path("/tmp")
        assert folder.is_dir()
    assert not folder.exists()


def test_it_ends_with_what_it_is_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notes = install(tmp_path, monkeypatch)
    with pytest.raises(ZeroDivisionError), mps.serving(tmp_path / "service"):
        _ = 1 / 0
    assert notes.read_text().splitlines()[1].endswith("quit")


def test_what_is_wrong_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(IcbenchError, match="there is no nvidia-cuda-mps-control"), mps.serving(tmp_path / "service"):
        pass
    monkeypatch.undo()
    install(tmp_path, monkeypatch, code=3)
    with pytest.raises(IcbenchError, match="did not start: exit code 3"), mps.serving(tmp_path / "service"):
        pass
    monkeypatch.setattr(mps, "_PATIENCE_SECONDS", 0.0)
    with pytest.raises(IcbenchError, match="no service listens"):
        mps.wait_for(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["executor: local\n", "executor: slurm\ntime_limit: 60\ngpus_per_node: 0\n"])
def test_it_needs_gpus(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(f"{text}mps: true\n")
    with pytest.raises(UserError, match="mps: true, but"):
        profile.load(str(tmp_path / "p.yaml"))
    (tmp_path / "p.yaml").write_text(f"{text}mps: 1\n")
    with pytest.raises(UserError, match="should be true or false"):
        profile.load(str(tmp_path / "p.yaml"))
