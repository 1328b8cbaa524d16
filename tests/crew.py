"""A crew for tests of a search's controller: its runs' learning curves are made up, all else is real."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from icbench.config import RunConfig
from icbench.curve import read_curve, write_curve
from icbench.events import Event
from icbench.failure import record_failure
from icbench.layout import Layout
from icbench.plan import Run
from icbench.results import configured, is_finished, schema, write_run
from icbench.search import settings, storage
from icbench.search.controller import Controller, Ended, prepare
from icbench.search.settings import Search
from icbench.search.study import CellStudy

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

Curve = Callable[[RunConfig], Sequence[float]]
# Connections to a server have to be closed by somebody.
OPENED: list["RDBStorage"] = []
SECONDS = 2.0  # of each made-up epoch


@dataclass
class MadeUpCrew:
    """One worker that does an epoch of the first open run between two looks of the controller.

    A curve that ends before the recipe does is that of a run that diverged; an empty one, of a run that fails.
    """

    layout: Layout
    curve: Curve
    runs: list[Run] = field(default_factory=list)
    stopped: set[str] = field(default_factory=set)
    begun: list[str] = field(default_factory=list)
    further: list[int] = field(default_factory=list)
    closed: bool = False
    dies_after: int | None = None  # looks; the controller is then gone as if it had been killed

    def __enter__(self) -> "MadeUpCrew":
        return self

    def __exit__(self, *_: object) -> None: ...

    def give(self, runs: Collection[Run], further: int) -> None:
        self.runs = list(runs)
        self.further.append(further)
        self.stopped -= {run_id for run_id, _ in runs}

    def stop(self, run_id: str) -> None:
        self.stopped.add(run_id)

    def close(self) -> None:
        self.closed = True

    def events(self) -> Iterator[Event | None]:
        looks = 0
        while not self.closed:
            looks += 1
            if self.dies_after is not None and looks > self.dies_after:
                raise Killed
            for run_id, config in self.runs:
                if not is_finished(self.layout, run_id) and run_id not in self.stopped:
                    self._epoch(run_id, config)
                    break
            yield None

    def _epoch(self, run_id: str, config: RunConfig) -> None:
        files = self.layout.run(run_id)
        files.folder.mkdir(parents=True, exist_ok=True)
        curve, done = self.curve(config), len(read_curve(files).accuracies)
        if not done:
            self.begun.append(run_id)
        if not curve:
            record_failure(files, "error", "made up to fail")
            return
        write_curve(files, [SimpleNamespace(epoch=done + 1, test_accuracy=curve[done], seconds=SECONDS)])
        if done + 1 == len(curve):
            finish(self.layout, run_id, config, curve)


class Killed(Exception):
    pass


def finish(layout: Layout, run_id: str, config: RunConfig, curve: Sequence[float]) -> None:
    """Write a run's results."""
    moment = datetime.now(UTC)
    row = dict.fromkeys(schema("runs").names) | configured(run_id, config)
    row |= {
        "epochs": len(curve),
        "test_accuracy": curve[-1],
        "diverged": len(curve) < config.recipe.epochs,
        "started_at": moment,
        "finished_at": moment,
    }
    empty = dict.fromkeys(schema("epochs").names)
    epochs = [
        empty | {"run_id": run_id, "epoch": n + 1, "test_accuracy": accuracy, "seconds": SECONDS}
        for n, accuracy in enumerate(curve)
    ]
    write_run(layout, row, epochs)
    layout.run(run_id).curve.unlink(missing_ok=True)


@dataclass
class Searched:
    """A search that was begun, and what came of it."""

    search: Search
    layout: Layout
    studies: list[CellStudy]
    ended: list[Ended]
    crew: MadeUpCrew

    @property
    def trials(self) -> list[tuple[object, ...]]:
        """Of the last study: each trial's number, state, values and parameters."""
        found = self.studies[-1].study.get_trials()
        return [(trial.number, trial.state.name, trial.values, trial.params) for trial in found]


def search(
    folder: Path, text: str, curve: Curve, *, slots: int = 1, dies_after: int | None = None, url: str | None = None
) -> Searched:
    """Search in `folder`, with one worker whose runs have made-up curves."""
    file = folder / "search.yaml"
    file.write_text(text)
    layout, what = Layout(folder / "results"), settings.load(file)
    database = storage.connect(storage.url(layout, url), layout)
    prepare(layout, what)
    OPENED.append(database)
    studies = [CellStudy(what, cell, database) for cell in what.cells]
    crew = MadeUpCrew(layout, curve, dies_after=dies_after)
    ended: list[Ended] = []
    try:
        with Controller(what, layout, studies, slots, share=1.0, began=0.0) as controller, crew:
            ended += [each for each in controller.follow(crew) if isinstance(each, Ended)]
    except Killed:
        pass
    return Searched(what, layout, studies, ended, crew)
