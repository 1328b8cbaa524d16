"""What a plan's runs will take on a profile, in words and for programs; budgets; canaries; runs that share a GPU."""

import math
import re
import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from icbench.console import YEAR_SECONDS, complain, duration, plural
from icbench.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from icbench.config import RunConfig
    from icbench.estimate import Features, Forecast, Grouping, Interval, Place
    from icbench.layout import Layout
    from icbench.plan import Pack, Plan
    from icbench.profile import Profile
    from icbench.timings import Timings

# A worker imports torch before it begins.
_START_SECONDS = 5.0
_MOST_NETS = 100
_LITTLE_HOURS = 0.01
_REMEDY = "Write a number and gpu-hours or core-hours, as in --budget 200gpu-hours."


@dataclass(frozen=True)
class Budget:
    """So many hours of a resource: gpu or core."""

    hours: float
    resource: str


def parse_budget(text: str | None, machine: "Profile") -> Budget | None:
    """What `--budget` says. Raises UserError for what is none, or not of what the profile uses."""
    from icbench.profile import resource

    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?|\.\d+)\s*(gpu|core)-?\s*h(?:ours?)?\s*", text.lower())
    if match is None:
        raise UserError(f"--budget {text!r} is no amount of time on GPUs or cores.", _REMEDY)
    used, _ = resource(machine)
    if match[2] != used:
        where = "on GPUs" if used == "gpu" else "on the CPU"
        raise UserError(f"--budget {text!r}: the profile trains {where}.", f"Give the budget in {used}-hours.")
    return Budget(float(match[1].replace(",", ".")), used)


@dataclass(frozen=True)
class Costing:
    """A plan's estimate. resource, share: what runs use up, and how much of it each has. past: of finished runs, what
    was expected of them and what they took; None if nothing was expected.
    """

    machine: "Profile"
    resource: str
    share: float
    place: "Place | None"
    grouping: "Grouping"
    forecast: "Forecast"
    source: dict[str, int]
    sharing: str
    past: "Past | None"

    def weigh(self, config: "RunConfig") -> float:
        """The estimated seconds of a run; of a kind not missing then, by its operations and the others' pace."""
        each, number = self.forecast.each, self.grouping.of(config)
        if number < len(each):
            return each[number]
        groups = self.grouping.groups()
        known = list(zip(each, groups, strict=False))  # not this kind, which the estimate came before
        took = sum(seconds * group.runs for seconds, group in known)
        done = sum(group.operations * group.runs for _, group in known)
        return groups[number].operations * (took / done if done else 1.0)

    @property
    def hours(self) -> "Interval":
        """Of the resource."""
        return self.forecast.seconds.times(self.share / 3600)

    def for_ledger(self, packs: "list[Pack]") -> dict[str, Any]:
        """What to note of what was expected of packs, among it the seconds of each of their runs, in their order."""
        whole = self.forecast.seconds
        return {
            "seconds": [[float(f"{self.weigh(config):.4g}") for _, config in pack] for pack in packs],
            "low": whole.low / whole.estimate,
            "high": whole.high / whole.estimate,
            "resource": self.resource,
            "share": self.share,
            "source": self.source,
        }


@dataclass(frozen=True)
class Past:
    """Hours of a resource that finished runs were expected to take, when they were submitted, and those they took."""

    runs: int
    resource: str
    expected: "Interval"
    took: float

    @property
    def error(self) -> float:
        """By what part of what they took the estimate was more."""
        return self.expected.estimate / self.took - 1


def estimate(todo: "Plan", layout: "Layout", machine: "Profile") -> Costing:
    """What the missing runs will take, and what the finished ones were expected to."""
    from icbench import estimate as model
    from icbench import timings
    from icbench.estimate import Grouping, Place
    from icbench.profile import resource

    expected = _expected(layout, todo.finished)
    known = timings.read(layout, todo.finished, expected.keys())
    grouping = Grouping()
    grouping.add(config for _, config in todo.missing)
    groups = grouping.groups()
    nets = [group.features for group in groups]
    machine, sharing = decide_sharing(machine, nets, known)
    name = _device(machine, known)
    place = Place(
        name, machine.threads, machine.ranks, machine.sharing, _expected_engine(machine), machine.images_at_once
    )
    start = _START_SECONDS if groups else 0.0
    slots = max(1, machine.at_once(len(todo.missing)))
    if groups:
        found = model.paces(nets, place, machine.device, known.observations)
        forecast = model.forecast(groups, found, slots, start)
    else:
        forecast = model.Forecast(0, model.Interval(0, 0, 0), model.Interval(0, 0, 0), ())
    used, share = resource(machine)
    source = model.source(nets, known.observations, place)
    past = _past(expected, known)
    return Costing(machine, used, share, place if name else None, grouping, forecast, source, sharing, past)


