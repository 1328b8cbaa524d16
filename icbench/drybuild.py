"""A trial of a grid's nets before any is trained: a combination that cannot be built is a mistake of the grid.

The nets are built by a child process (icbench.work.builder), since that takes torch, which commands do not import.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from functools import cache
from heapq import heapify, heappop, heapreplace
from itertools import combinations
from operator import attrgetter
from pathlib import Path
from typing import Any

from icbench import plan, wording
from icbench.architecture import family
from icbench.child import Child
from icbench.config import Cell, Recipe, RunConfig
from icbench.console import complain, plural
from icbench.errors import UserError
from icbench.grid import Sweep
from icbench.resolve import DEFAULTS, defaults

_MOST_NETS = 100
_SAY_SECONDS = 5.0

_FIELDS = tuple(field.name for field in fields(RunConfig) if field.name != "seed")
_all_but_dropout_and_recipe = attrgetter(*(name for name in _FIELDS if name not in ("dropout", "recipe")))


class Builder:
    """The child process. As a context: it imports torch while the command reads on; leaving it ends the child.

    data: where the data sets' files are, if not where they usually are; how many images they have may hang on them.
    """

    def __init__(self, data: Path | None = None):
        self._child = Child(
            "icbench.work.builder",
            # The nets are small.
            {"OMP_NUM_THREADS": "1"} | ({"ICBENCH_DATA": str(data)} if data else {}),
            "the process that builds each net of the grid for a trial",
            remedy="With --no-build the command does without the trial.",
        )

    def __enter__(self) -> "Builder":
        self._child.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._child.__exit__()

    def send(self, cells: Iterable[Cell]) -> None:
        """Have the child try the cells' nets. To be called once; it works while the command goes on."""
        self._nets = distinct(cells)
        self._tried = list(self._nets) if len(self._nets) <= _MOST_NETS else covering(list(self._nets))
        self._child.send(self._tried)

    def judge(self, sweep: Sweep) -> None:
        """Wait for the child. Raises UserError for the first cell of which no run can be trained."""
        blind = []
        for config, (failure, tells_images_apart) in zip(self._tried, self._answers(), strict=True):
            if failure is not None:
                raise _error(sweep, self._nets[config], **failure)
            if not tells_images_apart:
                blind.append(wording.cell(self._nets[config].config))
        if blind:
            more = f" and {len(blind) - 1} more" if len(blind) > 1 else ""
            complain(
                f"note: {blind[0]}{more}: says the same of every image, so it cannot learn. A norm of each image's "
                "single maps, right before the average over their pixels, leaves nothing else."
            )
        for idle in plan.idle_variants(cell.config for cell in self._nets.values()):
            complain(f"note: {idle}: it cannot show.")
        if len(self._tried) < len(self._nets):
            complain(
                f"{len(self._tried)} of the grid's {plural(len(self._nets), 'different net')} were built for a trial: "
                "as many as it takes for every two values that meet."
            )

    def _answers(self) -> Iterator[tuple[dict[str, Any] | None, bool]]:
        """How each net failed, or None if it did not; whether it tells images apart.

        Raises IcbenchError if the child ends before the last.
        """
        said = time.monotonic()
        for index in range(len(self._tried)):
            if sys.stderr.isatty() and time.monotonic() - said > _SAY_SECONDS:
                said = time.monotonic()
                complain(f"building each net of the grid for a trial: {index} of {len(self._tried)}")
            failure, tells_images_apart = self._child.answer()
            yield failure, tells_images_apart


def distinct(cells: Iterable[Cell]) -> dict[RunConfig, Cell]:
    """What stands for the cells' different nets, batches and types of numbers; the first cell that each stands for."""
    # In two steps, as a cell's configuration takes long to make and to hash: a grid may have 100,000 cells, but few
    # recipes, which are told apart by where they lie.
    rough: dict[tuple[object, ...], Cell] = {}
    for cell in cells:
        config = cell.config
        key = (_all_but_dropout_and_recipe(config), config.dropout is None, id(config.recipe))
        rough.setdefault(key, cell)
    nets: dict[RunConfig, Cell] = {}
    for cell in rough.values():
        nets.setdefault(_representative(cell.config), cell)
    return nets


def _representative(config: RunConfig) -> RunConfig:
    """A configuration with the same layers and batches: without what changes only how they are trained.

    What is not named here counts as a difference, so a field that is added later does, too. That a deeper net, of the
    same layers, may diverge as it is trained is a result, not a mistake.
    """
    return replace(
        config,
        depth=family(config.dataset).shallowest(config.block, config.depth),
        dropout=None if config.dropout is None else DEFAULTS["dropout"],
        recipe=_training_left_out(config.recipe),
    )


@cache
def _training_left_out(recipe: Recipe) -> Recipe:
    return replace(recipe, learning_rate=1.0, learning_rate_steps=(), epochs=1, subtract_pixel_mean=False)


def covering(nets: list[RunConfig]) -> list[RunConfig]:
    """Some of the nets, in which every two values that stand together in any net stand together.

    For many nets, which would take minutes: it is nearly always two values that do not go together, such as a norm's
    option and a width. A net that is not tried fails at its run's beginning, and says why.
    """
    pairs = [set(combinations(((name, getattr(config, name)) for name in _FIELDS), 2)) for config in nets]
    # Greedily, whichever has most pairs that are new. What a net adds only falls, so its last count is a bound.
    heap = [(-len(new), index) for index, new in enumerate(pairs)]
    heapify(heap)
    chosen = []
    met: set[object] = set()
    while heap:
        bound, index = heap[0]
        pairs[index] -= met
        new = len(pairs[index])
        if new == 0:
            heappop(heap)
        elif new < -bound:
            heapreplace(heap, (-new, index))
        else:
            heappop(heap)
            met |= pairs[index]
            chosen.append(index)
    return [nets[index] for index in sorted(chosen)]


def _error(sweep: Sweep, cell: Cell, step: str, reason: str, field: str | None) -> UserError:
    """The failed trial of a cell's net as a mistake of the grid."""
    problem = f"no net of ({wording.cell(cell.config)}) can be {step}: {reason.rstrip('.')}."
    if field is None:
        return sweep.error(cell, ("ordering",), problem, "Change one of its fields, or leave the combination out.")
    usual = defaults(cell.config.dataset)[field] or "[]"
    remedy = f"With {field}: {usual} it can: give {field} another value, or leave the combination out."
    return sweep.error(cell, (field, "ordering"), problem, remedy)
