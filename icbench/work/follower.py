"""What the ranks of a run after the first do: they follow it from run to run, train with it, and write nothing."""

import pickle
import traceback
from typing import TYPE_CHECKING

from icbench import kinds
from icbench.failure import in_words, record_failure
from icbench.files import say_in_log
from icbench.train.engines import choose
from icbench.train.evaluation import Stopped
from icbench.train.loop import train
from icbench.train.ranks import PeerLost, Ranks
from icbench.work.assignment import WAITING, Assignment, Outcome
from icbench.work.equipment import Equipment
from icbench.work.meeting import meet
from icbench.work.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from icbench.config import RunConfig
    from icbench.train.state import EpochRow
    from icbench.work.pulse import Pulse


def work(assignment: Assignment) -> Outcome:
    """Follow the first rank until it says that there is nothing more to do."""
    equipment = Equipment(assignment)
    met = False
    try:
        with equipment.pulse, meet(equipment) as ranks:
            met = True
            while told := ranks.broadcast(None):
                if told == WAITING:
                    continue
                run_id, config = pickle.loads(told)
                _train(run_id, config, equipment, ranks)
    except PeerLost as error:
        say_in_log(f"parted: {error}")
        return Outcome.PARTED if met else Outcome.UNMET
    return Outcome.DONE if told is None else Outcome.STOPPED


def _train(run_id: str, config: "RunConfig", equipment: Equipment, ranks: Ranks) -> None:
    files = equipment.layout.run(run_id)
    data, assignment = equipment.data(config), equipment.assignment
    try:
        engine = choose(assignment.engine, config, data, ranks, assignment.images_at_once)
        kept, watcher = equipment.layout.kept(run_id), _Silent(equipment.pulse)
        recorder = Recorder(
            assignment.recording, config, data, ranks, files, kept, watcher.should_stop, say_in_log, _nothing_failed
        )
        train(config, data, files.checkpoint, watcher, ranks, engine=engine, observe=recorder)
    except Stopped:
        return  # the first rank says what comes next
    except PeerLost:
        raise
    except Exception as error:
        trace = traceback.format_exc()
        record_failure(files, kinds.of_error(error), f"rank {ranks.rank}: {in_words(error)}", trace)
        raise PeerLost(f"run {run_id} failed on rank {ranks.rank}") from None


def _nothing_failed(*_: object) -> None:
    """Probes are the first rank's work."""


class _Silent:
    """The watcher of a training whose progress the first rank makes known."""

    def __init__(self, pulse: "Pulse"):
        self._pulse = pulse

    def resumed(self, rows: "Sequence[EpochRow]", step: int) -> None:
        pass

    def discarded(self) -> None:
        pass

    def stepped(self, epochs: float) -> None:
        pass

    def epoch_ended(self, row: "EpochRow") -> None:
        pass

    def should_stop(self) -> bool:
        return self._pulse.stop

    def should_save(self) -> bool:
        return False

    def saved(self, epochs: float) -> None:
        pass
