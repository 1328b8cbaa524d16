"""The tables of results: their schemas, how a finished run is written, how all are read back and compacted.

Plain Parquet, one file a run and table, readable by pandas, DuckDB and Polars without icbench. A run is finished when
it has its files, or is in the compacted ones; its row in `runs/` is written last.
"""

import json
from collections.abc import Collection, Iterable
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icbench.config import RunConfig
from icbench.errors import IcbenchError, UserError
from icbench.files import read_json, remove_leftovers, write_json, write_whole
from icbench.layout import Layout
from icbench.locks import Lock

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TABLES = ("epochs", "runs")
# A run has rows there if its network was measured; it is finished without.
PROBES = "probes"

# From so many small files on, DuckDB reads them: of 20,000 runs in 12.5 s of processor time where pyarrow takes 33 s.
# Below, importing it takes longer.
_MANY_FILES = 500

# How a run's own files are written: of a single row, statistics and dictionaries are half the file, and a fifth of the
# time to read it.
SMALL_FILE = {"use_dictionary": False, "write_statistics": False}

# Column -> Arrow type. Columns are only ever added, at the end; older files then read as null there.
_RUNS = {
    "run_id": "string",
    "cell_id": "string",
    "dataset": "string",
    "block": "string",
    "depth": "int32",
    "width": "int32",
    "ordering": "string",
    "norm": "string",
    "norm_options": "string",  # JSON
    "dropout": "float64",  # null where the ordering has no dropout, and where stages differ in it
    "recipe": "string",  # its name and what was overridden; the content is in config
    "precision": "string",
    "split": "string",
    "seed": "int64",
    "parameters": "int64",
    "epochs": "int32",  # trained; fewer than the recipe's if the run diverged
    "test_accuracy": "float64",  # after the last epoch, also of a diverged run
    "test_accuracy_last10": "float64",  # mean over the last 10 epochs; of a diverged run, the last epoch's
    "diverged": "bool",
    "train_seconds": "float64",  # without evaluation
    "images_per_second": "float64",  # training images
    "started_at": "timestamp",
    "finished_at": "timestamp",
    "attempts": "int32",
    "icbench_version": "string",
    "git_commit": "string",
    "git_dirty": "bool",
    "torch_version": "string",
    "device": "string",
    "hostname": "string",
    "threads": "int32",
    "world_size": "int32",
    "slurm_job_id": "string",
    "config": "string",  # the canonical JSON: its SHA-256 begins with run_id
    "node": "string",  # SLURM's name of it
    "gpu": "string",  # as CUDA_VISIBLE_DEVICES called it there
    "test_correct": "binary",  # a bit for each test image, in the data set's order, first bit highest: 1 where the last
    # epoch's net got it right; zeros fill the last byte. numpy.unpackbits reads it.
    "weight": "string",  # with its options, as are the next two; null in runs before there was a choice: plain, relu
    "activation": "string",
    "procedures": "string",  # joined by "; ", empty if there is none
    "engine": "string",  # how its steps were done: eager, graph, compiled, compiled graph; null is eager
    "images_at_once": "int32",  # into parts of at most so many images a batch was cut; null: into none
    "test_top5_accuracy": "float64",  # after the last epoch: the class has one of the five largest logits; null of less
    # than 100 classes, and in runs before it was measured; so in epochs
    "dropout_by_stage": "string",  # where stages differ in it: their rates, the first one's first, with spaces between
}
_EPOCHS = {
    "run_id": "string",
    "epoch": "int32",  # from 1
    "learning_rate": "float64",
    "train_loss": "float64",
    "train_accuracy": "float64",
    "test_loss": "float64",
    "test_accuracy": "float64",
    "seconds": "float64",
    "test_top5_accuracy": "float64",
}
_PROBES = {
    "run_id": "string",
    "epoch": "int32",  # after which; 0: before the first step
    "layer": "string",  # the module's name in the net; empty: of the net as a whole
    "probe": "string",
    "statistic": "string",
    "value": "float64",
    "standard_error": "float64",  # null where it is not known
    "n": "int64",  # observations that the value is made of: what of, the probe's own words say
    "options": "string",  # the probe's, JSON
}
_COLUMNS = {"runs": _RUNS, "epochs": _EPOCHS, PROBES: _PROBES}


