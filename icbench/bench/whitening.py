"""Whitening's price: the IC layer beside ZCA, IterNorm and ICA at rising widths: time, memory, and how they grow.

The paper calls whitening expensive and the IC layer its cheap stand-in; this says from which width on that is true.
Whitening is of all channels at once, and of groups of 16, as icbench's norms do it unless told otherwise. ICA is exact
PCA whitening and the rotation that scikit-learn's FastICA finds: forward alone, since it has no gradient.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icbench.bench.findings import Column, Findings, Row, Table, Tell, digits, spread
from icbench.bench.measure import Comparison, Spread, in_turn
from icbench.bench.scaling import PowerLaw, power_law, stays_above
from icbench.console import plural
from icbench.errors import UserError, suggest
from icbench.machine import cores, device, visible_gpus

if TYPE_CHECKING:
    from icbench.bench.children import Group

IC, ICA = "ic", "ica"
LAYERS = (IC, "fast-ic", "zca", "zca-16", "iternorm", "iternorm-16", ICA)
_DEVICES = ("auto", "cuda", "cpu")
_PIXELS = 64  # of a map (whiteners.py): rows are whole images
_GROUP = 16
_FIGURES = (".pdf", ".png", ".svg")
# So many times an IC layer's time are told of in words.
_LEVELS = (2, 10)
# A row's parts that grow with the width, with how they are called.
COSTS = {"forward": "forward", "backward": "backward", "both": "forward and backward", "memory": "memory"}


@dataclass(frozen=True)
class Settings:
    """width: channels, none is 16 to 2048. rows: values a channel in a batch. layer: besides ic, none is all but
    iternorm-16. seconds: of a turn. ica_seconds: of all fits at one width. threads: 0 is one a core.
    """

    width: tuple[int, ...] = ()
    layer: tuple[str, ...] = ()
    rows: int = 4096
    device: str = "auto"
    threads: int = 0
    seconds: float = 0.2
    repeats: int = 5
    ica_seconds: float = 30.0
    figure: Path | None = None

    @property
    def torch_device(self) -> str:
        return device(self.device)

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(sorted(set(self.width))) or tuple(2**power for power in range(4, 12))

    @property
    def layers(self) -> tuple[str, ...]:
        """ic first, each once, in one order."""
        chosen = {IC, *(self.layer or set(LAYERS) - {"iternorm-16"})}
        # Fast dropout is torch's dropout there.
        return tuple(name for name in LAYERS if name in chosen and (name, self.torch_device) != ("fast-ic", "cuda"))


SHORT = Settings(width=(16, 64, 256, 1024), layer=("zca", "iternorm", ICA), repeats=3, ica_seconds=5.0)
QUICK = Settings(
    width=(16, 32), layer=("zca", ICA), rows=256, device="cpu", threads=1, seconds=0.01, repeats=2, ica_seconds=10.0
)


def add_options(parser: argparse.ArgumentParser) -> None:
    widths = "channels; may be given again (default: 16, 32, ..., 2048)"
    parser.add_argument("--width", metavar="C", type=int, action="append", help=widths)
    parser.add_argument(
        "--layer", metavar="NAME", action="append", help=f"besides ic, which is always there: {', '.join(LAYERS[1:])}"
    )
    parser.add_argument("--rows", metavar="M", type=int, help="images times pixels of a batch (default: 4096)")
    parser.add_argument("--device", choices=_DEVICES, help="ICA is on the CPU in any case")
    parser.add_argument("--threads", metavar="N", type=int, help="of the CPU (default: one a core)")
    parser.add_argument("--seconds", metavar="S", type=float, help="of each turn (default: 0.2)")
    parser.add_argument("--repeats", metavar="N", type=int, help="turns of each layer (default: 5)")
    parser.add_argument("--ica-seconds", metavar="S", type=float, help="of ICA at one width, then it is given up (30)")
    parser.add_argument("--figure", metavar="FILE", type=Path, help="draw it: .pdf, .png or .svg")


def check(settings: Settings) -> None:
    """Raise UserError unless all layers can be measured at all widths, and the figure be written."""
    for name in settings.layer:
        if name not in LAYERS:
            raise UserError(f"--layer: there is no {name!r} here.", suggest(name, LAYERS))
    for option in ("seconds", "repeats", "ica_seconds"):
        if (value := getattr(settings, option)) <= 0:
            raise UserError(f"--{option.replace('_', '-')} {value} should be above 0.")
    if settings.threads < 0:
        raise UserError(f"--threads {settings.threads} should not be negative.")
    _check_widths(settings)
    if settings.device == "cuda" and not visible_gpus():
        raise UserError("--device cuda: this machine has no NVIDIA GPU.", "Leave it out.")
    if settings.figure:
        _check_figure(settings.figure)


def _check_widths(settings: Settings) -> None:
    least, most = settings.widths[0], settings.widths[-1]
    if least < 2:
        raise UserError(f"--width {least}: whitening begins with 2 channels.")
    for name in settings.layers:
        for width in settings.widths:
            if name.endswith(f"-{_GROUP}") and width % _GROUP:
                raise UserError(f"--width {width}: {name} needs a multiple of {_GROUP}.")
    if settings.rows % _PIXELS or settings.rows <= most:
        problem = f"--rows {settings.rows} should be a multiple of {_PIXELS}, the pixels of an image, and above {most}"
        raise UserError(f"{problem}, the width, for a covariance that has an inverse.")


def _check_figure(file: Path) -> None:
    if file.suffix not in _FIGURES:
        raise UserError(f"--figure {file}: its name should end in one of {', '.join(_FIGURES)}.")
    if not file.absolute().parent.is_dir():
        raise UserError("there is no such directory.", "Give --figure a file in one that is.", file=file.parent)


def expected_seconds(settings: Settings) -> float:
    """By what two cores took: processes start, then memory, which takes as long as two turns, and turns."""
    turns = sum(_expected_turns(settings, name, width) for name in settings.layers for width in settings.widths)
    return 3.0 * len(settings.layers) + turns


def _expected_turns(settings: Settings, name: str, width: int) -> float:
    share = settings.rows / 4096
    if name == ICA:
        fits = float(settings.repeats * 10 * (width / 256) ** 2.5)
        return min(fits * share, settings.ica_seconds)
    step = 7.0 * float((width / 2048) ** 2.3) if name in ("zca", "iternorm") else 0.3 * width / 2048
    return (settings.repeats + 2) * max(step * share, 1.5 * settings.seconds)


def measure(settings: Settings, tell: Tell) -> Findings:
    """What each layer takes at each width, how that grows, and from where on whitening is expensive."""
    rows: list[Row] = []
    comparisons: list[Comparison] = []
    with ExitStack() as stack:
        groups = {name: stack.enter_context(_group(name, settings)) for name in settings.layers}
        tell("whitening: memory")
        memory = {width: _memory(settings, groups, width) for width in settings.widths}
        for width in settings.widths:
            tell(f"whitening: {width} channels")
            given_up = any(row["given_up"] for row in rows)
            at_width = _Width(settings, width, groups, memory[width], given_up=given_up)
            at_width.measure()
            rows += at_width.rows()
            comparisons = at_width.comparisons()  # those at the greatest stay
    if settings.figure:
        from icbench.bench.whitening_figure import draw

        draw(rows, settings.figure)
    tables = [Table("whitening", _title(settings), _COLUMNS, rows), _growth(settings, rows)]
    return Findings(comparisons, tables, [*_verdicts(settings, rows), *_notes(settings)])


def _group(name: str, settings: Settings) -> "Group":
    from icbench.bench.children import Group

    threads = settings.threads or cores()
    if name == ICA:
        return Group(1, threads, "icbench.bench.whiteners.Ica")
    return Group(1, threads, "icbench.bench.whiteners.Layer", name, settings.torch_device)


def _memory(settings: Settings, groups: "dict[str, Group]", width: int) -> dict[str, int | None]:
    """Bytes by layer."""
    for group in groups.values():
        group.ask("prepare", width, settings.rows)
    return {name: group.ask("memory")[0] for name, group in groups.items()}


class _Width:
    """All layers at one width. memory: bytes by layer. given_up: that ICA was too slow at a lesser width."""

    def __init__(
        self,
        settings: Settings,
        width: int,
        groups: "dict[str, Group]",
        memory: dict[str, int | None],
        *,
        given_up: bool,
    ):
        self._settings, self._width, self._groups = settings, width, groups
        self._seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in groups}
        self._fits: list[dict[str, Any]] = []
        self._given_up = given_up
        self._memory = memory

    def measure(self) -> None:
        for name, group in self._groups.items():
            if not (name == ICA and self._given_up):
                group.ask("prepare", self._width, self._settings.rows)
        turns: dict[str, Callable[[], float]] = {
            name: self._fit if name == ICA else partial(self._turn, name) for name in self._groups
        }
        in_turn(turns, self._settings.repeats)

    def _turn(self, name: str) -> float:
        ((forward, backward),) = self._groups[name].ask("turn", self._settings.seconds)
        self._seconds[name].append((forward, backward))
        return float(forward + backward)

    def _fit(self) -> float:
        """A fit where there is time for another; none once it was given up."""
        left = self._settings.ica_seconds - sum(fit["seconds"] for fit in self._fits)
        if self._given_up or (self._fits and self._fits[-1]["seconds"] > left):
            return 0.0
        (fit,) = self._groups[ICA].ask("fit", left)
        self._fits.append(fit)
        self._given_up = "iterations" not in fit
        return float(fit["seconds"])

    def rows(self) -> list[Row]:
        return [self._ica() if name == ICA else self._row(name) for name in self._groups]

    def _row(self, name: str) -> Row:
        own, ic = self._seconds[name], self._seconds[IC]
        return {
            **self._empty(name),
            "forward": Spread.of([forward for forward, _ in own]),
            "backward": Spread.of([backward for _, backward in own]),
            "both": Spread.of([sum(step) for step in own]),
            "forward_ratio": _ratio([step[0] for step in own], [step[0] for step in ic]),
            "ratio": _ratio([sum(step) for step in own], [sum(step) for step in ic]),
        }

    def _ica(self) -> Row:
        row = self._empty(ICA)
        done = [fit for fit in self._fits if "iterations" in fit]
        if not done:
            where = "" if self._fits else " at fewer channels already"
            remark = f"not measured: more than {self._settings.ica_seconds:g} s{where}"
            return row | {"given_up": True, "remark": remark}
        seconds = [fit["seconds"] for fit in done]
        ic = [forward for forward, _ in self._seconds[IC][: len(done)]]
        iterations, converged = done[0]["iterations"], done[0]["converged"]
        how = plural(iterations, "iteration") + ("" if converged else ", not converged")
        return row | {
            "forward": Spread.of(seconds),
            "forward_ratio": _ratio(seconds, ic),
            "iterations": iterations,
            "converged": converged,
            "remark": f"no gradient; {how}",
        }

    def _empty(self, name: str) -> Row:
        measured = dict.fromkeys(("forward", "backward", "both", "forward_ratio", "ratio", "iterations", "converged"))
        place = {"layer": name, "width": self._width}
        return {**place, **measured, "memory": self._memory[name], "given_up": False, "remark": ""}

    def comparisons(self) -> list[Comparison]:
        ic = [1e3 * sum(step) for step in self._seconds[IC]]
        return [
            Comparison.of_costs(f"IC beside {name}, {self._width} channels", "ms", ic, [1e3 * sum(x) for x in steps])
            for name, steps in self._seconds.items()
            if steps and name != IC
        ]


def _ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


def curve(rows: Sequence[Row], layer: str, cost: str) -> tuple[list[int], list[Any]]:
    """The widths at which a cost of a layer was measured, and what it was there."""
    known = [(row["width"], row[cost]) for row in rows if row["layer"] == layer and row[cost] is not None]
    return [width for width, _ in known], [value for _, value in known]


def growth(rows: Sequence[Row], layer: str, cost: str) -> PowerLaw | None:
    """The power law of a cost's medians, but for times of what was cut off before it converged."""
    whole = [row for row in rows if row["converged"] is not False or cost == "memory"]
    widths, values = curve(whole, layer, cost)
    middles = [value.median if isinstance(value, Spread) else value for value in values]
    return power_law(widths, middles) if all(value > 0 for value in middles) else None


