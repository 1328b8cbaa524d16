"""How long trainings take: from what was measured of others to seconds, with intervals.

The model. A training's seconds are its floating-point operations times its pace, in seconds for one of them. The
logarithm of the pace is a sum of effects: one of the device, one of each feature of the configuration (its depth, its
norm, ...), one of the net that has all of these features, and the noise of single runs. All are normal, with the
deviations below: those of depth, width and batch size alike for values that are near each other. What was measured on
the device, of whatever nets, conditions them (a linear mixed model, solved exactly). So a net that was measured is
known by its measurements, one that resembles measured ones by their paces, and where nothing was measured its
operations and the kind of device tell little.

The intervals. How far the measured paces lie from what their features let expect scales all deviations, with
`_PRIOR_COUNT` measurements' worth of belief in the values below: predictions have Student's t distribution, with wide
tails where little was measured. Totals and finish times come from joint draws of all paces, so an error that runs share
(the device's pace, the load of the day, the one norm of all) is not averaged away over them; only the noise of single
runs is. An interval is that between the 5 % and the 95 % quantile of the draws. In simulated logs, whose effects are
drawn with deviations from half to one and a half times those below, 90 % intervals hold the truth in 87 to 96 % of
cases (tests/test_estimate.py).
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from heapq import heapreplace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from icbench import catalog, plan
from icbench.config import RunConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEVEL = 0.9

# Deviations of the effects on the logarithm of a pace. Norms in a whole net cost from 0.9 to 2.3 times batch
# normalisation's (docs/results/method-costs.json: 0.27); the others are guesses that lie on the wide side.
_DEVIATIONS = {
    "dataset": 0.3,
    "block": 0.3,
    "depth": 0.15,
    "width": 0.4,
    "ordering": 0.15,
    "norm": 0.35,
    "weight": 0.3,
    "activation": 0.15,
    "procedures": 0.3,
    "dropout": 0.2,
    "precision": 0.5,
    "batch_size": 0.2,
    "recipe": 0.15,
}
# What the paces below are of: it has no effect of its own.
_USUAL = {
    "block": "basic",
    "norm": "batch",
    "weight": "plain",
    "activation": "relu",
    "procedures": "",
    "precision": "float32",
}
_NUMBERS = ("depth", "width", "batch_size")  # alike where they are near: by the logarithm of their ratio
_NEGLIGIBLE = 1e-6
_NET = 0.12
_RUN = 0.1
_RUN_COUNT = 4  # measurements' worth of belief in _RUN
_OCCASION = 0.06  # the load of the day, common to what is run together
_CANARY = 0.12  # what all steps of canaries have in common that whole runs do not
_DECODING = 0.5  # a run may wait for images, which a canary without decoding does not
_ENGINE = math.log(4)  # another engine is another program: replayed steps of small nets take from all to a fifth
_PARTS = 0.4  # a batch done in parts, or in others
_PRIOR_COUNT = 6

# Seconds for a floating-point operation, on a core or a GPU of unknown make, and the deviation of its logarithm:
# residual nets on current ones lie between 5 and 60 GFLOP/s a core, and 0.3 and 30 TFLOP/s a GPU; on GPUs, ImageNet's
# nets, whose operations are large ones, ten times that.
_PACES = {"cpu": (1 / 2e10, 0.7), "cuda": (1 / 3e12, 1.3)}
_LARGE_NETS = {"cpu": 1.0, "cuda": 10.0}
_RANKS_EFFICIENCY = 0.9  # of several GPUs that share a run

_DRAWS = 1000
_MOST_DRAWN = 4_000_000  # numbers
_MOST_OBSERVED = 800


class Features(NamedTuple):
    """What of a configuration its pace hangs on. Variants have their options; recipe: what else it is trained by."""

    dataset: str
    block: str
    depth: int
    width: int
    ordering: str
    norm: str
    weight: str
    activation: str
    procedures: str
    dropout: bool
    precision: str
    batch_size: int
    recipe: str


class Place(NamedTuple):
    """Where and how: the device by its name, CPU threads, the ranks of a run; sharing: how many runs share a GPU, or
    a core that has less than one for each thread; engine, images_at_once: as in rows of results, or as a profile asks
    for them, of which a net has what it can (see _manner)."""

    device: str
    threads: int
    ranks: int
    sharing: float
    engine: str
    images_at_once: int | None


class Observation(NamedTuple):
    """What was measured of a net in a place. pace: seconds for a floating-point operation, the geometric mean of so
    many runs, or of a canary's steps; squares: the sum of the squared deviations of the runs' logarithms from their
    mean. from_shards: of a canary, whether its images were read and decoded as a run's are.
    """

    features: Features
    place: Place
    pace: float
    runs: int = 1
    squares: float = 0.0
    is_canary: bool = False
    from_shards: bool = False

    @property
    def lacks_decoding(self) -> bool:
        """Whether what came before a canary's batches is left out, which runs of its data set wait for."""
        return self.is_canary and not self.from_shards and _is_sharded(self.features.dataset)


