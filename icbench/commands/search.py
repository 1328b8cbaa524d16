"""`icbench search`: have Optuna find the best values for each cell of a grid; write the sweep that confirms them."""

import argparse
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from icbench.commands import arguments, retry
from icbench.console import complain
from icbench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from icbench.commands.arguments import Commands
    from icbench.layout import Layout
    from icbench.profile import Profile, Slurm
    from icbench.search.controller import Controller, Ended
    from icbench.search.crew import Crew
    from icbench.search.settings import Search, SearchCell
    from icbench.search.study import CellStudy


def add(commands: "Commands") -> None:
    parser = commands.add_parser("search", help="search for the best dropout rate, or other fields, of each cell")
    parser.add_argument(
        "file", metavar="SEARCH", type=Path, help="the search's YAML file, such as sweeps/search-dropout.yaml"
    )
    arguments.results(parser)
    arguments.profile(parser)
    arguments.data(parser)
    arguments.no_build(parser)
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="the database of the studies, such as postgresql+psycopg://user@host/name (default: $ICBENCH_STORAGE, "
        "else studies.db in the results directory)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything and say what there is to do; run nothing"
    )
    arguments.retry_failed(parser)
    parser.add_argument("--confirm", action="store_true", help="at the end, run the sweep that confirms what was found")
    parser.add_argument(
        "--detach", action="store_true", help="on a cluster: have a job of its own do the search, and return at once"
    )
    arguments.json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from icbench import profile
    from icbench.profile import Slurm
    from icbench.search import settings

    retry.check_kind(args.retry_failed)
    search, machine, layout = settings.load(args.file), profile.load(args.profile), arguments.layout(args)
    _check(search, machine, args)
    if args.dry_run:
        return _show(search, machine, layout, args)
    if machine.automatic:
        raise UserError(
            "runs_per_gpu: auto is measured by sweeps.", "For a search, write the number.", file=Path(args.profile)
        )
    if args.detach:
        if not isinstance(machine, Slurm):
            raise UserError("--detach needs a cluster.", "Give a profile with executor: slurm.")
        _forget(search, layout, args.retry_failed)
        return _detach(search, machine, layout, args)
    _forget(search, layout, args.retry_failed)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):  # a closed terminal or a job's end is a Ctrl-C too
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    return _search(search, machine, layout, args)


def _forget(search: "Search", layout: "Layout", kind: str | None) -> None:
    """Let runs that failed in earlier trials be trained by those to come. kind: how they failed; None to leave all."""
    from icbench import monitor
    from icbench.console import plural
    from icbench.files import read_json

    if kind is None:
        return
    known = (read_json(layout.sweep(search.name).manifest) or {}).get("run_ids", [])
    failed = [i for i, why in monitor.failures(layout, known).items() if kind in (arguments.ANY_KIND, why.kind)]
    retry.forget(layout, failed)
    how = "" if kind == arguments.ANY_KIND else f" in the way {kind}"
    told = f"{plural(len(failed), 'run')} of {search.name} that failed{how} may be trained again."
    complain(told if failed else f"no run of {search.name} has failed{how}.")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _check(search: "Search", machine: "Profile", args: argparse.Namespace) -> None:
    """Raise UserError for what would make trials fail for sure, such as a missing data set or an impossible net."""
    from contextlib import nullcontext

    from icbench import drybuild
    from icbench.commands import sweep_cluster
    from icbench.data import store
    from icbench.profile import Slurm
    from icbench.yamlfile import Mistake

    corners = search.corners()
    with nullcontext() if args.no_build else drybuild.Builder(args.data) as builder:
        if builder:
            builder.send(corners.cells)
        for name in sorted({cell.config.dataset for cell in corners.cells}):
            store.verify(name, args.data)
        unit = "" if search.budget is None else search.budget.unit
        used = "core-hours" if machine.device == "cpu" else "gpu-hours"
        if unit.endswith("-hours") and unit != used:
            problem = f"the budget is in {unit}, and the profile's runs use {used}."
            raise search.document.error(Mistake(("search", "budget"), problem, f"Write {used}."))
        if isinstance(machine, Slurm):
            sweep_cluster.check(corners, machine, args)
        if builder:
            builder.judge(corners)


def _show(search: "Search", machine: "Profile", layout: "Layout", args: argparse.Namespace) -> int:
    """What a search would do, and what it would cost at most."""
    from icbench.commands import estimating
    from icbench.console import console, plural, print_json
    from icbench.plan import Plan

    # Every trial a run of its own: repeated ones, and pruned ones, cost less.
    runs = tuple(
        (f"{cell.key}-{trial}-{seed}", cell.config)
        for cell in search.cells
        for trial in range(search.trials_of(cell))
        for seed in search.seeds
    )
    todo = Plan(search.corners(), frozenset(), frozenset(), runs)
    costing = estimating.estimate(todo, layout, machine)
    if args.json:
        cells = [
            {"cell": cell.words, "trials": search.trials_of(cell), "parameters": _names(cell)} for cell in search.cells
        ]
        print_json({"name": search.name, "cells": cells, "runs": len(runs)} | estimating.record(costing, todo, None))
        return 0
    out = console()
    out.print(f"{search.name}: {search.question}" if search.question else search.name)
    for cell in search.cells:
        searched = ", ".join(_names(cell)) or "nothing to search for"
        out.print(f"{cell.words}: {plural(search.trials_of(cell), 'trial')}, {searched}")
    out.print(f"At most {plural(len(runs), 'run')}, {plural(len(search.seeds), 'seed')} a trial.")
    for line in estimating.lines(costing, todo):
        out.print(line)
    return 0