def configured(run_id: str, config: RunConfig) -> dict[str, Any]:
    """The columns of a run's row in `runs` that its configuration says."""
    return {
        "run_id": run_id,
        "cell_id": config.cell_id,
        "dataset": config.dataset,
        "block": config.block,
        "depth": config.depth,
        "width": config.width,
        "ordering": config.ordering,
        "norm": config.norm.name,
        "norm_options": json.dumps(dict(config.norm.options)),
        "dropout": None if isinstance(config.dropout, tuple) else config.dropout,
        "recipe": config.recipe.label,
        "precision": config.precision,
        "split": config.split,
        "seed": config.seed,
        "config": config.canonical_json(),
        "weight": str(config.weight),
        "activation": str(config.activation),
        "procedures": "; ".join(map(str, config.procedures)),
        "dropout_by_stage": " ".join(map(str, config.dropout)) if isinstance(config.dropout, tuple) else None,
    }


def schema(table: str) -> "pa.Schema":
    """The Arrow schema of a table."""
    import pyarrow as pa

    types = {name: getattr(pa, name) for name in ("string", "int32", "int64", "float64", "binary")}
    types |= {"bool": pa.bool_, "timestamp": lambda: pa.timestamp("us", tz="UTC")}
    return pa.schema([(column, types[kind]()) for column, kind in _COLUMNS[table].items()])


def write_run(layout: Layout, run: dict[str, Any], epochs: list[dict[str, Any]]) -> None:
    """Write a finished run: its epochs, then its row in `runs`, which makes it finished."""
    for table, rows in (("epochs", epochs), ("runs", [run])):
        _write_rows(layout.row(table, run["run_id"]), table, rows)


def write_probes(layout: Layout, run_id: str, rows: list[dict[str, Any]]) -> None:
    """Write all that probes measured in a run, in place of what was written of it before."""
    _write_rows(layout.row(PROBES, run_id), PROBES, [{"run_id": run_id, **row} for row in rows])


def finished(layout: Layout) -> set[str]:
    """The ids of all finished runs, from the names of files and the manifest of compaction alone."""
    return set.intersection(*(set(_small_files(layout, table)) for table in TABLES)) | _compacted(layout)


def is_finished(layout: Layout, run_id: str) -> bool:
    """Whether a run has its own files; those that were compacted away are not looked for."""
    return all(layout.row(table, run_id).exists() for table in TABLES)


def _compacted(layout: Layout) -> set[str]:
    """The ids of the runs that the compacted tables hold; none, unless all tables are there."""
    if not all(layout.compacted_table(table).exists() for table in TABLES):
        return set()
    return set((read_json(layout.manifest) or {}).get("run_ids", ()))


def load_runs(results: str | Path = "results", run_ids: Collection[str] | None = None) -> "pd.DataFrame":
    """One row a finished run, sorted by run id: configuration, final figures, provenance; accuracies are fractions.

    Of all runs under `results`, or of `run_ids` alone. Raises UserError when there is no such directory.
    """
    frame: pd.DataFrame = read(existing(results), "runs", run_ids).to_pandas()
    return frame


def load_epochs(results: str | Path = "results", run_ids: Collection[str] | None = None) -> "pd.DataFrame":
    """One row an epoch of each finished run, sorted by run id and epoch (from 1); accuracies are fractions.

    Of all runs under `results`, or of `run_ids` alone. Raises UserError when there is no such directory.
    """
    frame: pd.DataFrame = read(existing(results), "epochs", run_ids).to_pandas()
    return frame


def load_probes(results: str | Path = "results", run_ids: Collection[str] | None = None) -> "pd.DataFrame":
    """One row a statistic that a probe measured in a finished run, in the order of run ids, epochs and layers.

    Of all runs under `results`, or of `run_ids` alone. Raises UserError when there is no such directory.
    """
    frame: pd.DataFrame = read_probes(existing(results), run_ids).to_pandas()
    return frame


def any_probed(layout: Layout) -> bool:
    """Whether probes measured anything in any run, from the names of files alone."""
    return layout.table(PROBES).is_dir() or layout.compacted_table(PROBES).exists()


