"""Probes and kept checkpoints: what a grid says of them, that the training does not notice, and what is left behind."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import PROBED, UNPROBED, Finished, assert_same_rows, sweep_here
from test_parallel import Pool, pool  # noqa: F401
from test_train import Bits, Watcher, bits, digits, same

import icbench as package
from icbench import catalog, grid, results
from icbench.errors import UserError
from icbench.layout import Layout, RunFiles
from icbench.probing.measurement import Measurement
from icbench.probing.subject import Subject, undisturbed
from icbench.recording import Epochs, Recording
from icbench.train.evaluation import Stopped
from icbench.train.loop import train
from icbench.train.ranks import ALONE, Ranks
from icbench.train.state import State
from icbench.work.recorder import Recorder, at_once

Icbench = Callable[..., Finished]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def load(folder: Path, text: str) -> grid.Sweep:
    (folder / "any.yaml").write_text(text)
    return grid.load(folder / "any.yaml")


@pytest.mark.parametrize(
    ("text", "line", "problem", "remedy"),
    [
        ("probes: dependance", 5, "there is no probe 'dependance'", "Did you mean 'dependence'?"),
        (
            "probes: [magnitudes, {name: zigzag, image: 3}]",
            5,
            "'zigzag' has no option 'image'",
            "Did you mean 'images'?",
        ),
        ("probes: [{name: zigzag, images: 0}]", 5, "the option 'images' of 'zigzag': 0 should be", ""),
        ("probes: [zigzag, zigzag]", 5, "the probe 'zigzag' stands there twice", "Keep one of them."),
        ("probes: [{name: zigzag, epochs: [5]}]", 5, "there is no epoch 5: the longest run has 4", ""),
        ("probes: [{name: zigzag, epochs: [1, 1]}]", 5, "whole numbers of epochs, each once", ""),
        ("probes: [{name: zigzag, epochs: 3}]", 5, "3 should be a list of whole numbers", "Write epochs: [0, 1, 10]"),
        ("probes: [{name: zigzag, every: 0}]", 5, "every: 0 should be a whole number from 1 up", ""),
        ("probes: [{name: zigzag, every: 2, epochs: [1]}]", 5, "said once when", "Keep one of them."),
        ("keep_checkpoints: yes", 5, "keep_checkpoints: 'yes' should say when", "Write {every: 10}"),
        ("keep_checkpoints: {often: 3}", 5, "keep_checkpoints has no key 'often'", "Write {every: 10}"),
        ("keep_checkpoints: [-1]", 5, "-1 in a list that should be of whole numbers", ""),
        ("keep_checkpoint: [1]", 5, "a grid has no key 'keep_checkpoint'", "Did you mean 'keep_checkpoints'?"),
    ],
)
def test_mistakes(text: str, line: int, problem: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path, UNPROBED + text)
    assert f"any.yaml:{line}" in str(error.value)
    assert problem in str(error.value)
    assert remedy in str(error.value)


def test_what_is_recorded_is_no_part_of_a_run(tmp_path: Path) -> None:
    plain, probed = (load(tmp_path, text) for text in (UNPROBED, PROBED))
    assert probed.run_ids == plain.run_ids
    assert plain.recording == Recording()
    assert probed.recording.keep.of(4) == [0, 3, 4]
    assert [[each.name for each in probed.recording.due(epoch, 4)] for epoch in range(5)] == [
        ["magnitudes", "dependence", "effective-lr"],
        [],
        [],
        ["dependence", "effective-lr"],
        ["magnitudes", "effective-lr"],
    ]


@pytest.mark.parametrize("name", catalog.names("probes"))
def test_no_option_of_a_probe_is_taken_for_its_time(name: str) -> None:
    assert not {"every", "epochs", "name"} & set(catalog.options("probes", name))


def test_epochs() -> None:
    assert Epochs().of(3) == []
    assert Epochs(every=2).of(5) == [0, 2, 4, 5]
    assert Epochs(listed=(0, 3)).of(2) == [0]


@pytest.fixture
def folder(probed_sweep: Path) -> Path:
    """Where PROBED was swept."""
    return probed_sweep.parent


def test_the_training_does_not_notice(folder: Path, tmp_path: Path) -> None:
    assert_same_rows(folder / "results", sweep_here(tmp_path, UNPROBED))


def test_the_table(folder: Path) -> None:
    frame = package.load_probes(folder / "results")
    assert frame.columns.tolist() == (
        ["run_id", "epoch", "layer", "probe", "statistic", "value", "standard_error", "n", "options"]
    )
    sweep = grid.load(folder / "grid.yaml")
    assert frame["run_id"].unique().tolist() == sorted(sweep.run_ids)
    assert frame.groupby("probe")["epoch"].unique().map(list).to_dict() == {
        "dependence": [0, 3],
        "effective-lr": [0, 3, 4],
        "magnitudes": [0, 4],
    }
    assert json.loads(frame["options"][frame["probe"] == "effective-lr"].iloc[0]) == {"steps": 3}
    assert not frame.duplicated(["run_id", "epoch", "layer", "probe", "statistic"]).any()
    ids = sorted(sweep.run_ids)
    assert package.load_probes(folder / "results", ids[:1])["run_id"].unique().tolist() == ids[:1]
    layout = Layout(folder / "results")
    assert not any(layout.run(run_id).probes.exists() for run_id in ids)
    assert {file.name for file in layout.kept(ids[0]).iterdir()} == {"3.pt", "4.pt"}


def test_a_network_s_measurements_are_the_same_afterwards(folder: Path, icbench_here: Icbench) -> None:
    """icbench probe, from what was kept: bit for bit what was measured on the way."""
    where = ("--results", folder / "results")
    during = package.load_probes(folder / "results")
    nothing = icbench_here("probe", folder / "grid.yaml", *where)
    assert (nothing.code, nothing.out[:15]) == (0, "0 new rows of 2")
    again = icbench_here("probe", folder / "grid.yaml", *where, "--again", "--json")
    assert again.code == 0, again.err
    assert again.json() == {"runs": 2, "rows": len(during), "lacking": [], "failed": 0}
    assert "magnitudes after epoch 4" in again.err
    pd.testing.assert_frame_equal(
        *(frame.sort_values(list(frame.columns[:5])).reset_index(drop=True) for frame in (during, probes(folder))),
        check_exact=True,
    )


def probes(folder: Path) -> pd.DataFrame:
    return package.load_probes(folder / "results")


def test_one_run_by_other_probes(folder: Path, icbench_here: Icbench, tmp_path: Path) -> None:
    """At all epochs that can be looked at; what was measured stays; compaction takes it along, and later rows count."""
    copied = copy(folder, tmp_path)
    before = probes(copied)
    run_id = before["run_id"][0]
    layout = Layout(copied / "results")
    results.compact(layout)
    layout.row(results.PROBES, run_id).unlink()
    pd.testing.assert_frame_equal(probes(copied), before)
    words = ("probe", run_id[:8], "--results", layout.root)
    done = icbench_here(*words, "--probe", "{name: zigzag, images: 200, single_images: 20, steps: 2}")
    assert done.code == 0, done.err
    after = probes(copied)
    new = after[after["probe"] == "zigzag"]
    assert new["run_id"].unique().tolist() == [run_id]
    assert new["epoch"].unique().tolist() == [0, 3, 4]
    kept = after[after["probe"] != "zigzag"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before)
    refused = icbench_here(*words, "--probe", "magnitudes", "--epochs", "0,2")
    assert (refused.code, "after epoch 0 with other options. To replace that: --again." in refused.err) == (2, True)
    pd.testing.assert_frame_equal(probes(copied), after)
    no_checkpoint = icbench_here(*words, "--probe", "magnitudes", "--epochs", "2")
    assert (no_checkpoint.code, "no checkpoints were kept" in no_checkpoint.err) == (1, True)
    lacking = icbench_here(*words, "--probe", "magnitudes", "--epochs", "0,2", "--again")
    assert (lacking.code, "no checkpoints were kept" in lacking.err) == (1, True)
    assert icbench_here(*words, "--probe", "magnitudes", "--epochs", "0").code == 0
    after = probes(copied)
    results.compact(layout)
    pd.testing.assert_frame_equal(probes(copied), after)


def test_what_was_measured_stays_whatever_comes_of_later_epochs(
    folder: Path, icbench_here: Icbench, tmp_path: Path
) -> None:
    copied = copy(folder, tmp_path)
    layout = Layout(copied / "results")
    run_id = probes(copied)["run_id"][0]
    (layout.kept(run_id) / "3.pt").write_bytes(b"x" * 100)
    done = icbench_here("probe", run_id, "--results", layout.root, "--probe", "{name: zigzag, images: 64, steps: 1}")
    assert (done.code, "3.pt: this checkpoint is damaged" in told(done)) == (1, True)
    after = probes(copied)
    assert after[after["probe"] == "zigzag"]["epoch"].unique().tolist() == [0, 4]


def test_finished_runs_that_were_not_measured(folder: Path, icbench_here: Icbench, tmp_path: Path) -> None:
    copied = copy(folder, tmp_path)
    run_id = probes(copied)["run_id"][0]
    assert "without rows" not in told(icbench_here("sweep", "grid.yaml"))
    Layout(copied / "results").row(results.PROBES, run_id).unlink()
    assert told(icbench_here("sweep", "grid.yaml")).startswith(
        "1 finished run without rows of magnitudes, dependence, effective-lr."
    )
    assert icbench_here("probe", "grid.yaml").code == 0
    assert "without rows" not in told(icbench_here("sweep", "grid.yaml"))
    (copied / "more.yaml").write_text(PROBED.replace("probes:", "probes:\n  - {name: sharpness, epochs: [4]}"))
    more = told(icbench_here("sweep", "--dry-run", "more.yaml"))
    assert more.startswith("2 finished runs without rows of sharpness.")
    searched = PROBED + "search: {parameters: {dropout: {low: 0, high: 0.5}}, trials: 2}"
    (copied / "search.yaml").write_text(searched.replace("relu-ic-conv]", "ic-conv-relu]"))
    refused = icbench_here("search", "search.yaml")
    assert (refused.code, "'probes'" in refused.err, "write it into that one's grid" in refused.err) == (2, True, True)


def told(done: Finished) -> str:
    """What was said beside the output, on one line."""
    return " ".join(done.err.split())


def copy(folder: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(folder, target, dirs_exist_ok=True)
    return target


def test_mistakes_at_the_command_line(folder: Path, icbench_here: Icbench, tmp_path: Path) -> None:
    copied = copy(folder, tmp_path)
    run_id = probes(copied)["run_id"][0]
    (copied / "plain.yaml").write_text(UNPROBED)
    (copied / "other.yaml").write_text(UNPROBED.replace("width: 4", "width: 8"))
    for words, said in (
        (["plain.yaml"], "the grid plain names no probes. Choose some with --probe: conditioning, "),
        (["other.yaml", "--probe", "zigzag"], "no run of other.yaml is finished. Train them with: icbench sweep other"),
        (["ffffffffffff"], "no run in results has an id that begins with 'ffffffffffff'"),
        ([run_id, "--probe", "zigzig"], "--probe: there is no probe 'zigzig'. Did you mean 'zigzag'?"),
        ([run_id, "--probe", "{name: "], "this is no YAML"),
        ([run_id, "--probe", "{name: zigzag, epochs: [1]}"], "'every' and 'epochs' say nothing. Use --epochs."),
        ([run_id, "--epochs", "0,7"], "--epochs 0,7: there is no epoch 7: the longest run has 4."),
        ([run_id, "--epochs", "1-3"], "--epochs 1-3 should be numbers of epochs with commas between"),
    ):
        done = icbench_here("probe", *words)
        assert done.code == 2, done.err
        assert said in " ".join(done.err.split())
    file = Layout(copied / "results").kept(run_id) / "3.pt"
    file.write_bytes(b"x" * 100)
    before = probes(copied)
    done = icbench_here("probe", run_id, "--again")
    assert (done.code, "3.pt: this checkpoint is damaged" in told(done)) == (1, True)
    pd.testing.assert_frame_equal(probes(copied), before)


class Training:
    """A training in this process, with its recorder."""

    def __init__(self, folder: Path):
        sweep = load(folder, PROBED)
        self.run_id, self.config = sweep.runs()[1]
        self.recording, self.layout = sweep.recording, Layout(folder / "results")
        self.files = RunFiles(folder)
        self.said: list[str] = []
        self.failed: list[tuple[str, int, str]] = []
        self.stop_after = math.inf

    def recorder(self, ranks: Ranks = ALONE) -> Recorder:
        return Recorder(
            self.recording,
            self.config,
            digits(self.config),
            ranks,
            self.files,
            self.layout.kept(self.run_id),
            lambda: len(self.measured()) >= self.stop_after,
            self.said.append,
            lambda *what: self.failed.append(what),
        )

    def measured(self) -> list[str]:
        """What waits to be written when the training ends."""
        return sorted(file.name.rpartition("-")[0] for file in self.files.probes.glob("*.json"))

    def train(self, watcher: Watcher | None = None) -> Bits:
        observe = self.recorder()
        file = self.files.checkpoint
        state, _ = train(self.config, digits(self.config), file, watcher or Watcher(), observe=observe)
        observe.write(self.layout, self.run_id)
        return bits(state)

    def rows(self) -> list[dict[str, Any]]:
        file = self.layout.row(results.PROBES, self.run_id)
        return pd.read_parquet(file).to_dict("records") if file.exists() else []


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path)


def test_a_training_that_was_interrupted(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an epoch, of a probe, and asked to stop between two: the rows are those of one never stopped."""
    whole, stopped = (Training(tmp_path_factory.mktemp("t")) for _ in range(2))
    expected = whole.train()
    with pytest.raises(Stopped):
        stopped.train(Watcher(stop_at=20))
    with monkeypatch.context() as patched:
        patched.setattr(catalog.load("probes", "effective-lr"), "build", lambda **_: interrupting)
        with pytest.raises(KeyboardInterrupt):
            stopped.train()
    at_0 = ["0-dependence", "0-effective-lr", "0-magnitudes"]
    assert stopped.measured() == [*at_0, "3-dependence"]
    stopped.stop_after = 5
    with pytest.raises(Stopped):
        stopped.train()
    assert stopped.measured() == [*at_0, "3-dependence", "3-effective-lr"]
    stopped.stop_after = math.inf
    assert not stopped.rows()
    assert same(stopped.train(), expected)
    assert pd.DataFrame(stopped.rows()).equals(pd.DataFrame(whole.rows()))
    assert {file.name for file in stopped.layout.kept(stopped.run_id).iterdir()} == {"3.pt", "4.pt"}


