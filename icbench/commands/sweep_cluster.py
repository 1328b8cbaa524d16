"""A sweep on a SLURM cluster: submit what is neither done nor in a live job; follow it if asked to."""

import argparse
import sys
from typing import TYPE_CHECKING

from icbench.commands.plan import compare
from icbench.console import complain
from icbench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from icbench.cluster.submissions import Live
    from icbench.commands.estimating import Costing
    from icbench.grid import Sweep
    from icbench.layout import Layout
    from icbench.plan import Plan
    from icbench.profile import Slurm


def run(sweep: "Sweep", layout: "Layout", machine: "Slurm", args: argparse.Namespace, costing: "Costing") -> int | None:
    """Submit what is missing; the exit code, or None when everything is done and its table is to be shown."""
    from icbench.console import console

    out = console(sys.stderr if args.json else sys.stdout)
    _submit(sweep, layout, machine, args, costing, out)
    if args.wait:
        _follow(sweep, layout, costing, out)
        return None
    todo = compare(sweep, layout)
    if not todo.missing:
        return None
    if args.json:
        _print_record(sweep, layout, todo)
    else:
        out.print(f"To see how it goes: icbench status --watch{_results(layout)}")
        out.print(f"To end it: icbench cancel {sweep.name}{_results(layout)}")
    return 0


def check(sweep: "Sweep", machine: "Slurm", args: argparse.Namespace) -> None:
    """Raise UserError for results where submitit cannot keep its files, or a batch that a run's GPUs cannot share."""
    from icbench.data import store
    from icbench.plan import require_shares
    from icbench.procedure import batch_sizes

    if "%" in str(args.results.absolute()):
        raise UserError(
            "on a cluster a results directory cannot have a % in its path, which SLURM would replace.",
            "Choose another with --results DIR.",
            file=args.results,
        )
    if machine.ranks == 1:
        return
    configs = [cell.config for cell in sweep.cells]
    for name, split in sorted({(c.dataset, c.split) for c in configs}):
        train_count = store.train_count(name, args.data, split)
        trainings = {(c.recipe, c.procedures) for c in configs if (c.dataset, c.split) == (name, split)}
        try:
            for batch_size in {size for each in trainings for size in batch_sizes(*each, train_count)}:
                require_shares(train_count, batch_size, machine.ranks)
        except UserError as error:
            raise UserError(error.problem, error.remedy, file=args.profile) from None


def _submit(
    sweep: "Sweep", layout: "Layout", machine: "Slurm", args: argparse.Namespace, costing: "Costing", out: "Console"
) -> None:
    """Under a lock, so that of two sweeps typed at once the second sees what the first has submitted."""
    from icbench.cluster import slurm, submissions, submit
    from icbench.commands import estimating
    from icbench.commands.retry import failed_among, forgiven
    from icbench.console import duration, plural
    from icbench.data import store
    from icbench.locks import Lock

    layout.sweeps.mkdir(parents=True, exist_ok=True)
    with Lock.wait(layout.submitting, told=lambda: complain("waiting for another sweep that is submitting jobs")):
        cluster = slurm.cluster()
        live = submissions.settle(layout, cluster.name) + submissions.local(layout)
        todo = compare(sweep, layout, retry=args.retry_failed)
        # What is to be tried again may have been passed by in the jobs that had it.
        covered = submissions.covered(live) - failed_among(todo, layout).keys()
        missing = tuple(run for run in todo.missing if run[0] not in covered)
        total = len(sweep.run_ids)
        out.print(f"{sweep.name}: {len(todo.missing)} of {total} runs to do. Results: {layout.root}/")
        if len(missing) < len(todo.missing):
            theirs = [each for each in live if not each.entry.run_ids.isdisjoint(i for i, _ in todo.missing)]
            out.print(f"{len(todo.missing) - len(missing)} of these are in live jobs already: {_in_short(theirs)}")
        if missing:
            with forgiven(todo, layout):
                submitted = submit.submit(
                    layout,
                    sweep.name,
                    missing,
                    machine,
                    store.directory(args.data),
                    cluster,
                    live,
                    costing.weigh,
                    costing.for_ledger,
                    sweep.recording,
                )
            if submitted.remark:
                out.print(submitted.remark)
            jobs, ids = submitted.entry.jobs, " ".join(slurm.in_short(submitted.entry.jobs))
            runs, slots = plural(len(missing), "run"), plural(machine.slots, "slot")
            name, limit = submitted.entry.job_name, duration(60 * machine.time_limit)
            out.print(f"submitted {runs} in {plural(len(jobs), 'job')} of {slots} each, {name}: {ids}")
            out.print(estimating.line(costing, todo))
            out.print(f"Each job has {limit}; one that needs more goes on from the queue.")


def _in_short(live: "list[Live]") -> str:
    """Live submissions in a few words."""
    from icbench.cluster import slurm

    ids = slurm.in_short(job.job_id for each in live for job in each.jobs)
    local = [f"a local sweep on {each.entry.hostname}" for each in live if each.entry.executor == "local"]
    return ", ".join([*ids, *local])


def _follow(sweep: "Sweep", layout: "Layout", costing: "Costing", out: "Console") -> None:
    """Show how it goes until nothing is missing, or no job is live any more."""
    from icbench.cluster.following import ClusterJobs
    from icbench.console import plural
    from icbench.progress import Progress

    todo = compare(sweep, layout)
    with Progress(layout, todo.missing, len(sweep.run_ids), out, costing.weigh) as progress:
        progress.follow(ClusterJobs(layout, todo.missing))
    left = len(compare(sweep, layout).missing)
    if left:
        complain(
            f"the jobs have ended, but {plural(left, 'run')} of {sweep.name} are not done. "
            f"`icbench status{_results(layout)}` says why; the same command goes on with them."
        )


def _print_record(sweep: "Sweep", layout: "Layout", todo: "Plan") -> None:
    """What will be done by which jobs, for a program."""
    from icbench.cluster import submissions
    from icbench.console import print_json

    missing = [run_id for run_id, _ in todo.missing]
    live = [each for each in submissions.queued(layout) if not each.entry.run_ids.isdisjoint(missing)]
    jobs = [job.job_id for each in live for job in each.jobs]
    print_json({"name": sweep.name, "results": str(layout.root), "missing": missing, "jobs": jobs})


def _results(layout: "Layout") -> str:
    import shlex

    return "" if str(layout.root) == "results" else f" --results {shlex.quote(str(layout.root))}"