class Interval(NamedTuple):
    """An estimate, and between what the truth lies with a probability of LEVEL."""

    estimate: float
    low: float
    high: float

    def times(self, factor: float) -> "Interval":
        return Interval(*(value * factor for value in self))

    def plus(self, more: float) -> "Interval":
        return Interval(*(value + more for value in self))

    @property
    def factor(self) -> float:
        """By how much the truth may be more, or less."""
        if self.estimate <= 0:
            return 1.0
        return max(self.high / self.estimate, self.estimate / self.low)


def features(canonical: Mapping[str, Any]) -> Features:
    """Of a run's or a cell's canonical form, as parsed from JSON."""
    training = dict(canonical["recipe"])
    batch_size = training.pop("batch_size")
    for key in ("learning_rate", "learning_rate_steps", "epochs", "weight_decay", "initialization"):
        training.pop(key, None)
    training["optimizer"] = training["optimizer"]["name"]
    return Features(
        canonical["dataset"],
        canonical["block"],
        canonical["depth"],
        canonical["width"],
        canonical["ordering"],
        _in_words(canonical["norm"]),
        _in_words(canonical.get("weight", {"name": "plain"})),
        _in_words(canonical.get("activation", {"name": "relu"})),
        "; ".join(map(_in_words, canonical.get("procedures", ()))),
        bool(canonical.get("dropout")),
        canonical["precision"],
        batch_size,
        json.dumps(training, sort_keys=True),
    )


def _in_words(variant: Mapping[str, Any]) -> str:
    return " ".join([variant["name"], *(f"{key}={variant[key]}" for key in sorted(variant) if key != "name")])


def features_of(config: RunConfig) -> Features:
    return features(json.loads(config.cell_json()))


@cache
def epoch_operations(dataset: str, split: str, block: str, depth: int, width: int) -> float:
    """Floating-point operations of an epoch: three forward passes for each training image, one for each test image."""
    train, test = image_counts(dataset, split)
    return plan.image_operations(dataset, block, depth, width) * (3 * train + test)


