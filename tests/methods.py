"""docs/methods.md: what the variants' docstrings say, and what the variants cost.

    python tests/methods.py measure [--device cuda] [--repetitions 9]
    python tests/methods.py write

`measure` writes docs/results/method-costs.json: operations, and times on one device; those on another stay as they are.
`write`, or `make methods`, writes docs/methods.md from that file and the docstrings. tests/test_catalog.py checks that
it says what `write` would, and that every variant was measured.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import costs
import torch
from costs import CONTROLS, MAPS, REFERENCE

from icbench import catalog, markdown

DOCS = Path(__file__).parent.parent / "docs"
COSTS = DOCS / "results" / "method-costs.json"
DOCUMENT = DOCS / "methods.md"

WITH_COSTS = (*CONTROLS, "procedures")
IN_SHORT = ("orderings", "optimizers")
HEADINGS = {
    "step": "step",
    "evaluation": "evaluation",
    "net": "ResNet-20 step",
    "lstm": "LSTM step",
    "epoch": "epoch",
}
DEVICES = {"cpu": "CPU", "cuda": "GPU"}

INTRODUCTION = """# Methods

<!-- Written by `make methods` from the variants' docstrings and docs/results/method-costs.json. Do not edit. -->

What a grid may name: each variant with its source, formula, options, needs and cost. `icbench list --markdown` prints
the same without costs, with variants of your own.

## At a glance

Costs are ratios of times on the CPU to those of `batch`, `plain` or `relu` (LSTM steps and epochs: to `none` and to no
procedure), and operations for each element of the input, forward and backward; see [below](#how-costs-are-measured).
An empty cell: the variant does not stand there, or there is nothing to measure."""

RULES = f"""## How costs are measured

- **Step**: a forward and backward pass of the module alone, in training, on random maps of {MAPS[0]} images,
  {MAPS[1]} channels, {MAPS[2]}x{MAPS[3]} pixels, float32, channels last. **Evaluation**: a forward pass of the same.
  Weights: 3x3 convolutions with {MAPS[1]} channels in and out. What happens once in hundreds of steps
  (`bounded-batch`, `svb`) is not in it.
- **ResNet-20 step**: forward, backward and optimiser, of `relu-ic-conv` with the recipe chen2019 on CIFAR's shapes,
  batch 64. **LSTM step**: the same of one layer of 64 units on the shapes of digits, batch 64.
- **Epoch**: of ResNet-8 `relu-ic-conv` on digits by its recipe, with its evaluation and checkpoint; `svb` bounds once
  in each. A procedure that only gives a training other numbers (rates, batch sizes, epochs) has nothing measurable.
- `virtual` needs its reference batch in front: the cost of a batch of 64 includes {REFERENCE} more images.
- Each time is divided by the control's just before it (A B A B ..., one process, one thread, after steps that do not
  count; short steps several at a time). Ratios are medians, with least and largest in parentheses. The control's own
  ratio shows the noise.
- **Operations** are counted while PyTorch runs a step of the module alone, for each element of its input (for
  `virtual`, of the batch without its reference): a pointwise operator counts one for each element of its result; a sum
  or mean one for each element of its input, variances with their means 4, lengths 2; products of matrices and
  convolutions 2 m n k; pooling its window for each result; an eigendecomposition 9 n^3; the fused batch and group
  normalisations 6 forward (mean and variance 4, a x + b 2) and 8 backward (the sums of dy and of dy (x - mean) 4, then
  a dy + b x + c 4); fused weight normalisation and softmax as their formulas. Copies and changes of shape count
  nothing. These are the operators that the code calls, not the fewest that the formula needs.

`python tests/methods.py measure` (some 3 minutes on a quiet machine) makes
[docs/results/method-costs.json](results/method-costs.json), `make methods` this page."""


def read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(COSTS.read_text(encoding="utf-8"))
    return found


def ratio(value: float) -> str:
    return f"{value:.2f}" if value < 9.95 else f"{value:.0f}"


def count(value: float) -> str:
    return f"{value:.1f}" if value < 99.5 else f"{value:.0f}"


def columns(found: dict[str, Any], kind: str) -> dict[str, dict[str, str]]:
    """What a kind's table has beside name and summary: headings, and cells by variant."""
    cells: dict[str, dict[str, str]] = {}
    if counts := found["operations"].get(kind):
        cells["operations"] = {name: count(value) for name, value in counts.items()}
    for device, called in DEVICES.items():
        for part, value in found.get(device, {}).get(kind, {}).items():
            heading = HEADINGS[part] if device == "cpu" else f"{HEADINGS[part]}, {called}"
            cells[heading] = {name: ratio(ratios[0]) for name, ratios in value["ratios"].items()}
    return cells


