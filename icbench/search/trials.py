"""The table of a search's trials: plain Parquet, one row a trial, for reports and for whoever has no Optuna."""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from icbench.errors import IcbenchError
from icbench.files import write_whole
from icbench.layout import SweepFiles
from icbench.search.study import CellStudy, Outcome, params
from icbench.yamlfile import Mistake

if TYPE_CHECKING:
    import pyarrow as pa
    from optuna.trial import FrozenTrial

# Column -> Arrow type. Columns are only ever added, at the end.
_COLUMNS = {
    "study": "string",  # Optuna's name of it
    "cell": "string",  # its key in the search (SearchCell.key)
    "number": "int32",  # the trial's in its study, from 0
    "state": "string",  # complete, pruned, running, failed
    "parameters": "string",  # JSON: name -> value, as it was trained with
    "values": "floats",  # one an objective, means over the seeds; of a pruned trial the last that was reported
    "by_seed": "lists",  # of each seed that ended, its values; null where somebody else ended the trial
    "run_ids": "strings",  # one a seed; of a trial that ended early, those that were begun
    "steps": "ints",  # of what a pruner was told: epochs, or for wilcoxon seeds
    "reported": "floats",  # the first objective at each of these steps
    "diverged": "int32",  # of its runs
    "train_seconds": "float64",  # of its runs; what was known before costs none
    "started_at": "timestamp",
    "ended_at": "timestamp",
    "reason": "string",  # why it failed
}


def schema() -> "pa.Schema":
    """The Arrow schema of the table."""
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "int32": pa.int32(),
        "float64": pa.float64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "floats": pa.list_(pa.float64()),
        "ints": pa.list_(pa.int32()),
        "strings": pa.list_(pa.string()),
        "lists": pa.list_(pa.list_(pa.float64())),
    }
    return pa.schema([(name, types[kind]) for name, kind in _COLUMNS.items()])


def rows(study: CellStudy) -> Iterator[dict[str, Any]]:
    """Of one study, in the order of the trials."""
    for trial in study.trials():
        if trial.number not in study.rows:
            row = _row(study, trial)
            if not trial.state.is_finished():
                yield row
                continue
            study.rows[trial.number] = row
        yield study.rows[trial.number]


def _row(study: CellStudy, trial: "FrozenTrial") -> dict[str, Any]:
    outcome = Outcome.of(trial)
    steps = sorted(trial.intermediate_values)
    return {
        "study": study.study.study_name,
        "cell": study.cell.key,
        "number": trial.number,
        "state": {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}.get(trial.state.name, "running"),
        "parameters": json.dumps(dict(params(trial, study.cell))),
        "values": trial.values,
        "by_seed": outcome.by_seed,
        "run_ids": _run_ids(study, trial),
        "steps": steps,
        "reported": [trial.intermediate_values[step] for step in steps],
        "diverged": outcome.diverged,
        "train_seconds": outcome.seconds,
        # Optuna's are this machine's time, without its zone.
        "started_at": trial.datetime_start.astimezone() if trial.datetime_start else None,
        "ended_at": trial.datetime_complete.astimezone() if trial.datetime_complete else None,
        "reason": outcome.reason,
    }


def _run_ids(study: CellStudy, trial: "FrozenTrial") -> list[str]:
    """None of a trial that was never asked to the end, or whose values cannot be trained."""
    if trial.params.keys() != {each.name for each in study.cell.space.dimensions}:
        return []
    begun = Outcome.of(trial).begun if trial.state.is_finished() else len(study.search.seeds)
    try:
        return [run_id for run_id, _ in study.runs(trial)][:begun]
    except Mistake:
        return []


def write(files: SweepFiles, every: Iterable[dict[str, Any]]) -> None:
    """Write the table whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(list(every), schema=schema())
    write_whole(files.trials, lambda file: pq.write_table(table, file), durable=False)


def read(files: SweepFiles) -> "pa.Table":
    """The table; empty where there is none yet. Raises IcbenchError where it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not files.trials.exists():
        return schema().empty_table()
    try:
        return pq.read_table(files.trials, schema=schema())
    except (pa.ArrowException, OSError):
        remedy = "Remove it: the next `icbench search` makes it anew from the studies."
        raise IcbenchError(f"{files.trials} cannot be read. {remedy}") from None