def interrupting(subject: Subject) -> Iterator[Measurement]:
    """A probe that is interrupted after its first value."""
    yield Measurement("", "relative_update", 1.0, None, 1)
    raise KeyboardInterrupt


def test_probes_of_other_options_begin_anew(training: Training) -> None:
    """A grid may be edited while a run of it is interrupted."""
    with pytest.raises(Stopped):
        training.train(Watcher(stop_at=1))
    edited = [
        replace(each, probe=replace(each.probe, options=(("steps", 2),))) if each.probe.name == "effective-lr" else each
        for each in training.recording.probes
    ]
    training.recording = replace(training.recording, probes=tuple(edited))
    training.train()
    options = {row["options"] for row in training.rows() if row["probe"] == "effective-lr"}
    assert options == {'{"steps": 2}'}


def test_what_was_measured_before_the_first_step_is_not_measured_again(training: Training) -> None:
    """However often a training is interrupted before its first checkpoint, it gets on with its probes."""
    with pytest.raises(Stopped):
        training.train(Watcher(stop_at=1))
    training.files.checkpoint.unlink()
    measured = sorted(training.files.probes.glob("0-*.json"))
    before = [file.stat().st_mtime_ns for file in measured]
    later = training.files.probes / "3-magnitudes-00000000.json"
    later.write_text("[]")
    with pytest.raises(Stopped):
        training.train(Watcher(stop_at=1))
    assert len(measured) == 3
    assert [file.stat().st_mtime_ns for file in measured] == before
    assert not later.exists()