def _device(machine: "Profile", known: "Timings") -> str:
    """The name of the device that the profile leads to; empty if nobody has been there yet."""
    from icbench import provenance

    if machine.executor == "local" and machine.device == "cpu":
        return provenance.cpu_device()
    return known.devices.get(_hardware(machine), "")


def _expected_engine(machine: "Profile") -> str:
    """The engine, as rows of results name it, of the runs that can have the profile's."""
    compiled = "compiled" if machine.engine == "compiled" else ""
    graph = "graph" if machine.device == "cuda" and machine.engine != "eager" else ""
    return f"{compiled} {graph}".strip() or "eager"


def _hardware(machine: "Profile") -> str:
    from icbench.profile import hardware

    return hardware(machine.executor, socket.gethostname(), asdict(machine))


def decide_sharing(machine: "Profile", nets: "list[Features]", known: "Timings") -> "tuple[Profile, str]":
    """The profile with as many runs a GPU as have room in its memory, if it leaves that open; and in words, why."""
    from icbench import estimate

    if not machine.automatic:
        return machine, ""
    where = _hardware(machine)
    found = [known.memory[where, net] for net in dict.fromkeys(nets) if (where, net) in known.memory]
    if not found:
        return machine, "One run a GPU: how many have room there no canary has measured yet."
    peaks, memory = [peak for peak, _ in found], min(memory for _, memory in found)
    count = estimate.runs_that_fit(peaks, memory, machine.cores_a_gpu)
    return machine.shared(count), (
        f"{plural(count, 'run')} a GPU: the largest net measured had {max(peaks) / 2**30:.1f} of its "
        f"{memory / 2**30:.0f} GiB."
    )


@dataclass(frozen=True)
class _Expectation:
    """Of a run, as the ledger has it."""

    seconds: float
    low: float
    high: float
    resource: str
    share: float


def _expected(layout: "Layout", finished: Iterable[str]) -> dict[str, _Expectation]:
    """By run id, what was expected of finished runs when they were first submitted with an estimate."""
    from icbench import ledger

    wanted = set(finished)
    found: dict[str, _Expectation] = {}
    if not wanted:
        return found
    for entry in sorted(ledger.entries(layout), key=lambda entry: entry.submitted_at):
        if entry.estimate is None or wanted.isdisjoint(entry.run_ids):
            continue
        content = entry.estimate
        rest = [content[key] for key in ("low", "high", "resource", "share")]
        for pack, seconds in zip(entry.packs, content["seconds"], strict=True):
            for run_id, each in zip(pack, seconds, strict=True):
                if run_id in wanted:
                    found.setdefault(run_id, _Expectation(each, *rest))
    return found


def _past(expected: dict[str, _Expectation], known: "Timings") -> Past | None:
    """The estimate of finished runs against the truth; of those in the resource that most of them used."""
    from icbench.estimate import Interval

    pairs = [(each, known.seconds[run_id]) for run_id, each in expected.items() if run_id in known.seconds]
    if not pairs:
        return None
    resources = [each.resource for each, _ in pairs]
    used = max(sorted(set(resources)), key=resources.count)
    pairs = [(each, took) for each, took in pairs if each.resource == used]
    hours = [(each.seconds * each.share / 3600, each) for each, _ in pairs]
    interval = Interval(
        sum(hour for hour, _ in hours),
        sum(hour * each.low for hour, each in hours),
        sum(hour * each.high for hour, each in hours),
    )
    return Past(len(pairs), used, interval, sum(took * each.share / 3600 for each, took in pairs))


def check_budget(budget: Budget | None, costing: Costing, todo: "Plan") -> None:
    """Raise UserError if the missing runs are expected to exceed the budget; say so if they may."""
    if budget is None or not todo.missing:
        return
    hours, allowed = costing.hours, f"{_number(budget.hours)} {budget.resource}-hours"
    whole = f"about {_amount(hours, budget.resource)}"
    if hours.estimate > budget.hours:
        fitting = _fitting(budget, costing, todo)
        remedy = f"Of these runs the first {fitting:,}, as the grid has them, fit in it."
        if not fitting:
            remedy = "None of them fits."
        if _is_from_operations(costing):
            remedy += " The estimate is from FLOPs alone; for a better one: icbench plan GRID --canary"
        raise UserError(
            f"{todo.sweep.name}: the {plural(len(todo.missing), 'missing run')} need {whole}, which "
            f"{_excess(hours.estimate, budget.hours)} the budget of {allowed}. Nothing was begun.",
            remedy,
        )
    if hours.high > budget.hours:
        complain(f"note: the runs need {whole}: they may exceed the budget of {allowed}.")