def _growth(settings: Settings, rows: list[Row]) -> Table:
    laws = {name: {cost: growth(rows, name, cost) for cost in COSTS} for name in settings.layers}
    shown: list[Row] = [
        {"layer": name, **{cost: law and law._asdict() for cost, law in each.items()}} for name, each in laws.items()
    ]
    columns = (Column("layer", "layer"), *(Column(cost, title, _exponent, _DASH) for cost, title in COSTS.items()))
    return Table("growth", "exponents: a cost grows as the width to this power", columns, shown)


def _exponent(law: dict[str, Any]) -> str:
    error = "" if law["error"] is None else f" ± {law['error']:.2f}"
    return f"{law['exponent']:.2f}{error} ({law['n']} from {law['least']})"


def _verdicts(settings: Settings, rows: list[Row]) -> list[str]:
    """From which width on each whitening takes so many times an IC layer's time."""
    found = []
    for name in settings.layers:
        if name in (IC, "fast-ic"):
            continue
        for key, words in {"forward_ratio": "forward", "ratio": "forward and backward"}.items():
            widths, ratios = curve(rows, name, key)
            if widths:
                levels = ", ".join(
                    f"at least {level} times ic's time {_from(widths, ratios, level)}" for level in _LEVELS
                )
                found.append(f"{name}, {words}, takes {levels}.")
    return found