def test_a_probe_that_fails_loses_no_run(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    module = catalog.load("probes", "dependence")
    monkeypatch.setattr(module, "build", lambda **_: lambda subject: 1 / 0)
    training.train()
    assert {row["probe"] for row in training.rows()} == {"magnitudes", "effective-lr"}
    assert "the probe dependence failed after epoch 0, and the training goes on:" in training.said
    assert any("ZeroDivisionError" in words for words in training.said)
    assert training.failed == [("dependence", epoch, "ZeroDivisionError: division by zero") for epoch in (0, 3)]


BREAK = """
import sys
from importlib.util import spec_from_file_location

class Finder:
    def find_spec(name, path, target=None):
        if name == "icbench.probes.magnitudes":
            return spec_from_file_location(name, __file__.replace("sitecustomize", "broken"))

sys.meta_path.insert(0, Finder)
"""


def test_a_sweep_tells_of_a_probe_that_fails(tmp_path: Path, icbench: Icbench) -> None:
    """Processes that are told where find another module in the place of `magnitudes`."""
    text = UNPROBED.replace("epochs: 4", "epochs: 1").replace("baseline, ", "")
    (tmp_path / "grid.yaml").write_text(text + "probes: [magnitudes]")
    (tmp_path / "sitecustomize.py").write_text(BREAK)
    (tmp_path / "broken.py").write_text("def build(*, images: int = 1000):\n    return lambda subject: 1 / 0\n")
    done = icbench("sweep", "grid.yaml", PYTHONPATH=str(tmp_path))
    assert done.code == 0, done.err
    assert "the probe magnitudes failed after epoch 0, ZeroDivisionError" in " ".join(done.out.split())
    assert told(done).startswith("1 finished run without rows of magnitudes.")
    (run_id,) = grid.load(tmp_path / "grid.yaml").run_ids
    log = icbench("logs", run_id).out
    assert "Traceback" in log
    assert "magnitudes took" not in log


def test_batches_in_parts(training: Training) -> None:
    """Where a training has no more than 60 images at once, no pass of a probe has more."""
    seen: list[int] = []
    config = training.config
    state = State.fresh(config, torch.device("cpu"))
    with undisturbed(torch.device("cpu")):
        subject = Subject(config, digits(config), state, "any", at_once(config, 2, 60))
        subject.net.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
        for images, labels in subject.batches(300):
            subject.loss(images, labels)
        assert list(subject.steps(2)) == [0, 1, 2]
    assert max(seen) == 60
    assert sum(seen) == 300 + 2 * 200
    assert (at_once(config, 1, None), at_once(config, 2, None), at_once(config, 1, 500)) == (None, 100, None)


def test_a_run_trained_anew_forgets(training: Training) -> None:
    training.train()
    kept = training.layout.kept(training.run_id)
    (kept / "2.pt").write_bytes(b"of another grid")
    training.files.checkpoint.unlink()
    training.train()
    assert {file.name for file in kept.iterdir()} == {"3.pt", "4.pt"}
    training.recording = Recording()
    training.files.checkpoint.unlink()
    training.train()
    assert not training.rows()


def together(ranks: Ranks, folder: Path, *, observed: bool) -> Bits:
    """In a process of the pool."""
    training = Training(folder)
    observe = training.recorder(ranks) if observed else lambda _: None
    file = training.files.checkpoint
    state, _ = train(training.config, digits(training.config), file, Watcher(), ranks, observe=observe)
    if observed and ranks.rank == 0:
        observe.write(training.layout, training.run_id)
    return bits(state)


def _of(pool: Pool, folder: Path, *, observed: bool) -> Iterator[Bits]:  # noqa: F811
    folder.mkdir()
    answers = pool.run(2, together_observed if observed else together_alone, folder)
    for answer in answers:
        assert not isinstance(answer, Exception), answer
        yield answer


def together_observed(ranks: Ranks, folder: Path) -> Bits:
    return together(ranks, folder, observed=True)


def together_alone(ranks: Ranks, folder: Path) -> Bits:
    return together(ranks, folder, observed=False)


def test_two_ranks_do_not_notice_either(pool: Pool, tmp_path: Path) -> None:  # noqa: F811
    observed = list(_of(pool, tmp_path / "a", observed=True))
    alone = list(_of(pool, tmp_path / "b", observed=False))
    assert all(same(a, b) for a, b in zip(observed, alone, strict=True))
    training = Training(tmp_path / "a")
    assert {row["probe"] for row in training.rows()} == {"dependence", "magnitudes", "effective-lr"}