def _excess(hours: float, budget: float) -> str:
    """The verb that says by how much hours are more than a budget."""
    ratio = hours / budget if budget else 1.0
    if ratio < 1.01:
        return "exceeds"
    return f"is {ratio:,.{1 if ratio < 10 else 0}f} times" if ratio > 2 else f"is {ratio - 1:.0%} more than"


def _amount(hours: "Interval", resource: str) -> str:
    """Hours of a resource with their interval; what is little, in seconds."""
    unit, shown = ("seconds", hours.times(3600)) if hours.estimate < _LITTLE_HOURS else ("hours", hours)
    return f"{_number(shown.estimate)} {resource}-{unit} ({_number(shown.low)} to {_number(shown.high)})"


def _is_from_operations(costing: Costing) -> bool:
    """Whether nothing was measured there."""
    source = costing.source
    return not any(source[key] for key in ("nets_measured", "nets_measured_otherwise", "other_nets_measured"))


def _fitting(budget: Budget, costing: Costing, todo: "Plan") -> int:
    """How many of the missing runs, from the first on, the budget suffices for."""
    left = budget.hours
    for count, (_, config) in enumerate(todo.missing):
        left -= costing.weigh(config) * costing.share / 3600
        if left < 0:
            return count
    return len(todo.missing)


def line(costing: Costing, todo: "Plan") -> str:
    """What the missing runs are expected to take."""
    finish = costing.forecast.finish
    moment = _moment(finish.estimate) if finish.estimate < YEAR_SECONDS else None
    at = f", at {moment:%Y-%m-%d %H:%M} if started now" if moment else ""
    queue = "" if costing.machine.executor == "local" else ", without waiting in the queue"
    return (
        f"Estimate: {plural(len(todo.missing), 'run')}, {_amount(costing.hours, costing.resource)}; "
        f"done in {duration(finish.estimate)} "
        f"({duration(finish.low)} to {duration(finish.high)}){at}{queue}."
    )


def _moment(seconds: float) -> datetime | None:
    """So many seconds from now; None beyond all calendars."""
    try:
        return datetime.now().astimezone() + timedelta(seconds=seconds)
    except OverflowError:
        return None


def lines(costing: Costing, todo: "Plan") -> list[str]:
    """The estimate in words: what, whence; then what finished runs were expected to take."""
    words = []
    if todo.missing:
        words += [line(costing, todo), f"It comes {_source(costing)}. Intervals are of 90 %."]
        words += ["What the grid's probes take is not in it."] if todo.sweep.recording.probes else []
        words += [costing.sharing] if costing.sharing else []
    if past := costing.past:
        took = past.took if past.expected.estimate >= _LITTLE_HOURS else 3600 * past.took  # as _amount has it
        words.append(
            f"{plural(past.runs, 'finished run')}: estimated {_amount(past.expected, past.resource)}, "
            f"took {_number(took)}: {past.error:+.0%}."
        )
    elif todo.finished:
        words.append("No estimate was made of the finished runs.")
    return words


def _source(costing: Costing) -> str:
    """Where the estimate comes from."""
    source = costing.source
    where = f"on {costing.place.device}" if costing.place else "there"
    measured = [
        words
        for words, count in (
            (plural(source["runs"], "run"), source["runs"]),
            (_canaries(source), source["canaries"]),
        )
        if count
    ]
    if measured:
        nets, known = source["nets"], source["nets_measured"]
        rest = "" if known == nets else "; the rest from FLOPs and what resembles them"
        return f"from {' and '.join(measured)} of {known} of its {plural(nets, 'net')} {where}{rest}"
    factor = f"within a factor of {costing.forecast.seconds.factor:.1f}"
    if source["other_nets_measured"]:
        return f"from FLOPs and {plural(source['other_nets_measured'], 'other net')} measured {where}: {factor}"
    if source["nets_measured_otherwise"]:
        return f"from FLOPs and what was measured of other engines {where}: {factor}; --canary measures a few steps"
    return f"from FLOPs alone, as nothing was measured {where} yet: {factor}; --canary measures a few steps"


def _canaries(source: dict[str, int]) -> str:
    count, undecoded = source["canaries"], source["canaries_without_decoding"]
    some = f" ({undecoded} of them without decoding)" if undecoded else ""
    return ("a canary" if count == 1 else f"{count} canaries") + (" without decoding" if undecoded == count else some)


