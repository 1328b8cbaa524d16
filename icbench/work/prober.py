"""Measures networks after their training, from the checkpoints that were kept of it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from icbench.config import RunConfig, Variant
from icbench.errors import UserError
from icbench.layout import Layout
from icbench.locks import Lock
from icbench.results import read_probes, write_probes
from icbench.train.loop import Unwatched, begin
from icbench.train.numerics import set_numerics
from icbench.train.ranks import ALONE
from icbench.work.equipment import source
from icbench.work.recorder import kept_file, measure, options_json

Tell = Callable[[str], None]


def device(choice: str) -> str:
    """A device by name, of `auto` the GPU if there is one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if choice == "auto" else choice


class _Damaged(Unwatched):
    """Refuses a checkpoint that cannot be gone on from."""

    def __init__(self, file: Path):
        self._file = file

    def discarded(self) -> None:
        problem = "this checkpoint is damaged, or of another version of icbench."
        raise UserError(problem, "Remove it.", file=self._file)


def probe(
    layout: Layout,
    run_id: str,
    config: RunConfig,
    wanted: Sequence[tuple[int, Variant]],
    data: Path | None,
    device: str,
    tell: Tell,
    *,
    again: bool,
) -> int:
    """Measure a finished run at these epochs by these probes, and add that to its rows; how many rows are new.

    What was measured already is left as it is, or made anew with `again`. `tell` hears of each probe before it begins.
    Raises UserError for a damaged checkpoint, or where another process has the run.
    """
    files = layout.run(run_id)
    files.folder.mkdir(parents=True, exist_ok=True)
    lock = Lock.take(files.lock)
    if lock is None:
        raise UserError(f"another process is at run {run_id}.", "Wait for it to end.", file=files.lock)
    with lock:
        rows = [
            {name: value for name, value in row.items() if name != "run_id"}
            for row in read_probes(layout, [run_id]).to_pylist()
        ]
        todo = list(wanted) if again else missing(rows, wanted)
        if not todo:
            return 0
        count = 0
        for epoch, fresh in _measure(layout, run_id, config, todo, data, torch.device(device), tell):
            replaced = {(epoch, each.name) for at, each in todo if at == epoch}
            rows = [row for row in rows if (row["epoch"], row["probe"]) not in replaced] + fresh
            # At once: a later epoch may be interrupted, or its checkpoint damaged.
            write_probes(layout, run_id, sorted(rows, key=lambda row: row["epoch"]))
            count += len(fresh)
        return count


def missing(rows: Collection[dict[str, Any]], wanted: Sequence[tuple[int, Variant]]) -> list[tuple[int, Variant]]:
    """Of what is wanted, that of which there are no rows with the same options."""
    have = {(row["epoch"], row["probe"], row["options"]) for row in rows}
    return [(epoch, each) for epoch, each in wanted if (epoch, each.name, options_json(each)) not in have]


def _measure(
    layout: Layout,
    run_id: str,
    config: RunConfig,
    todo: Sequence[tuple[int, Variant]],
    data: Path | None,
    device: torch.device,
    tell: Tell,
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Each epoch, and the rows that were measured then."""
    set_numerics(config.precision)
    images = source(config, data, device, torch.get_num_threads())
    for epoch in sorted({epoch for epoch, _ in todo}):
        file = kept_file(layout.kept(run_id), epoch)
        # Without a checkpoint it begins as it began: the state before the first step follows from the configuration.
        state = begin(config, images, file, _Damaged(file), ALONE)
        rows = []
        for at, each in todo:
            if at == epoch:
                tell(f"{each.name} after epoch {epoch}")
                rows += measure(each, config, images, state)
        yield epoch, rows
