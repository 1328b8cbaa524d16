"""Measures networks after their training, from the checkpoints that were kept of it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from icbench.config import RunConfig, Variant
from icbench.errors import IcbenchError, UserError
from icbench.failure import in_words
from icbench.layout import Layout
from icbench.locks import Lock
from icbench.results import read, read_probes, write_probes
from icbench.train.loop import Unwatched, begin
from icbench.train.numerics import set_numerics
from icbench.train.ranks import ALONE
from icbench.work.equipment import source
from icbench.work.recorder import at_once, kept_file, measure, options_json

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


class Probed(NamedTuple):
    """rows: how many are new. lacking: whether some epochs had no checkpoint."""

    rows: int
    lacking: bool


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
) -> Probed:
    """Measure a finished run at these epochs by these probes, as far as checkpoints were kept, and add to its rows.

    What was measured already is left as it is, or made anew with `again`. `tell` hears of each probe before it begins.
    Raises UserError where another process has the run and, unless `again`, where a probe has measured it with other
    options; IcbenchError once all is done where a probe failed or a checkpoint is damaged.
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
        possible = [each for each in todo if each[0] == 0 or kept_file(layout.kept(run_id), each[0]).exists()]
        if not again:
            _refuse_other_options(run_id, rows, possible)
        count, failures = 0, []
        for epoch, fresh, failed in _measure(layout, run_id, config, possible, data, torch.device(device), tell):
            replaced = {row["probe"] for row in fresh}
            rows = [row for row in rows if row["epoch"] != epoch or row["probe"] not in replaced] + fresh
            # At once: a later epoch may be interrupted, or its checkpoint damaged.
            write_probes(layout, run_id, sorted(rows, key=lambda row: row["epoch"]))
            count += len(fresh)
            failures += failed
    if failures:
        raise IcbenchError(f"run {run_id}: {'; '.join(failures)}")
    return Probed(count, len(possible) < len(todo))


def _refuse_other_options(run_id: str, rows: Collection[dict[str, Any]], todo: Sequence[tuple[int, Variant]]) -> None:
    there = {(row["epoch"], row["probe"]) for row in rows}
    for epoch, each in todo:
        if (epoch, each.name) in there:
            problem = f"{each.name} measured run {run_id} after epoch {epoch} with other options."
            raise UserError(problem, "To replace that: --again.")


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
) -> Iterator[tuple[int, list[dict[str, Any]], list[str]]]:
    """Each epoch, the rows that were measured then, and in words what failed."""
    if not todo:
        return
    set_numerics(config.precision)
    images = source(config, data, device, torch.get_num_threads())
    (run,) = read(layout, "runs", [run_id], ["world_size", "images_at_once"]).to_pylist()
    most = at_once(config, run["world_size"] or 1, run["images_at_once"])
    for epoch in sorted({epoch for epoch, _ in todo}):
        file = kept_file(layout.kept(run_id), epoch)
        # Without a checkpoint it begins as it began: the state before the first step follows from the configuration.
        try:
            state = begin(config, images, file, _Damaged(file), ALONE)
        except UserError as error:
            yield epoch, [], [str(error)]
            continue
        rows, failed = [], []
        for at, each in todo:
            if at != epoch:
                continue
            tell(f"{each.name} after epoch {epoch}")
            try:
                rows += measure(each, config, images, state, most)
            except OSError:
                raise
            except Exception as error:
                failed.append(f"{each.name} failed after epoch {epoch}: {in_words(error)}")
        yield epoch, rows, failed
