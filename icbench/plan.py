"""grid - results = missing; what it costs; the packs."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from heapq import heapify, heapreplace

from icbench import catalog
from icbench.architecture import shape
from icbench.config import RunConfig, Variant
from icbench.errors import UserError
from icbench.grid import Sweep
from icbench.procedure import batch_sizes

Run = tuple[str, RunConfig]
Pack = tuple[Run, ...]


@dataclass(frozen=True)
class Plan:
    """A sweep's runs by what is left to do. `missing` is neither finished nor failed, in the grid's order."""

    sweep: Sweep
    finished: frozenset[str]
    failed: frozenset[str]
    missing: Pack


def make(sweep: Sweep, finished: Collection[str], failed: Collection[str]) -> Plan:
    """Compare a sweep with the ids of finished and failed runs."""
    ids = frozenset(sweep.run_ids)
    done = ids & frozenset(finished)
    lost = (ids & frozenset(failed)) - done
    missing = tuple(
        run
        for cell in sweep.cells
        if not done.issuperset(cell.run_ids)
        for run in cell.runs()
        if run[0] not in done and run[0] not in lost
    )
    return Plan(sweep, done, lost, missing)


def cost(config: RunConfig) -> float:
    """Estimated floating-point operations of a run: three forward passes' worth for each training image and epoch."""
    recipe = config.recipe
    return _cost_of_epoch(config.dataset, config.block, config.depth, config.width) * recipe.epochs


@cache
def _cost_of_epoch(name: str, block: str, depth: int, width: int) -> float:
    dataset = catalog.load("datasets", name)
    images: float = 3 * dataset.TRAIN_IMAGES + dataset.TEST_IMAGES
    return image_operations(name, block, depth, width) * images


@cache
def image_operations(name: str, block: str, depth: int, width: int) -> float:
    """Floating-point operations of one image's forward pass through a net for that data set."""
    return 2.0 * shape(name, block, depth, width).multiply_adds()


def idle_variants(configs: Iterable[RunConfig]) -> list[str]:
    """In words, the variants that are to act for the first time after more steps than their runs have."""
    found = {}
    for config in configs:
        for kind, variant in _variants(config):
            first = max((int(value) for option, value in variant.options if option in _STEPS_UNTIL), default=0)
            if first and first > (steps := _steps(config)):
                found[kind, variant, steps] = (
                    f"{kind} {variant.name} acts after {first} steps first, the run has {steps}"
                )
    return list(found.values())


# Options that say after how many steps of the optimiser a variant first does what it is for.
_STEPS_UNTIL = ("every", "warmup")


def _variants(config: RunConfig) -> Iterator[tuple[str, Variant]]:
    yield "norm", config.norm
    yield "weight", config.weight
    for procedure in config.procedures:
        yield "procedure", procedure


def _steps(config: RunConfig) -> int:
    """The optimiser's steps in a run on all training images."""
    images: int = catalog.load("datasets", config.dataset).TRAIN_IMAGES
    return sum(-(-images // size) for size in batch_sizes(config.recipe, config.procedures, images))


def smallest_batch(train_count: int, batch_size: int) -> int:
    """The images in the smallest batch of an epoch, its last."""
    return train_count % batch_size or batch_size


def require_shares(train_count: int, batch_size: int, ranks: int) -> None:
    """Raise UserError unless each of so many ranks has an image of every batch."""
    images = smallest_batch(train_count, batch_size)
    if images < ranks:
        problem = (
            f"{ranks} GPUs cannot share a batch of {images}: {train_count} training images in batches of {batch_size} "
            f"leave {images} for the last."
        )
        raise UserError(problem, f"gpus_per_run should be at most {images}, or batch_size another.")


def packs(runs: Collection[Run], count: int, weigh: Callable[[RunConfig], float] = cost) -> list[Pack]:
    """Deal runs into at most `count` packs of about equal weight: the longest first, each to the lightest pack."""
    loads = [(0.0, index) for index in range(min(count, len(runs)))]
    heapify(loads)
    dealt: list[list[Run]] = [[] for _ in loads]
    everything = list(runs)
    weights = [weigh(config) for _, config in everything]
    for number in sorted(range(len(weights)), key=weights.__getitem__, reverse=True):
        load, index = loads[0]
        heapreplace(loads, (load + weights[number], index))
        dealt[index].append(everything[number])
    return [tuple(pack) for pack in dealt]