def remark(found: dict[str, Any], kind: str, name: str) -> str:
    """What a variant costs, as its section says it."""
    if kind == "procedures" and not costs.has_a_cost(name):
        return "**Cost:** nothing measurable: it only gives the training other numbers."
    sentences = []
    counts = found["operations"].get(kind, {})
    if name in counts:
        relative = ratio(counts[name] / counts[CONTROLS[kind]])
        sentences.append(f"{count(counts[name])} operations an element, {relative} times those of `{CONTROLS[kind]}`.")
    for device, called in DEVICES.items():
        times = times_of(found, device, kind, name)
        sentences.append(f"Times on the {called}: {', '.join(times)}." if times else f"Not measured on a {called}.")
    return f"**Cost:** {' '.join(sentences)}"


def times_of(found: dict[str, Any], device: str, kind: str, name: str) -> list[str]:
    """A variant's ratios on a device: medians, with least and largest."""
    parts = found.get(device, {}).get(kind, {}).items()
    ratios = {part: map(ratio, value["ratios"][name]) for part, value in parts if name in value["ratios"]}
    return [f"{HEADINGS[part]} {median} ({least} to {most})" for part, (median, least, most) in ratios.items()]


def document(found: dict[str, Any]) -> str:
    """docs/methods.md."""
    tables = [f"### {kind.capitalize()}\n\n{markdown.table(kind, columns(found, kind))}" for kind in WITH_COSTS]
    short = [f"### {kind.capitalize()}\n\n{markdown.table(kind)}" for kind in IN_SHORT]
    details = [
        "\n\n".join(
            [
                f"## {kind.capitalize()}, one by one",
                *markdown.sections(kind, {name: remark(found, kind, name) for name in catalog.names(kind)}),
            ]
        )
        for kind in WITH_COSTS
    ]
    parts = [INTRODUCTION, *tables, *short, RULES, *(circumstances(found, device) for device in DEVICES), *details]
    return "\n\n".join(parts) + "\n"


def circumstances(found: dict[str, Any], device: str) -> str:
    """Under which conditions the times on a device were measured."""
    called = DEVICES[device]
    if device not in found:
        return (
            f"Not measured on a {called} so far; `python tests/methods.py measure --device {device}` adds its columns."
        )
    given = found[device]["conditions"]
    milliseconds = {
        "a step of `batch`": found[device]["norms"]["step"],
        "of `plain`": found[device]["weights"]["step"],
        "of `relu`": found[device]["activations"]["step"],
        "of ResNet-20": found[device]["norms"]["net"],
        "of the LSTM": found[device]["norms"]["lstm"],
        "an epoch of digits": found[device]["procedures"]["epoch"],
    }
    controls = ", ".join(f"{what} {value['control_milliseconds']:g} ms" for what, value in milliseconds.items())
    return (
        f"Times on the {called} are of: {given['device']}, {given['cores']} cores, {given['threads']} thread, "
        f"torch {given['torch_version']}, {given['date']}; the machine's load before was {given['load']}; "
        f"{given['repetitions']} ratios of each. The controls took: {controls}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what variants cost; write docs/methods.md.")
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser(
        "measure", help="count operations, time steps; write docs/results/method-costs.json"
    )
    measuring.add_argument("--device", choices=list(DEVICES), default="cpu")
    measuring.add_argument("--repetitions", type=int, default=9)
    commands.add_parser("write", help="write docs/methods.md")
    arguments = parser.parse_args()
    if arguments.command == "write":
        DOCUMENT.write_text(document(read()), encoding="utf-8")
        return
    found = read() if COSTS.exists() else {}
    found["operations"] = costs.counted()
    found[arguments.device] = costs.measure(torch.device(arguments.device), arguments.repetitions)
    COSTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
