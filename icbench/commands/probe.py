"""`icbench probe`: measure inside trained networks, from the checkpoints that their sweep kept."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from icbench.commands import arguments

if TYPE_CHECKING:
    from icbench.commands.arguments import Commands
    from icbench.config import RunConfig, Variant
    from icbench.grid import Sweep
    from icbench.layout import Layout
    from icbench.recording import Recording
    from icbench.work.prober import Probed

    Runs = list[tuple[str, RunConfig]]


def add(commands: "Commands") -> None:
    parser = commands.add_parser("probe", help="measure inside trained networks, from checkpoints kept of them")
    parser.add_argument(
        "what", metavar="RUN|GRID", help="a run id, or its beginning; or a grid's YAML file, for all its finished runs"
    )
    parser.add_argument(
        "--probe",
        metavar="PROBE",
        action="append",
        help="a name that `icbench list probes` shows, or as in a grid '{name: dependence, images: 4096}'; may be "
        "repeated (default: what the grid says)",
    )
    parser.add_argument(
        "--epochs",
        metavar="N,N,...",
        help="after which epochs; 0: before training (default: all that were kept, and 0)",
    )
    parser.add_argument("--again", action="store_true", help="also what was measured already")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where (default: a GPU if there is one)"
    )
    arguments.results(parser)
    arguments.data(parser)
    arguments.json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from icbench import imports, results
    from icbench.console import complain, plural, print_json
    from icbench.data import store
    from icbench.errors import IcbenchError, UserError

    imports.arrow_alone()
    layout = results.existing(args.results)
    sweep, runs = _named(layout, args.what)
    recording = _recording(sweep, args.probe)
    epochs = _epochs(args.epochs)
    done = results.finished(layout)
    finished = [(run_id, config) for run_id, config in runs if run_id in done]
    if not finished:
        raise UserError(f"no run of {args.what} is finished.", f"Train them with: icbench sweep {args.what}")
    for name in sorted({config.dataset for _, config in finished}):
        store.verify(name, args.data)
    longest = max(config.recipe.epochs for _, config in finished)
    if epochs and epochs[-1] > longest:
        raise UserError(f"--epochs {args.epochs}: there is no epoch {epochs[-1]}: the longest run has {longest}.")
    rows, lacking, failed = 0, list[str](), 0
    for number, (run_id, config) in enumerate(finished, 1):
        at = _kept(layout, run_id) if epochs is None else epochs
        wanted = _wanted(recording, config, at, chosen=bool(args.probe or args.epochs))
        try:
            found = _probe(layout, run_id, config, wanted, args, f"[{number}/{len(finished)}] {run_id}")
        except IcbenchError as error:  # of one run: the others are measured all the same
            if len(finished) == 1:
                raise
            complain(str(error))
            failed += 1
            continue
        rows += found.rows
        lacking += [run_id] if found.lacking else []
    if args.json:
        print_json({"runs": len(finished), "rows": rows, "lacking": lacking, "failed": failed})
    else:
        print(f"{plural(rows, 'new row')} of {plural(len(finished), 'run')}: icbench.load_probes({str(layout.root)!r})")
    if lacking:
        complain(
            f"Of {plural(len(lacking), 'run')}, {lacking[0]} for one, no checkpoints were kept at some of these epochs."
            " A grid with keep_checkpoints has them kept while its runs are trained."
        )
    return 1 if lacking or failed else 0


def _named(layout: "Layout", what: str) -> "tuple[Sweep, Runs]":
    """The grid and the runs that the argument names."""
    from icbench import grid, monitor
    from icbench.errors import UserError

    if Path(what).suffix in (".yaml", ".yml"):
        sweep = grid.load(Path(what))
        return sweep, sweep.runs()
    run_id = monitor.find(layout, what)
    for file in sorted(layout.sweeps.glob("*/grid.yaml")):
        try:
            sweep = grid.load(file)
        except UserError:  # a search's file, or an older version's
            continue
        if found := [(each, config) for each, config in sweep.runs() if each == run_id]:
            return sweep, found
    raise UserError(f"no grid that {layout.root} keeps names the run {run_id}.", "Give the grid's file instead.")


def _recording(sweep: "Sweep", chosen: list[str] | None) -> "Recording":
    """What to measure: the grid's probes, or those that were typed."""
    import yaml

    from icbench import recording
    from icbench.catalog import names
    from icbench.errors import UserError
    from icbench.yamlfile import Mistake

    if not chosen:
        if not sweep.recording.probes:
            remedy = f"Choose some with --probe: {', '.join(names('probes'))}."
            raise UserError(f"the grid {sweep.name} names no probes.", remedy)
        return sweep.recording
    try:
        probes = [yaml.safe_load(each) for each in chosen]
        if any(isinstance(each, dict) and {"every", "epochs"} & each.keys() for each in probes):
            raise UserError(
                "--probe: of a probe on the command line 'every' and 'epochs' say nothing.", "Use --epochs."
            )
        return recording.parse({"probes": probes}, longest=0)
    except Mistake as mistake:
        raise UserError(f"--probe: {mistake.problem}", mistake.remedy) from None
    except yaml.YAMLError:
        raise UserError(
            f"--probe {' '.join(chosen)}: this is no YAML.", "Write a name, or {name: NAME, ...}."
        ) from None


def _epochs(typed: str | None) -> list[int] | None:
    from icbench.errors import UserError

    if typed is None:
        return None
    words = [word.strip() for word in typed.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise UserError(f"--epochs {typed} should be numbers of epochs with commas between, such as 0,10,20.")
    return sorted({int(word) for word in words})


def _kept(layout: "Layout", run_id: str) -> list[int]:
    """After which epochs a run can be looked at."""
    files = layout.kept(run_id).glob("[0-9]*.pt")
    return sorted({0, *(int(file.stem) for file in files if file.stem.isdigit())})


def _wanted(
    recording: "Recording", config: "RunConfig", epochs: list[int], *, chosen: bool
) -> "list[tuple[int, Variant]]":
    """What to measure in one run. chosen: at all these epochs; else only when the grid says."""
    last = config.recipe.epochs
    return [
        (epoch, each.probe)
        for each in recording.probes
        for epoch in (epochs if chosen else each.epochs.of(last))
        if epoch <= last
    ]


def _probe(
    layout: "Layout",
    run_id: str,
    config: "RunConfig",
    wanted: "list[tuple[int, Variant]]",
    args: argparse.Namespace,
    prefix: str,
) -> "Probed":
    from icbench.console import complain
    from icbench.work import prober

    def tell(what: str) -> None:
        complain(f"{prefix}: {what}")

    return prober.probe(layout, run_id, config, wanted, args.data, prober.device(args.device), tell, again=args.again)
