"""What workers tell, and how often a run may be tried."""

from pathlib import Path

from icbench.events import Follower, Teller
from icbench.layout import Layout, RunFiles
from icbench.work.attempts import Attempts

CODE = {"icbench_version": "1", "git_commit": None, "git_dirty": None}


def test_events_are_read_as_they_come(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    follower = Follower(file)
    assert list(follower.read()) == []
    with Teller(file) as tell:
        tell("begin", run_id="a")
        assert list(follower.read()) == [{"event": "begin", "run_id": "a"}]
        tell("end")
    assert list(follower.read()) == [{"event": "end"}]


def test_a_line_torn_by_a_death_costs_no_other(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    with Teller(file) as tell:
        tell("begin", run_id="a")
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"event": "fin')
    follower = Follower(file)
    assert len(list(follower.read())) == 1
    with Teller(file) as tell:
        tell("begin", run_id="b")
    assert list(follower.read()) == [{"event": "begin", "run_id": "b"}]


def _begin(files: RunFiles, incarnation: str) -> Attempts:
    return Attempts.begin(files, CODE, incarnation, None, "s")


def test_three_idle_attempts_of_one_incarnation_are_enough(tmp_path: Path) -> None:
    files = Layout(tmp_path).run("a")
    files.folder.mkdir(parents=True)
    for _ in range(3):
        assert not _begin(files, "s").reason_to_give_up("s")
    assert "3 workers in a row died on it" in _begin(files, "s").reason_to_give_up("s")
    Attempts.forgive(files)
    assert not _begin(files, "s").reason_to_give_up("s")


def test_ten_idle_attempts_of_several_incarnations_are_enough(tmp_path: Path) -> None:
    files = Layout(tmp_path).run("a")
    files.folder.mkdir(parents=True)
    for number in range(10):
        assert not _begin(files, f"job {number}").reason_to_give_up(f"job {number}")
    assert "10 attempts in a row" in _begin(files, "another").reason_to_give_up("another")


def test_a_new_checkpoint_is_progress(tmp_path: Path) -> None:
    files = Layout(tmp_path).run("a")
    files.folder.mkdir(parents=True)
    for number in range(20):
        attempts = _begin(files, "s")
        assert not attempts.reason_to_give_up("s")
        files.checkpoint.write_text(str(number))
    assert attempts.attempts == 20


def test_stopping_before_the_first_step_is_no_progress(tmp_path: Path) -> None:
    """Though a checkpoint is stored then."""
    files = Layout(tmp_path).run("a")
    files.folder.mkdir(parents=True)
    for number in range(10):
        attempts = _begin(files, f"job {number}")
        files.checkpoint.write_text(str(number))
        attempts.left(files, advanced=False)
    assert "10 attempts" in _begin(files, "job 10").reason_to_give_up("job 10")
    _begin(files, "job 11").left(files, advanced=True)
    assert not _begin(files, "job 12").reason_to_give_up("job 12")