def read_probes(layout: Layout, run_ids: Collection[str] | None = None) -> "pa.Table":
    """What probes measured, of all finished runs or of those in `run_ids`, by run id.

    Each run's rows come from its own file, to which more may have been added since it was compacted, if it has one.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = finished(layout) if run_ids is None else finished(layout) & set(run_ids)
    small = {run_id: file for run_id, file in _small_files(layout, PROBES).items() if run_id in wanted}
    names = schema(PROBES).names
    parts = [_dataset([small[run_id] for run_id in sorted(small)], PROBES, names)]
    file = layout.compacted_table(PROBES)
    if file.exists() and len(small) < len(wanted):
        compacted = _dataset([file], PROBES, names)
        parts.append(
            compacted.filter(pc.is_in(compacted["run_id"], pa.array(sorted(wanted - set(small)), pa.string())))
        )
    rows = pa.concat_tables(parts)
    at = pa.array(range(len(rows)), pa.int64())  # so that each run's rows stay in their order
    return rows.take(pc.sort_indices(rows.append_column("at", at), [("run_id", "ascending"), ("at", "ascending")]))


def measured(layout: Layout) -> set[str]:
    """The ids of the runs that have rows in the probes table."""
    import pyarrow.compute as pc

    file = layout.compacted_table(PROBES)
    compacted = pc.unique(_dataset([file], PROBES, ["run_id"])["run_id"]).to_pylist() if file.exists() else []
    return {*_small_files(layout, PROBES), *compacted}


def measured_by(layout: Layout, run_ids: Collection[str]) -> set[tuple[str, str]]:
    """Which of these runs, or of those that are compacted, have rows of which probes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns, small = ["run_id", "probe"], _small_files(layout, PROBES)
    tables = [_small_rows([small[run_id] for run_id in run_ids if run_id in small], PROBES, columns)]
    if layout.compacted_table(PROBES).exists():
        compacted = _dataset([layout.compacted_table(PROBES)], PROBES, columns)
        tables.append(compacted.filter(pc.invert(pc.is_in(compacted["run_id"], pa.array(sorted(small), pa.string())))))
    pairs = [table.group_by(columns).aggregate([]).to_pylist() for table in tables]
    return {(row["run_id"], row["probe"]) for each in pairs for row in each}


def read(
    layout: Layout, table: str, run_ids: Collection[str] | None = None, columns: Collection[str] | None = None
) -> "pa.Table":
    """A table's rows of all finished runs, or of those in `run_ids`, sorted by run id (and epoch); of all columns or of
    run_id and `columns`.

    Each run's come from the compacted file if it has them, else from the run's own file.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = finished(layout) if run_ids is None else finished(layout) & set(run_ids)
    names = schema(table).names if columns is None else ["run_id", *columns]
    parts = []
    file = layout.compacted_table(table)
    if file.exists():
        compacted = _dataset([file], table, names)
        held = set(pc.unique(compacted["run_id"]).to_pylist())
        if not held <= wanted:
            compacted = compacted.filter(pc.is_in(compacted["run_id"], pa.array(sorted(wanted), pa.string())))
        parts.append(compacted)
        wanted = wanted - held
    small = _small_files(layout, table) if wanted else {}
    parts.append(_small_rows([small[run_id] for run_id in sorted(wanted) if run_id in small], table, names))
    return _in_order(pa.concat_tables(parts))


def compact(layout: Layout) -> int:
    """Put all finished runs into one file a table, `compacted/TABLE.parquet`; return how many runs these hold.

    The small files stay. Readers take each run from the compacted file or from its small one, never from both, so
    compaction may be killed or run beside a sweep at any moment.
    """
    import pyarrow.parquet as pq

    layout.compacted.mkdir(exist_ok=True)
    lock = Lock.take(layout.compaction_lock)
    if lock is None:
        raise UserError("another compaction is under way.", "Wait for it to end.", file=layout.compacted)
    with lock:
        done = finished(layout)
        for table in TABLES:
            whole = read(layout, table, done)
            target = layout.compacted_table(table)
            remove_leftovers(target)
            write_whole(target, lambda file, whole=whole: pq.write_table(whole, file))  # type: ignore[misc]
        measured = read_probes(layout, done)
        if len(measured):
            remove_leftovers(layout.compacted_table(PROBES))
            write_whole(layout.compacted_table(PROBES), lambda file: pq.write_table(measured, file))
        write_json(layout.manifest, {"run_ids": sorted(done)})
    return len(done)


def learning_curve(layout: Layout, run_id: str) -> tuple[list[float], float, bool]:
    """Of a finished run: the accuracy after each epoch, the seconds of training, and whether it diverged."""
    import pyarrow.parquet as pq

    if is_finished(layout, run_id):
        # Of one file alone no schema has to be found out.
        epochs = pq.ParquetFile(layout.row("epochs", run_id)).read(["test_accuracy", "seconds"])
        run = pq.ParquetFile(layout.row("runs", run_id)).read(["diverged"])
    else:
        epochs, run = (read(layout, table, [run_id]) for table in ("epochs", "runs"))
    return epochs["test_accuracy"].to_pylist(), sum(epochs["seconds"].to_pylist()), run["diverged"][0].as_py()


def existing(results: str | Path) -> Layout:
    """The layout of a results directory that is there. Raises UserError where there is none."""
    root = Path(results)
    if not root.is_dir():
        remedy = "Make one with: icbench sweep GRID --results DIR"
        raise UserError("there is no such results directory.", remedy, file=root)
    return Layout(root)


def _in_order(rows: "pa.Table") -> "pa.Table":
    """The rows sorted by run id, and epoch if they have one; a table in order already is not copied."""
    import pyarrow.compute as pc

    keys = [key for key in ("run_id", "epoch") if key in rows.column_names]
    before, after = rows.slice(0, max(len(rows) - 1, 0)), rows.slice(1)
    in_order = pc.less(before[keys[-1]], after[keys[-1]])
    if len(keys) == 2:
        same_run = pc.equal(before["run_id"], after["run_id"])
        in_order = pc.if_else(same_run, in_order, pc.less(before["run_id"], after["run_id"]))
    if pc.all(in_order, min_count=0).as_py():
        return rows
    return rows.sort_by([(key, "ascending") for key in keys])


def _small_rows(files: list[Path], table: str, columns: list[str]) -> "pa.Table":
    """The rows of many runs' own files, in any order."""
    # DuckDB takes the list's paths for patterns.
    if len(files) >= _MANY_FILES and escape(str(files[0].parent)) == str(files[0].parent):
        with suppress(ImportError):  # a machine that has no DuckDB
            rows = _duckdb_rows(files, table, columns)
            if rows is not None:
                return rows
    return _dataset(files, table, columns)