def record(costing: Costing, todo: "Plan", budget: Budget | None) -> dict[str, Any]:
    """The estimate for programs."""
    forecast, past = costing.forecast, costing.past
    return {
        "runs": forecast.runs,
        "resource": costing.resource,
        "hours": costing.hours._asdict(),
        "finish_seconds": forecast.finish._asdict(),
        "finish_at": {
            name: moment.isoformat(timespec="seconds") if (moment := _moment(seconds)) else None
            for name, seconds in forecast.finish._asdict().items()
        },
        "level": _level(),
        "at_once": costing.machine.at_once(len(todo.missing)),
        "source": costing.source
        | {"device": costing.place.device if costing.place else None, "words": _source(costing)},
        "runs_per_gpu": costing.sharing or None,
        "budget": None
        if budget is None
        else {"hours": budget.hours, "resource": budget.resource, "exceeded": costing.hours.estimate > budget.hours},
        "finished": None
        if past is None
        else {
            "runs": past.runs,
            "resource": past.resource,
            "hours": past.expected._asdict(),
            "took": past.took,
            "error": past.error,
        },
    }


def _level() -> float:
    from icbench.estimate import LEVEL

    return LEVEL


def _number(hours: float) -> str:
    """Hours with two figures, and no fewer than stand before the point."""
    if hours <= 0:
        return "0"
    return f"{hours:,.{max(0, 1 - math.floor(math.log10(hours)))}f}"


def measure(todo: "Plan", layout: "Layout", machine: "Profile", data: "Path | None", *, again: bool) -> None:
    """Measure a few steps of each different net that is missing, where the profile leads, and keep what they tell.
    data: as `--data` has it.

    What was measured already only `again`. A profile that leaves open how many runs share a GPU has its nets measured
    with one there, and, once that tells how many, with so many. Raises IcbenchError.
    """
    from icbench import timings

    if not todo.missing:
        complain("Nothing is missing, so there is nothing to measure.")
        return
    nets = _different(todo)
    if machine.automatic:
        memory = timings.read(layout, ()).memory
        where = _hardware(machine)
        unknown = {net: config for net, config in nets.items() if again or (where, net) not in memory}
        _measure(unknown, layout, machine, data)
        decided, _ = decide_sharing(machine, list(nets), timings.read(layout, ()))
        again = again and decided.sharing != machine.sharing
        machine = decided
    if again:
        _measure(nets, layout, machine, data)


def _different(todo: "Plan") -> "dict[Features, RunConfig]":
    """A run of each net that differs in what its pace hangs on.

    Of too many, those that show every two values that meet, and the one with most work a batch: it has most in memory.
    """
    from icbench import drybuild
    from icbench.estimate import Grouping, operations

    grouping = Grouping()
    grouping.add(config for _, config in todo.missing)
    nets: dict[Features, RunConfig] = {}
    for group, config in zip(grouping.groups(), grouping.configs, strict=True):
        nets.setdefault(group.features, config)
    if len(nets) <= _MOST_NETS:
        return nets
    most = max(nets.values(), key=lambda config: operations(config) / config.recipe.epochs * config.recipe.batch_size)
    some = {*drybuild.covering(list(nets.values())), most}
    complain(
        f"{plural(len(some), 'net')} of {len(nets):,} are measured: as many as it takes for every two values that meet."
    )
    return {features: config for features, config in nets.items() if config in some}


def _measure(nets: "dict[Features, RunConfig]", layout: "Layout", machine: "Profile", data: "Path | None") -> None:
    from icbench import __version__, timings, wording
    from icbench.cluster import canary
    from icbench.data import store
    from icbench.estimate import Place
    from icbench.profile import Local
    from icbench.work import canaries

    configs = list(nets.values())
    if not configs:
        return
    data = store.directory(data).absolute()
    if isinstance(machine, Local):
        complain(f"measuring a few steps of {plural(len(nets), 'net')}, {machine.workers} at a time")
        company = canaries.Company(
            machine.workers,
            machine.threads,
            machine.device,
            machine.gpus,
            machine.engine,
            machine.images_at_once,
            data=data,
        )
        answers, host = canaries.measure(configs, company), socket.gethostname()
    else:
        answers, host = canary.measure(configs, machine, layout, data, complain)
    found = []
    for features, config, answer in zip(nets, configs, answers, strict=True):
        if isinstance(answer, str):
            complain(f"note: {wording.cell(config)}: its canary failed: {answer}")
            continue
        mean = {key: _mean([each[key] for each in answer]) for key in answer[0]}
        engine, parts = mean.pop("engine"), mean.pop("images_at_once")
        place = Place(mean.pop("device"), machine.threads, machine.ranks, machine.sharing, engine, parts)
        found.append(
            timings.Canary(
                features=features,
                split=config.split,
                place=place,
                hardware=_hardware(machine),
                icbench_version=__version__,
                hostname=host,
                measured_at=timings.now(),
                **mean,
            )
        )
    timings.write_canaries(layout, found)


def _mean(values: list[Any]) -> Any:
    """Of what several processes measured of one net: of times the mean, of bytes and steps the most."""
    if all(isinstance(value, float) for value in values):
        return sum(values) / len(values)
    return max(values) if all(isinstance(value, int) for value in values) else values[0]
