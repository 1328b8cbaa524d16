"""A command of icbench as a job of its own: a search's controller that outlives whoever typed it."""

import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from icbench import ledger
from icbench.cluster import frozen, slurm
from icbench.cluster.submit import Executor
from icbench.layout import Layout
from icbench.profile import Slurm

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

_END_SECONDS = 60.0


@dataclass
class Detached:
    """What submitit calls in the job, and asks for its successor when the job's time is over."""

    words: list[str]
    _child: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def __call__(self) -> None:
        # By itself, so that its signals are its own: submitit keeps SIGTERM from this process.
        self._child = subprocess.Popen([sys.executable, "-P", "-m", "icbench", *self.words])
        code = self._child.wait()
        if code:
            sys.exit(code)

    def checkpoint(self) -> "DelayedSubmission":
        """The same again: all that a controller knows lies in its study and in the results."""
        from submitit.helpers import DelayedSubmission

        if self._child is not None:
            self._child.terminate()
            self._child.wait(_END_SECONDS)
        return DelayedSubmission(Detached(self.words))


def submit(layout: Layout, name: str, profile: Slurm, words: list[str]) -> str:
    """Submit `icbench WORDS` as a job of one core, in the working directory of this process; its id. Raises SlurmError.

    profile: whose partition, account and limits it has; of its GPUs and memory it has none.
    """
    own = replace(
        profile,
        nodes=1,
        gpus_per_node=0,
        gpu_type=None,
        mem_per_gpu=None,
        runs_per_gpu=1,
        gpus_per_run=1,
        runs_per_node=1,
        threads=1,
        device="cpu",
        mps=False,
        sbatch=tuple((key, value) for key, value in profile.sbatch if not key.startswith(_OF_RUNS)),
    )
    entry = ledger.Entry.new(name, own, [], slurm.cluster().name)
    folder = layout.sweep(name).submission(entry.submission).submitit.absolute()
    folder.mkdir(parents=True)
    ledger.write(layout, entry)
    job = Executor(folder, frozen.freeze(layout).absolute(), entry.job_name, own).submit_one(Detached(words))
    ledger.write(layout, entry.with_jobs([str(job.job_id)]))
    return str(job.job_id)


# Options of sbatch that are about what runs need, not a controller.
_OF_RUNS = ("gpus", "gres", "mem", "exclusive", "cpus", "ntasks", "nodes")