@cache
def image_counts(dataset: str, split: str) -> tuple[int, int]:
    """How many images an epoch trains on, and how many it tests on."""
    data = catalog.load("datasets", dataset)
    train, test = data.TRAIN_IMAGES, data.TEST_IMAGES
    return (train, test) if split == "test" else (train - train // 10, train // 10)


def operations(config: RunConfig) -> float:
    """Floating-point operations of a run."""
    one = epoch_operations(config.dataset, config.split, config.block, config.depth, config.width)
    return one * config.recipe.epochs


class Group(NamedTuple):
    """`runs` runs of equal features and operations."""

    features: Features
    operations: float
    runs: int


_all_but_dropout = attrgetter(*(name for name in RunConfig.__slots__ if name not in ("dropout", "seed")))


class Grouping:
    """Puts runs into groups, in a microsecond each: of 100,000 runs there may be few. configs: one of each."""

    def __init__(self) -> None:
        self._index: dict[tuple[object, ...], tuple[int, RunConfig]] = {}
        self._groups: dict[tuple[Features, float], int] = {}
        self.counts: list[int] = []
        self.configs: list[RunConfig] = []

    def of(self, config: RunConfig) -> int:
        """The number of the run's group."""
        # By where the values lie: the catalogue and the grid make each once, and to hash them would take longer.
        rough = (*map(id, _all_but_dropout(config)), not config.dropout)
        known = self._index.get(rough)
        if known is None:
            key = (features_of(config), operations(config))
            index = self._groups.setdefault(key, len(self._groups))
            if index == len(self.counts):
                self.counts.append(0)
                self.configs.append(config)
            known = self._index[rough] = (index, config)  # which keeps alive what the key points to
        return known[0]

    def add(self, configs: Iterable[RunConfig]) -> list[int]:
        """Count runs; the number of each one's group."""
        indices = [self.of(config) for config in configs]
        for index in indices:
            self.counts[index] += 1
        return indices

    def groups(self) -> list[Group]:
        return [Group(*key, runs) for key, runs in zip(self._groups, self.counts, strict=True)]


@dataclass(frozen=True)
class Paces:
    """The paces of nets in a place: medians (nets,), and joint draws (draws, nets). run: the deviation of the logarithm
    of single runs."""

    medians: "Floats"
    draws: "Floats"
    run: float


def paces(nets: Sequence[Features], place: Place, kind: str, observations: Iterable[Observation]) -> Paces:
    """What the observations on the place's device, a `kind` of device (cpu, cuda), let expect of nets there."""
    import numpy as np

    here = [each for each in observations if each.place.device == place.device]
    # Of too many, canaries stay: they are few, and may be all that is known of these nets.
    observed = sorted(here, key=lambda each: not each.is_canary)[:_MOST_OBSERVED]
    effects = _Effects(nets, place, kind, observed)
    usual_shift = _shift(Place("", 1, 1, 1, "", None), place, kind)[0]
    means = np.array([_usual(net.dataset, kind) for net in nets]) + usual_shift
    prior = effects.prior(_PACES[kind][1])
    random = np.random.default_rng(0)
    run = _run_deviation(observed)
    size = max(100, min(_DRAWS, _MOST_DRAWN // len(nets)))
    draws = random.standard_normal((size, len(prior))) @ np.linalg.cholesky(prior).T
    centre = np.zeros(len(prior))
    count = len(observed)
    scale = 1.0
    if observed:
        noise = np.array([run**2 / each.runs + _OCCASION**2 for each in observed])
        seen = effects.matrix(count)
        gain = np.linalg.solve(seen @ prior @ seen.T + np.diag(noise), seen @ prior).T
        shifts = [
            _usual(each.features.dataset, kind) + usual_shift + _shift(place, each.place, kind)[0] for each in observed
        ]
        residual = np.log([each.pace for each in observed]) - shifts
        centre = gain @ residual
        # Of the residuals' squared Mahalanobis length, whose expectation is `count`.
        length = residual @ np.linalg.solve(seen @ prior @ seen.T + np.diag(noise), residual)
        scale = (_PRIOR_COUNT + float(length)) / (_PRIOR_COUNT + count)
        errors = draws @ seen.T + random.standard_normal((size, count)) * np.sqrt(noise)
        draws = draws - errors @ gain.T  # as far as the observations leave them open
    freedom = _PRIOR_COUNT + count
    stretch = np.sqrt(scale * freedom / random.chisquare(freedom, (size, 1)))
    medians = means + effects.of_nets(centre[None])[0]
    spread = effects.of_nets(draws) + effects.unseen * random.standard_normal((size, len(nets)))
    day = _OCCASION * random.standard_normal((size, 1))
    return Paces(np.exp(medians), np.exp(medians + stretch * spread + day), run)


@cache
def _usual(dataset: str, kind: str) -> float:
    """The logarithm of the pace that a data set's nets have on a device of unknown make."""
    are_large = catalog.constant("datasets", dataset, "NETS") == "imagenet"
    return math.log(_PACES[kind][0] / (_LARGE_NETS[kind] if are_large else 1))


def _run_deviation(observed: list[Observation]) -> float:
    """The deviation of the logarithms of equal runs' paces: what was seen of it, and a little belief in _RUN."""
    runs = [each for each in observed if not each.is_canary]
    squares = _RUN_COUNT * _RUN**2 + sum(each.squares for each in runs)
    return math.sqrt(squares / (_RUN_COUNT + sum(each.runs - 1 for each in runs)))


def _shift(here: Place, there: Place, kind: str) -> tuple[float, float]:
    """By how much the logarithm of a pace is more there than here, on one device of a kind: mean and deviation.

    More threads make a run faster by anything between not at all and their ratio, and sharing a GPU slower. Runs that
    share a core take turns, which gains nothing. Several ranks are nearly as efficient as one, or by far not.
    """
    threads, ranks = math.log(here.threads / there.threads), math.log(here.ranks / there.ranks)
    shared = math.log(there.sharing / here.sharing)
    lost = math.log(_RANKS_EFFICIENCY) * ((here.ranks > 1) - (there.ranks > 1))
    mean = threads / 2 + ranks + lost + shared * (0.5 if kind == "cuda" else 1)
    unsure = (threads, ranks, shared if kind == "cuda" else 0.0)
    return mean, math.sqrt(sum(log**2 for log in unsure) / 12)


def _manner(net: Features, place: Place) -> tuple[str, int | None]:
    """By which engine, and in parts of how many images, a net is trained where `place` asks for them.

    As icbench.train.engines chooses, but for procedures that change the dropout rate, which are not known here.
    """
    parts = place.images_at_once
    if parts is not None and parts >= -(-net.batch_size // place.ranks):
        parts = None
    recordable = parts is None and place.ranks == 1 and _is_recordable(net.dataset, net.norm.partition(" ")[0])
    return place.engine if recordable else place.engine.removesuffix("graph").strip() or "eager", parts


@cache
def _is_recordable(dataset: str, norm: str) -> bool:
    return not _is_sharded(dataset) and catalog.flag("norms", norm, "CAPTURABLE", default=True)


@cache
def _is_sharded(dataset: str) -> bool:
    return hasattr(catalog.load("datasets", dataset), "SHARDED_SIDE")


class _Effects:
    """The effects that the paces of some nets and observations are sums of, each with a number."""

    def __init__(self, nets: Sequence[Features], place: Place, kind: str, observed: list[Observation]):
        self._nets, self._observed, self._place, self._kind = nets, observed, place, kind
        self._levels: dict[tuple[str, object], int] = {("device", None): 0, ("usual", None): 1}
        for net in dict.fromkeys([*nets, *(each.features for each in observed)]):
            for level in _levels(net):
                self._number(level)
        measured = {each.features for each in observed}
        for each in observed:
            for level in self._own(each):
                self._number(level)
        self._unseen = [net not in measured for net in nets]

    def _own(self, each: Observation) -> list[tuple[str, object]]:
        """The effects of an observation besides those of its net's features."""
        levels: list[tuple[str, object]] = [("net", each.features)]
        if each.place != self._place:
            levels.append(("place", each.place))
        (engine, parts), (wanted, wanted_parts) = (
            _manner(each.features, each.place),
            _manner(each.features, self._place),
        )
        if engine != wanted:
            levels.append(("engine", engine))
        if parts != wanted_parts:
            levels.append(("parts", parts))
        if each.is_canary:
            levels.append(("canary", None))
        if each.lacks_decoding:
            levels.append(("decoding", None))
        return levels

    def _number(self, level: tuple[str, object]) -> int:
        return self._levels.setdefault(level, len(self._levels))

    @property
    def unseen(self) -> "Floats":
        """(nets,): the deviation of the effect of each net of which nothing was measured."""
        import numpy as np

        return np.where(self._unseen, _NET, 0.0)

    def prior(self, device: float) -> "Floats":
        """The covariances of all effects; device: the deviation of the device's."""
        import numpy as np

        variances = [self._deviation(*level, device) ** 2 for level in self._levels]
        prior = np.diag(variances)
        for name in _NUMBERS:
            levels = [(value, number) for (of, value), number in self._levels.items() if of == name]
            numbers = [number for _, number in levels]
            logs = np.log([float(value) for value, _ in levels])  # type: ignore[arg-type]
            near = np.exp(-np.abs(logs[:, None] - logs))
            prior[np.ix_(numbers, numbers)] = _DEVIATIONS[name] ** 2 * near
        return prior

    def _deviation(self, name: str, value: object, device: float) -> float:
        match name:
            case "device":
                return device
            case "usual":
                return _NEGLIGIBLE
            case "net":
                return _NET
            case "canary":
                return _CANARY
            case "decoding":
                return _DECODING
            case "engine":
                return _ENGINE
            case "parts":
                return _PARTS
            case "place":
                assert isinstance(value, Place)
                return max(_shift(self._place, value, self._kind)[1], _NEGLIGIBLE)
        return _DEVIATIONS[name]

    def matrix(self, count: int) -> "Floats":
        """(observations, effects): 1 where an effect is part of an observation."""
        import numpy as np

        matrix = np.zeros((count, len(self._levels)))
        for row, each in enumerate(self._observed):
            levels = [("device", None), *self._own(each), *_levels(each.features)]
            matrix[row, [self._levels[level] for level in levels]] = 1
        return matrix

    def of_nets(self, effects: "Floats") -> "Floats":
        """(draws, effects) -> (draws, nets): their sums for each net, without the own effects of unseen nets."""
        import numpy as np

        total = np.repeat(effects[:, :1], len(self._nets), axis=1)
        for of_field in zip(*map(_levels, self._nets), strict=True):
            total += effects[:, [self._levels[level] for level in of_field]]
        seen = [number for number, unseen in enumerate(self._unseen) if not unseen]
        total[:, seen] += effects[:, [self._levels["net", self._nets[number]] for number in seen]]
        return total


def _levels(net: Features) -> list[tuple[str, object]]:
    """The effects of a net's features, one a field."""
    return [
        ("usual", None) if str(value).partition(" ")[0] == _USUAL.get(name) else (name, value)
        for name, value in zip(Features._fields, net, strict=True)
    ]


@dataclass(frozen=True)
class Forecast:
    """Of so many runs: the seconds of all, one after another, and those until the last has ended. each: of each group,
    the seconds of a run.
    """

    runs: int
    seconds: Interval
    finish: Interval
    each: tuple[float, ...]


def forecast(groups: Sequence[Group], found: Paces, slots: int, start: float) -> Forecast:
    """What groups of runs take on so many slots, which begin `start` seconds from now. found: the groups' paces."""
    import numpy as np

    if not groups:
        return Forecast(0, Interval(0, 0, 0), Interval(0, 0, 0), ())
    work = np.array([group.operations for group in groups])
    counts = np.array([group.runs for group in groups])
    each = work * found.medians
    drawn = work * found.draws
    noise = np.random.default_rng(1).standard_normal(drawn.shape) * found.run / np.sqrt(np.maximum(counts, 1))
    totals = (drawn * counts * np.exp(noise)).sum(axis=1)
    total = float(each @ counts)
    longest = drawn[:, counts > 0].max(axis=1, initial=0.0)
    # The longest first onto slots, as packs are dealt, comes within a few per cent of what no schedule can beat; by how
    # much it misses that is taken from the estimate for every draw.
    best = max(total / slots, float(each[counts > 0].max(initial=0.0)))
    exact = makespan([(seconds, count) for seconds, count in zip(each.tolist(), counts.tolist(), strict=True)], slots)
    ends = np.maximum(totals / slots, longest) * (exact / best if best else 1.0)
    return Forecast(
        int(counts.sum()),
        Interval(total, *_tails(totals, total)),
        Interval(exact, *_tails(ends, exact)).plus(start),
        tuple(each.tolist()),
    )


def _tails(draws: "Floats", estimate: float) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return min(low, estimate), max(high, estimate)


def makespan(groups: Iterable[tuple[float, int]], slots: int) -> float:
    """When the last slot ends if each takes the longest run that nobody has begun. groups: seconds of a run, runs."""
    loads = [0.0] * slots
    for seconds, runs in sorted(groups, reverse=True):
        for _ in range(runs):
            heapreplace(loads, loads[0] + seconds)
    return max(loads)


# What a GPU has for runs, less a margin, and what a process takes for CUDA itself.
_MEMORY_SHARE = 0.9
_CONTEXT_BYTES = 512 * 2**20
MOST_RUNS_A_GPU = 16


def runs_that_fit(peaks: Iterable[float], memory: float, cores: int | None = None) -> int:
    """How many runs may share a GPU of so many bytes, if each may be the largest, and each has one of `cores`."""
    largest = max(peaks) + _CONTEXT_BYTES
    most = MOST_RUNS_A_GPU if cores is None else min(MOST_RUNS_A_GPU, cores)
    return max(1, min(most, int(_MEMORY_SHARE * memory / largest)))


def source(nets: Sequence[Features], observations: Sequence[Observation], place: Place) -> dict[str, int]:
    """What the estimate for these nets in a place rests on: runs and canaries of how many of them, and of others;
    nets_measured_otherwise: only by another engine, or in other parts."""
    here = [each for each in observations if each.place.device == place.device]
    wanted = set(nets)
    ours = [
        each
        for each in here
        if each.features in wanted and _manner(each.features, each.place) == _manner(each.features, place)
    ]
    return {
        "nets": len(wanted),
        "nets_measured": len({each.features for each in ours}),
        "runs": sum(each.runs for each in ours if not each.is_canary),
        "canaries": sum(each.is_canary for each in ours),
        "canaries_without_decoding": sum(each.lacks_decoding for each in ours),
        "nets_measured_otherwise": len(wanted.intersection(each.features for each in here))
        - len({each.features for each in ours}),
        "other_nets_measured": len({each.features for each in here} - wanted),
    }