def _names(cell: "SearchCell") -> list[str]:
    return [each.name for each in cell.space.dimensions]


def _detach(search: "Search", machine: "Slurm", layout: "Layout", args: argparse.Namespace) -> int:
    """Under a lock, so that of two typed at once the second sees what the first has submitted."""
    from icbench.cluster import detached, slurm, submissions
    from icbench.console import print_json
    from icbench.locks import Lock
    from icbench.search.controller import prepare

    prepare(layout, search)
    with Lock.wait(layout.submitting, told=lambda: complain("waiting for another command that is submitting jobs")):
        live = submissions.settle(layout, slurm.cluster().name)
        there = detached.find(live, search.name)
        job = there or detached.submit(layout, search.name, machine, _kept(search, layout, args))
    if args.json:
        print_json({"name": search.name, "job": job})
        return 0
    if there:
        print(f"job {job} does the search already")
    else:
        print(f"submitted job {job}, which does the search and submits the jobs of its trials")
    print(f"To see how it goes: icbench status --watch{_results(layout)}")
    print(f"To end it: icbench cancel {search.name}{_results(layout)}")
    return 0


def _kept(search: "Search", layout: "Layout", args: argparse.Namespace) -> list[str]:
    """The words of this search without --detach, for a job that may start, and start again, in days: its files are
    copies, which nobody edits, and what was checked here is not built again.
    """
    from icbench.data import store

    folder = layout.sweep(search.name).detached
    folder.mkdir(exist_ok=True)
    file, profile = folder / f"{search.name}.yaml", folder / "profile.yml"
    file.write_text(search.text, encoding="utf-8")
    profile.write_bytes(Path(args.profile).read_bytes())
    return [
        *("search", str(file.absolute()), "--profile", str(profile.absolute()), "--no-build"),
        *("--results", str(layout.root.absolute()), "--data", str(store.directory(args.data).absolute())),
        *(("--storage", args.storage) if args.storage else ()),
        *(("--confirm",) if args.confirm else ()),
    ]


def _search(search: "Search", machine: "Profile", layout: "Layout", args: argparse.Namespace) -> int:
    from icbench.console import console, plural
    from icbench.profile import Slurm
    from icbench.search import confirm, storage
    from icbench.search.controller import Controller, prepare
    from icbench.search.crew import Interrupted, close_orphans
    from icbench.search.study import CellStudy

    began = time.monotonic()
    out = console(sys.stderr if args.json else sys.stdout)
    address = storage.url(layout, args.storage)
    database = storage.connect(address, layout)
    files = prepare(layout, search)
    studies = [CellStudy(search, cell, database) for cell in search.cells]
    out.print(f"{search.name}: {_progress(studies)}. Results: {layout.root}/. Studies: {storage.shown(address)}")
    controller = Controller(search, layout, studies, _slots(search, machine), _share(machine), began)
    with storage.failures(address):
        try:
            with controller:
                controller.adopt()
                if controller.is_done:
                    close_orphans(layout, search.name)
                else:
                    _follow(controller, _crew(controller, machine, layout, args, out), out)
        except (KeyboardInterrupt, BrokenPipeError, Interrupted) as error:
            said = f"{error} " if isinstance(error, Interrupted) else ""
            complain(f"\nInterrupted. {said}Nothing is lost. To go on:\n  {shlex.join(['icbench', *sys.argv[1:]])}")
            if isinstance(machine, Slurm) and not said:
                also = f"icbench cancel {search.name}{_results(layout)}"
                complain(f"Its jobs go on with the runs that they have. To end them too:\n  {also}")
            return 130
        confirm.write(files, search, studies)
        controller.record()
        if left_out := controller.left_out:
            out.print(f"The budget of {search.budget} is spent: {plural(left_out, 'trial')} not asked for.")
    return _conclude(search, studies, layout, args, out)


def _slots(search: "Search", machine: "Profile") -> int:
    """How many runs there are at the same time."""
    return machine.at_once(sum(search.trials_of(cell) for cell in search.cells) * len(search.seeds))


def _share(machine: "Profile") -> float:
    from icbench.profile import resource

    return resource(machine)[1]


def _crew(
    controller: "Controller", machine: "Profile", layout: "Layout", args: argparse.Namespace, out: "Console"
) -> "Crew":
    from icbench.data import store
    from icbench.profile import Slurm
    from icbench.search.crew import ClusterCrew, LocalCrew

    search = controller.search
    if isinstance(machine, Slurm):
        return ClusterCrew(layout, search.name, machine, store.directory(args.data), out.print)
    return LocalCrew(layout, search.name, machine, args.data, _slots(search, machine))