def _from(widths: Sequence[int], ratios: Sequence[Spread], level: int) -> str:
    """In words, with the widths at which the greatest and the least of the ratios get there."""
    middle, early, late = (
        stays_above(widths, [getattr(ratio, key) for ratio in ratios], level) for key in ("median", "most", "least")
    )
    if middle is None:
        return f"at no width up to {widths[-1]}"
    if middle == widths[0]:
        return f"at every width from {widths[0]} on"
    assert early is not None, "the most are no less than the medians"
    until = f"above {widths[-1]}" if late is None else f"{late:.0f}"
    return f"from {middle:.0f} channels ({early:.0f} to {until}) on"


def _title(settings: Settings) -> str:
    threads = plural(settings.threads or cores(), "thread")
    where = "the GPU" if settings.torch_device == "cuda" else f"the CPU, {threads}"
    return f"a layer in training, {settings.rows} values a channel, float32 on {where}"


def _milliseconds(seconds: Spread) -> str:
    return spread(Spread(1e3 * seconds.median, 1e3 * seconds.least, 1e3 * seconds.most, seconds.n))


_DASH = "–"
_COLUMNS = (
    Column("width", "channels"),
    Column("layer", "layer"),
    Column("forward", "forward ms", _milliseconds, _DASH),
    Column("backward", "backward ms", _milliseconds, _DASH),
    Column("forward_ratio", "forward\nto ic", spread, _DASH),
    Column("ratio", "both\nto ic", spread, _DASH),
    Column("memory", "memory MB", lambda size: digits(size / 1e6), _DASH),
    Column("remark", "remark"),
)


def _notes(settings: Settings) -> list[str]:
    notes = [
        "medians, with the least and the most of the turns; ratios are of turns that stood side by side.",
        "channels between two measured widths are on a line between logarithms; in brackets: by the most and the least "
        "ratio.",
        "exponents: least squares of logarithms over the larger half of the widths; ± is the standard error by the "
        "residuals, bends of the curve included.",
        "memory: the most that a step (ica: a fit) takes beside its input, the gradient that comes in and the weights.",
        "ic is batch norm and dropout at 0.05; the whitenings are without dropout, of all channels or of groups of 16.",
    ]
    if ICA in settings.layers:
        notes.append(
            "ica: all of a fit, on the CPU, of mixed Laplace sources, which it finds more easily than activations."
        )
    return notes
