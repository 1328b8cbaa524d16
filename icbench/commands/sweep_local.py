"""A sweep on this machine: run what is missing until nothing is, and show how it goes."""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from icbench.commands.plan import compare

if TYPE_CHECKING:
    from icbench.commands.estimating import Costing
    from icbench.grid import Sweep
    from icbench.layout import Layout
    from icbench.profile import Local
    from icbench.progress import Progress

_WAIT_SECONDS = 1.0


def run(sweep: "Sweep", layout: "Layout", machine: "Local", args: argparse.Namespace, costing: "Costing") -> None:
    """Run what is missing until nothing is: what another sweep is at is waited for, and taken over if it dies there."""
    from icbench import launch, plan
    from icbench.commands import estimating
    from icbench.commands.retry import forgiven
    from icbench.console import console
    from icbench.progress import Progress

    todo = compare(sweep, layout, retry=args.retry_failed)
    with forgiven(todo, layout):
        pass  # they are tried at once
    out = console(sys.stderr if args.json else sys.stdout)
    total = len(sweep.run_ids)
    out.print(
        f"{sweep.name}: {len(todo.missing)} of {total} runs to do, {machine.workers} at a time. Results: {layout.root}/"
    )
    out.print(estimating.line(costing, todo))
    with _shared_gpus(machine), Progress(layout, todo.missing, total, out, costing.weigh) as progress:
        while todo.missing:
            packs = plan.packs(todo.missing, machine.workers, costing.weigh)
            expected = costing.for_ledger(packs)
            with launch.LocalJobs(
                layout, sweep.name, packs, machine, args.data, expected, recording=sweep.recording
            ) as jobs:
                progress.follow(jobs)
            _wait_for_others(sweep, layout, progress)
            todo = compare(sweep, layout)


@contextmanager
def _shared_gpus(machine: "Local") -> Iterator[None]:
    """While inside, workers that share a GPU use it at the same time, if the profile wants it."""
    if not machine.mps:
        yield
        return
    from icbench import mps

    with mps.pipe_folder() as folder, mps.serving(folder) as environment:
        os.environ.update(environment)
        yield


def _wait_for_others(sweep: "Sweep", layout: "Layout", progress: "Progress") -> None:
    """Return once no missing run is held by anybody else's worker; none of ours is at work any more."""
    from icbench.console import plural
    from icbench.locks import is_free

    told = False
    while held := [i for i, _ in compare(sweep, layout).missing if not is_free(layout.run(i).lock)]:
        if not told:
            progress.say(f"waiting for {plural(len(held), 'run')} that another sweep is at")
            told = True
        time.sleep(_WAIT_SECONDS)