def _duckdb_rows(files: list[Path], table: str, columns: list[str]) -> "pa.Table | None":
    """The same by DuckDB; None where a file is damaged. Raises ImportError."""
    import duckdb
    import pyarrow as pa

    try:
        return _query(files, table, columns)
    except duckdb.Error:
        pass
    # Some files are older than a column, perhaps. Those of one age are read together.
    try:
        parts = [_query(group, table, [c for c in columns if c in has]) for has, group in _by_columns(files).items()]
    except (pa.ArrowException, OSError, duckdb.Error):
        return None
    return pa.concat_tables([schema(table).empty_table().select(columns), *parts], promote_options="default")


def _query(files: list[Path], table: str, columns: list[str]) -> "pa.Table":
    """The rows of files that have all these columns, in any order. Raises duckdb.Error."""
    import duckdb
    import pyarrow as pa

    selected = ", ".join(f'"{column}"' for column in columns)
    query = f"select {selected} from read_parquet($files, hive_partitioning = false)"
    # Without the order of the files it need not keep each one's rows apart: half the memory.
    with duckdb.connect(config={"preserve_insertion_order": "false"}) as connection:
        rows = connection.sql(query, params={"files": [str(file) for file in files]}).to_arrow_table()
    return rows.cast(pa.schema([schema(table).field(column) for column in columns]))


def _by_columns(files: list[Path]) -> dict[tuple[str, ...], list[Path]]:
    """The files by which columns they have."""
    import pyarrow.parquet as pq

    groups: dict[tuple[str, ...], list[Path]] = {}
    for file in files:
        groups.setdefault(tuple(pq.read_schema(file).names), []).append(file)
    return groups


def _dataset(files: Iterable[Path], table: str, columns: list[str]) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.dataset as ds

    paths = [str(file) for file in files]
    if not paths:
        return schema(table).empty_table().select(columns)
    try:
        return ds.dataset(paths, schema=schema(table), format="parquet").to_table(columns=columns)
    except (pa.ArrowException, OSError):
        damaged = next((path for path in paths if not _is_readable(path)), f"a file of the table {table!r}")
        raise IcbenchError(
            f"{damaged} cannot be read. If it is damaged, remove it: its runs are then done again."
        ) from None


def _is_readable(path: str) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError):
        return False
    return True


def _small_files(layout: Layout, table: str) -> dict[str, Path]:
    """run id -> file, of the runs that have one of their own in this table."""
    folder = layout.table(table)
    return {path.stem: path for path in folder.glob("[!._]*.parquet")} if folder.is_dir() else {}


def _write_rows(target: Path, table: str, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = schema(table)
    data = pa.Table.from_pylist(rows, schema=columns)
    unknown = rows[0].keys() ^ set(columns.names)
    assert not unknown, f"rows and schema of {table} differ: {unknown}"
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    write_whole(target, lambda file: pq.write_table(data, file, **SMALL_FILE))
