"""A child process: what it is asked, what it answers, and how its death is told."""

from pathlib import Path

import pytest
from conftest import REPOSITORY

from icbench.child import Child
from icbench.errors import IcbenchError

MAIN = """
import os, pickle, sys
from icbench.child import answers

def main():
    answer = answers()
    while True:
        print("a library's word", flush=True)
        request = pickle.load(sys.stdin.buffer)
        if isinstance(request, int):
            os.kill(os.getpid(), request)
        answer(2 * request)
"""
MANY = 2**20  # bytes, more than a pipe holds


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """In which there is a module `doubling`; a number kills it as a signal."""
    (tmp_path / "doubling.py").write_text(MAIN)
    (tmp_path / "deaf.py").write_text("def main(): raise SystemExit('it does\\n  not hear\\n')")
    return {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "PYTHONDONTWRITEBYTECODE": "1"}


def test_answers_come_in_turn_and_what_is_printed_is_none(environment: dict[str, str]) -> None:
    with Child("doubling", environment, "what doubles") as child:
        child.send("ab")
        child.send([1, 2.5])
        assert (child.answer(), child.answer()) == ("abab", [1, 2.5, 1, 2.5])
        child.send("c" * MANY)
        assert child.answer() == "c" * 2 * MANY
    assert not Path(f"/proc/{child.pid}").exists()


def test_a_signal_s_death_is_told(environment: dict[str, str]) -> None:
    with Child("doubling", environment, "what doubles", remedy="Do without.") as child:
        child.send(9)
        with pytest.raises(IcbenchError) as error:
            child.answer()
    assert str(error.value) == "what doubles was killed by signal 9. The last it said: a library's word\nDo without."


@pytest.mark.parametrize(("lines", "words"), [(1, " not hear"), (2, "\nit does\n  not hear")])
def test_a_request_to_the_dead_is_no_error_but_its_answer_is(
    environment: dict[str, str], lines: int, words: str
) -> None:
    with Child("deaf", environment, "it", lines=lines) as child:
        child.send("d" * MANY)
        with pytest.raises(IcbenchError) as error:
            child.answer()
    assert str(error.value) == f"it ended with exit code 1. The last it said:{words}"


def test_what_it_did_not_live_to_read_is_no_trouble_at_the_end(environment: dict[str, str]) -> None:
    with Child("deaf", environment, "it") as child:
        with pytest.raises(IcbenchError):
            child.answer()
        child.send("a word, which waits for more before it goes into the pipe")