def _follow(controller: "Controller", crew: "Crew", out: "Console") -> None:
    """Search, and say what comes of each trial."""
    wanted = sum(study.wanted for study in controller.studies)
    with crew:
        for ended in controller.follow(crew):
            if isinstance(ended, str):
                out.print(ended)
                continue
            done = sum(study.ended() for study in controller.studies)
            out.print(f"[{done}/{wanted}] {_line(ended)}")


def _line(ended: "Ended") -> str:
    """A trial that has ended, in a line."""
    values = ", ".join(f"{name} {_short(value)}" for name, value in ended.values.items())
    head = f"{ended.study.cell.words} trial {ended.number}" + (f" ({values})" if values else "")
    if ended.state == "failed":
        return f"{head}: FAILED, {ended.outcome.reason}"
    shown = _value(ended.study.search, ended.value)
    more = f", {ended.outcome.diverged} diverged" if ended.outcome.diverged else ""
    return f"{head}: {'pruned at ' if ended.state == 'pruned' else ''}{shown}{more}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _value(search: "Search", values: tuple[float, ...]) -> str:
    """The objectives' values in words."""
    told = zip(search.objectives, values, strict=False)
    return ", ".join(
        f"{each.name} {value:.4f}" if each.is_fraction else f"{each.name} {value:.1f}" for each, value in told
    )


def _progress(studies: "list[CellStudy]") -> str:
    from icbench.console import plural

    done, wanted = sum(study.ended() for study in studies), sum(study.wanted for study in studies)
    return f"{plural(len(studies), 'study').replace('studys', 'studies')}, {done} of {wanted} trials done"


def _conclude(
    search: "Search", studies: "list[CellStudy]", layout: "Layout", args: argparse.Namespace, out: "Console"
) -> int:
    """Show what was found, then have it confirmed or say how; the exit code."""
    from icbench.console import plural, print_json

    if args.json and not args.confirm:
        print_json({"name": search.name, "studies": [_record(study) for study in studies]})
    else:
        _print_found(search, studies, out)
    failed = [study for study in studies if study.gave_up or not study.best()]
    for study in failed:
        complain(f"{study.cell.words}: {_why_none(study)}")
    if elsewhere := sum(study.counts()["RUNNING"] for study in studies):
        under_way = f"{plural(elsewhere, 'trial')} of other controllers under way: what is best may still change."
        complain(f"{under_way} The last to end has all of them.")
    grid = layout.sweep(search.name).confirmation
    if not args.confirm or elsewhere or len(failed) == len(studies):
        at = _results(layout)
        if grid.exists():
            out.print(f"What was found is confirmed on test images by: icbench sweep {grid}{at}")
        out.print(f"For figures: icbench report --sweep {shlex.quote(search.name)}{at}")
        return 1 if failed else 0
    code = _confirm(grid, args)
    out.print(f"For what was searched and found: icbench report --sweep {shlex.quote(search.name)}{_results(layout)}")
    return code or (1 if failed else 0)


def _why_none(study: "CellStudy") -> str:
    """Why a study has no best trial, or was given up."""
    from icbench.console import plural

    counts = study.counts()
    if counts["COMPLETE"] and not study.gave_up:
        return f"every run of {plural(counts['COMPLETE'], 'complete trial')} diverged, so none is best."
    reasons = study.failures() or ["no trial was completed"]
    return f"{plural(counts['FAIL'], 'trial')} failed. The last: {reasons[-1]}"


def _confirm(grid: Path, args: argparse.Namespace) -> int:
    from icbench.commands import sweep

    given = vars(args) | {"grid": grid, "budget": None, "dry_run": False, "retry_failed": None, "wait": True}
    return sweep.run(argparse.Namespace(**given))


def _print_found(search: "Search", studies: "list[CellStudy]", out: "Console") -> None:
    from icbench.console import print_table, table

    grid = table(f"{search.name}: {search.question}" if search.question else search.name)
    for title in ("cell", "complete", "pruned", "failed", *(each.name for each in search.objectives), "best"):
        grid.add_column(title, justify="left" if title in ("cell", "best") else "right")
    for study in studies:
        counts = study.counts()
        numbers = [str(counts[state]) for state in ("COMPLETE", "PRUNED", "FAIL")]
        for trial in study.best():
            found = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
            grid.add_row(study.cell.words, *numbers, *(f"{value:.4f}" for value in trial.values), found)
        if not study.best():
            grid.add_row(study.cell.words, *numbers, *["-"] * len(search.objectives), "")
    print_table(out, grid)
    out.print(
        "\nThese are figures of held-out training images, the best of many: too good by as much as luck had a part."
    )


def _record(study: "CellStudy") -> dict[str, object]:
    from icbench.search.study import params

    best = [{"values": trial.values, "parameters": dict(params(trial, study.cell))} for trial in study.best()]
    return {"study": study.study.study_name, "cell": study.cell.words, "trials": dict(study.counts()), "best": best}


def _results(layout: "Layout") -> str:
    return "" if str(layout.root) == "results" else f" --results {shlex.quote(str(layout.root))}"
