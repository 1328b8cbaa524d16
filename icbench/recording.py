"""What is measured inside a run's network while it trains, and which of its checkpoints are kept: a grid's `probes` and
`keep_checkpoints`. They change nothing in the run, and are no part of its id.
"""

from dataclasses import dataclass
from typing import Any

from icbench import recipe
from icbench.config import Variant
from icbench.yamlfile import Mistake, Path_

KEYS = ("probes", "keep_checkpoints")
_EVERY = 10
_RIGHT = "whole numbers of epochs, each once; 0 is before the first step"


@dataclass(frozen=True)
class Epochs:
    """After which epochs; 0 is before the first step. every: after each so many, from 0 on, and after the last."""

    every: int | None = None
    listed: tuple[int, ...] = ()

    def hold(self, epoch: int, last: int) -> bool:
        """Whether this one is among them, of a training of so many epochs."""
        return epoch in self.listed or (self.every is not None and (epoch % self.every == 0 or epoch == last))

    def of(self, last: int) -> list[int]:
        """Those of a training of so many epochs."""
        return [epoch for epoch in range(last + 1) if self.hold(epoch, last)]


@dataclass(frozen=True)
class Probing:
    """A probe with all its options, and when it is at work."""

    probe: Variant
    epochs: Epochs


@dataclass(frozen=True)
class Recording:
    """What a sweep records of its runs beyond their learning curves."""

    probes: tuple[Probing, ...] = ()
    keep: Epochs = Epochs()

    def due(self, epoch: int, last: int) -> list[Variant]:
        """The probes that measure after an epoch."""
        return [each.probe for each in self.probes if each.epochs.hold(epoch, last)]

    def names(self) -> list[str]:
        return [each.probe.name for each in self.probes]


NOTHING = Recording()


def parse(data: dict[str, Any], longest: int) -> Recording:
    """What a grid, whose longest run has so many epochs, says of it. Raises Mistake."""
    probes = _probes(data["probes"], longest) if "probes" in data else ()
    return Recording(probes, _kept(data["keep_checkpoints"], longest) if "keep_checkpoints" in data else Epochs())


def _probes(raw: object, longest: int) -> tuple[Probing, ...]:
    entries = list(enumerate(raw)) if isinstance(raw, list) else [(None, raw)]
    found: dict[str, Probing] = {}
    for index, entry in entries:
        path: Path_ = ("probes",) if index is None else ("probes", index)
        times = {key: entry[key] for key in ("every", "epochs") if isinstance(entry, dict) and key in entry}
        given = {key: value for key, value in entry.items() if key not in times} if isinstance(entry, dict) else entry
        probe = recipe.fill_options("probes", recipe.parse_variant("probes", given, path), {})
        if probe.name in found:
            raise Mistake(path, f"the probe {probe.name!r} stands there twice.", "Keep one of them.")
        found[probe.name] = Probing(probe, _epochs(times or {"every": _EVERY}, path, longest))
    return tuple(found.values())


def _kept(raw: object, longest: int) -> Epochs:
    path = ("keep_checkpoints",)
    if isinstance(raw, list):
        return Epochs(listed=_listed(raw, path, longest))
    if not isinstance(raw, dict):
        raise Mistake(path, f"keep_checkpoints: {raw!r} should say when.", "Write {every: 10}, or [0, 1, 10].")
    for key in raw:
        if key not in ("every", "epochs"):
            raise Mistake((*path, key), f"keep_checkpoints has no key {key!r}.", "Write {every: 10}, or [0, 1, 10].")
    return _epochs(raw, path, longest)


def _epochs(times: dict[str, Any], path: Path_, longest: int) -> Epochs:
    if len(times) != 1:
        raise Mistake(path, "it should be said once when: by 'every' or by 'epochs'.", "Keep one of them.")
    ((key, raw),) = times.items()
    if key == "epochs":
        return Epochs(listed=_listed(raw, (*path, key), longest))
    every = recipe.typed("PositiveInt")(raw, (*path, key), None)
    return Epochs(every=int(every))


def _listed(raw: object, path: Path_, longest: int) -> tuple[int, ...]:
    if not isinstance(raw, list) or not raw:
        raise Mistake(path, f"{raw!r} should be a list of {_RIGHT}.", "Write epochs: [0, 1, 10], or every: 10.")
    for index, epoch in enumerate(raw):
        if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0 or raw.count(epoch) > 1:
            raise Mistake((*path, index), f"{epoch!r} in a list that should be of {_RIGHT}.")
        if epoch > longest:
            raise Mistake((*path, index), f"there is no epoch {epoch}: the longest run has {longest}.")
    return tuple(sorted(raw))
