"""How a sweep shows that it is under way: live on a terminal, a line for each ended run in a pipe."""

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from icbench import monitor, wording
from icbench.config import RunConfig
from icbench.console import duration
from icbench.events import Event
from icbench.layout import Layout
from icbench.plan import Run
from icbench.results import finished

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_REFRESH_SECONDS = 0.25
_LOOK_SECONDS = 5.0


class Jobs(Protocol):
    """What a sweep's jobs, local or on a cluster, let one follow."""

    @property
    def running(self) -> list[str]:
        """The ids of the runs under way."""

    def events(self) -> Iterator[Event | None]:
        """What workers begin and end, as it happens; None whenever a moment has passed."""


class Progress:
    """Follows a sweep's events; counts the runs that its workers end, and those that it finds ended by others.

    weigh: how long a run takes, beside the others.
    """

    def __init__(
        self,
        layout: Layout,
        missing: tuple[Run, ...],
        total: int,
        console: "Console",
        weigh: Callable[[RunConfig], float],
    ):
        from rich.live import Live

        self._layout = layout
        self._configs = dict(missing)
        self._labels = _labels(missing)
        self._costs = {run_id: weigh(config) for run_id, config in missing}
        self._left = set(self._configs)
        self._ended = total - len(missing)
        self._total = total
        self._console = console
        self._began = time.monotonic()
        self._pace_from: tuple[float, float] | None = None
        self._starts: dict[str, tuple[float, float]] = {}
        self._work_done = 0.0
        self._shown = 0.0
        self._looked = self._began
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line)

    def follow(self, jobs: Jobs) -> None:
        """Show what jobs do until they have ended."""
        for event in jobs.events():
            if event is not None:
                self._note(event)
            self._refresh(jobs)

    def _note(self, event: Event) -> None:
        """Show what a worker says."""
        run_id = event.get("run_id")
        if run_id is None or run_id not in self._configs:
            return
        label = self._labels[run_id]
        match event["event"]:
            case "begin":
                beat = monitor.beat(self._layout, run_id)
                self._starts[run_id] = (time.monotonic(), beat.done / beat.epochs if beat else 0.0)
            case "finish":
                self._end(run_id)
                accuracy = f"accuracy {event['test_accuracy']:.4f}" + (", diverged" if event["diverged"] else "")
                took = time.monotonic() - self._starts[run_id][0] if run_id in self._starts else 0.0
                self.say(f"[{self._ended}/{self._total}] {run_id} {label}: {accuracy} ({took:.1f} s)")
            case "fail":
                self._end(run_id)
                self.say(f"[{self._ended}/{self._total}] {run_id} {label}: FAILED, {event['message']}")
            case "probe-failed":
                what = f"the probe {event['probe']} failed after epoch {event['epoch']}"
                self.say(f"{run_id} {label}: {what}, {event['message']}; the training goes on (icbench logs {run_id})")
            case "death":
                self.say(f"a worker died in {run_id} {label}; the run goes on from its last checkpoint")

    def _end(self, run_id: str) -> None:
        """Count a run as ended, once."""
        if run_id in self._left:
            self._left.discard(run_id)
            self._ended += 1
            start = self._starts.get(run_id, (0.0, 0.0))[1]
            self._work_done += self._costs[run_id] * (1 - start)

    def _refresh(self, jobs: Jobs) -> None:
        """Bring the count and the live display up to date, not too often."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            for run_id in self._left & finished(self._layout):
                self._end(run_id)
        if self._live and time.monotonic() - self._shown > _REFRESH_SECONDS:
            self._shown = time.monotonic()
            self._live.update(self._display(jobs.running), refresh=True)

    def _display(self, running: list[str]) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        # Jobs that are shared with another sweep may be at work on its runs, too.
        own = [run_id for run_id in running if run_id in self._labels]
        beats = [beat for beat in (monitor.beat(self._layout, run_id) for run_id in own) if beat]
        head = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=self._total, completed=self._ended, width=30)
        head.add_row(bar, f"{self._ended}/{self._total} runs", self._time_left(beats))
        lines = Table.grid(padding=(0, 2))
        for beat in beats:
            left = "" if beat.seconds_left is None else f"{duration(beat.seconds_left)} left"
            lines.add_row(beat.run_id, self._labels[beat.run_id], f"epoch {beat.done:.1f}/{beat.epochs}", left)
        return Group(head, lines)

    def _time_left(self, beats: list[monitor.Beat]) -> str:
        """Extrapolated from the estimated cost of the runs that this sweep has done so far, parts of runs included."""
        done = self._work_done
        remaining = sum(self._costs[run_id] for run_id in self._left)
        for beat in beats:
            if beat.run_id in self._starts and beat.run_id in self._left:
                part = beat.done / beat.epochs
                done += self._costs[beat.run_id] * max(0.0, part - self._starts[beat.run_id][1])
                remaining -= self._costs[beat.run_id] * part
        now = time.monotonic()
        elapsed = f"{duration(now - self._began)} elapsed"
        if not done:
            return elapsed
        # From the first sign of work on: before it, workers start and import torch.
        first, at = self._pace_from = self._pace_from or (done, now)
        return f"{elapsed}, about {duration(remaining / (done - first) * (now - at))} left" if done > first else elapsed


def _labels(runs: tuple[Run, ...]) -> dict[str, str]:
    """Each run in a few words; with its recipe where they differ."""
    several = len({config.recipe.label for _, config in runs}) > 1
    return {i: wording.run(config) + (f" recipe {config.recipe.label}" if several else "") for i, config in runs}
