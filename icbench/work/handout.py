"""The runs of a submission that is open: whoever holds its lifeline hands out more of them while its workers work."""

import pickle
from collections.abc import Collection
from dataclasses import dataclass

from icbench import ledger
from icbench.files import write_json, write_whole
from icbench.layout import Layout, SubmissionFiles
from icbench.plan import Run


@dataclass(frozen=True)
class Handout:
    """Of one submission. What its workers have is always one pack, which all of them go through from its beginning."""

    layout: Layout
    entry: ledger.Entry

    def give(self, runs: Collection[Run]) -> None:
        """From now on these are the runs to be done, instead of those given before; workers notice at once."""
        packs = [tuple(runs)]
        write_whole(self.files.packs, lambda file: pickle.dump(packs, file), durable=False)
        write_json(self.files.open, [run_id for run_id, _ in runs], durable=False)

    def stop(self, run_id: str) -> None:
        """Have a run end with the epoch that it is in, or not begun."""
        file = self.files.stop(run_id)
        file.parent.mkdir(exist_ok=True)
        file.touch()

    def allow(self, run_id: str) -> None:
        """Take `stop` back: somebody wants the run after all."""
        self.files.stop(run_id).unlink(missing_ok=True)

    def release(self, workers: Collection[int]) -> None:
        """These workers, and no others, end when nothing is left to do instead of waiting for more."""
        folder = self.files.released(0).parent
        folder.mkdir(exist_ok=True)
        wanted = {self.files.released(index) for index in workers}
        present = set(folder.iterdir())
        for file in wanted - present:
            file.touch()
        for file in present - wanted:
            file.unlink(missing_ok=True)

    def close(self, left: Collection[str] = ()) -> None:
        """No more will come: workers end once nothing is left to do of what they were given last, `left`."""
        if not self.is_open:
            return
        ledger.write(self.layout, self.entry.dealt([left] if left else []))
        self.files.open.unlink(missing_ok=True)

    @property
    def is_open(self) -> bool:
        return self.files.open.exists()

    @property
    def files(self) -> SubmissionFiles:
        return self.layout.sweep(self.entry.sweep).submission(self.entry.submission)
