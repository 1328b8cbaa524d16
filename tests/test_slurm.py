"""SLURM's answers as icbench reads them. Only the commands are faked; tests/cluster/ has the real ones."""

from collections.abc import Callable
from pathlib import Path

import pytest

from icbench import kinds
from icbench.cluster import slurm
from icbench.cluster.slurm import Ending, QueuedJob, SlurmError

Fake = Callable[..., Path]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put a command in front of all others that prints `out` and `err`, exits with `code` and notes its arguments."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(name: str, out: str = "", err: str = "", code: int = 0) -> Path:
        (tmp_path / f"{name}.out").write_text(out)
        (tmp_path / f"{name}.err").write_text(err)
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\necho "$@" >> $0.called\n/bin/cat $0.out\n/bin/cat $0.err >&2\nexit {code}\n')
        script.chmod(0o755)
        return tmp_path / f"{name}.called"

    return make


def test_the_queue(fake: Fake) -> None:
    called = fake("squeue", "12_3|grid.ab|RUNNING|None|n1\n12_4|grid.ab|PENDING|(JobArrayTaskLimit)|\n")
    assert slurm.queue({"grid.ab", "a.cd"}) == [
        QueuedJob("12_3", "grid.ab", "RUNNING", "None", "n1"),
        QueuedJob("12_4", "grid.ab", "PENDING", "(JobArrayTaskLimit)", ""),
    ]
    assert [job.is_pending for job in slurm.queue(["x"])] == [False, True]
    assert called.read_text().splitlines()[0].endswith("--name=a.cd,grid.ab")
    assert slurm.queue([]) == []
    assert len(called.read_text().splitlines()) == 2  # nothing to ask for, nothing asked


def test_how_jobs_ended(fake: Fake) -> None:
    """The last of several endings counts; what has not ended has none."""
    lines = ["12_0|NODE_FAIL|1:0", "12_0|CANCELLED by 1000|0:15", "12_1|RUNNING|0:0", "12_2|OUT_OF_MEMORY|0:125",
             "12_[3-9]|PENDING|0:0", "12_3|FAILED|74:0", "12_4|REQUEUED|0:0", "12_5|TIMEOUT|0:0"]  # fmt: skip
    called = fake("sacct", "\n".join(lines) + "\n")
    found = slurm.endings(["12_0", "12_1", "13"])
    assert found["12_0"] == Ending("CANCELLED", 0, 15)
    assert found.keys() == {"12_0", "12_2", "12_3", "12_5"}
    assert called.read_text().rstrip().endswith("--jobs=12,13")
    assert {job: kinds.of_job(each.state, each.exit_code) for job, each in found.items()} == {
        "12_0": "cancelled",
        "12_2": "host-oom",
        "12_3": "disk",
        "12_5": "time-out",
    }


def test_what_is_refused_is_said(fake: Fake) -> None:
    fake("squeue", err="squeue: error: Unable to contact slurm controller (connect failure)\n", code=1)
    with pytest.raises(SlurmError, match=r"^squeue failed: Unable to contact slurm controller \(connect failure\)$"):
        slurm.queue(["a"])
    with pytest.raises(SlurmError, match="there is no sacct here"):
        slurm.endings(["1"])


@pytest.mark.parametrize(
    ("ours", "theirs", "qos", "expected"),
    [
        ("", "", None, None),
        ("normal|\n|\n", "normal|\n", None, None),
        ("normal|10\n", "normal|\n", None, 8),
        ("normal|10\n", "normal|5\nhigh|3\n", None, 3),
        ("normal|10\n", "normal|5\nhigh|3\n", "high", 1),
        ("normal|1\n", "normal|\n", None, 0),
    ],
)
def test_submit_limits(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, ours: str, theirs: str, qos: str | None, expected: int | None
) -> None:
    """The strictest of the user's and the QOS's, less two jobs that are queued."""
    monkeypatch.setattr(slurm.getpass, "getuser", lambda: "me")
    called = fake("sacctmgr", "")
    called.with_suffix("").write_text(
        f"#!/bin/sh\ncase \"$*\" in *associations*) printf '{ours}';; *DefaultAccount*) echo mine;; "
        f"*) printf '{theirs}';; esac\necho \"$@\" >> {called}\n"
    )
    fake("squeue", "1\n2\n")
    assert slurm.submit_limit("here", None, qos) == expected
    assert "user=me account=mine cluster=here format=DefaultQOS,MaxSubmitJobs" in called.read_text()


def test_what_a_cluster_says_of_itself(fake: Fake) -> None:
    lines = "Configuration data as of now\nMaxArraySize            = 1001\nClusterName = here\n"
    fake("scontrol", lines)
    assert slurm.cluster() == slurm.Cluster("here", 1001)
    fake("scontrol", lines + "SchedulerParameters = bf_interval=1,max_array_tasks=50,defer\n")
    assert slurm.cluster().largest_array == 50
    fake("scontrol", "MaxArraySize = 0\n")  # arrays are switched off
    assert slurm.cluster() == slurm.Cluster("", 1)
    fake("scontrol", "nothing\n")
    with pytest.raises(SlurmError, match="MaxArraySize"):
        slurm.cluster()


def test_job_ids_in_short() -> None:
    assert slurm.in_short(["12_0", "12_1", "12_2", "12_7", "13", "14_5"]) == ["12_[0-2,7]", "13", "14_[5]"]
    assert slurm.in_short([]) == []
