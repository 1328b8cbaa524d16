"""What is missing, what it costs, how it is packed; profiles."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY

from icbench import grid, plan, profile
from icbench.errors import UserError

WriteGrid = Callable[..., Path]
GRID = "recipe: digits\nfixed: {dataset: digits, ordering: baseline}\ngrid: {depth: [8, 14, 110]}\nseeds: 4"


def test_grid_minus_results(write_grid: WriteGrid) -> None:
    sweep = grid.load(write_grid(GRID))
    ids = sweep.run_ids
    todo = plan.make(sweep, finished={ids[0], ids[5], "other"}, failed={ids[1], ids[5], "another"})
    assert todo.finished == {ids[0], ids[5]}
    assert todo.failed == {ids[1]}
    assert [run_id for run_id, _ in todo.missing] == [i for i in ids if i not in (ids[0], ids[1], ids[5])]
    assert plan.make(sweep, ids, ()).missing == ()


def test_packs_hold_each_run_once_and_are_balanced(write_grid: WriteGrid) -> None:
    runs = grid.load(write_grid(GRID)).runs()
    packs = plan.packs(runs, 3)
    assert sorted(run_id for pack in packs for run_id, _ in pack) == sorted(run_id for run_id, _ in runs)
    loads = [sum(plan.cost(config) for _, config in pack) for pack in packs]
    longest = max(plan.cost(config) for _, config in runs)
    assert max(loads) <= sum(loads) / 3 + longest  # the bound of longest-first list scheduling is tighter still
    assert max(loads) <= (4 / 3) * max(sum(loads) / 3, 2 * longest)
    assert [config.depth for config in (pack[0][1] for pack in packs)] == [110] * 3
    assert plan.packs(runs[:2], 8) == [(runs[0],), (runs[1],)]
    assert plan.packs([], 8) == []


def test_cost_follows_epochs_and_images(write_grid: WriteGrid) -> None:
    def cost(text: str) -> float:
        return plan.cost(grid.load(write_grid(text)).runs()[0][1])

    one = cost("recipe: {name: digits, epochs: 1}\nfixed: {dataset: digits, ordering: baseline, depth: 8}")
    ten = cost("recipe: digits\nfixed: {dataset: digits, ordering: baseline, depth: 8}")
    assert ten == pytest.approx(10 * one)
    # SCIENCE and PERFORMANCE: 253 M multiply-adds forward, 1.52 GFLOP an image and training step.
    cifar = cost("recipe: {name: chen2019, epochs: 1}\nfixed: {dataset: cifar10, ordering: baseline, depth: 110}")
    assert cifar == pytest.approx(1.52e9 * 50000 + 2 * 253e6 * 10000, rel=0.01)


def test_the_local_profile_uses_every_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "visible_gpus", tuple)
    local = profile.load("local")
    assert (local.executor, local.workers, local.threads, local.device) == ("local", profile.cores(), 1, "cpu")
    monkeypatch.setattr(profile, "visible_gpus", lambda: ("2", "5"))
    assert (profile.load("local").workers, profile.load("local").device) == (2, "cuda")


def test_a_slurm_job_uses_no_more_cores_than_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(profile.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert profile.cores() == 64
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "8")
    assert profile.cores() == 8
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert profile.cores() == 4
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "128")
    assert profile.cores() == 64


def test_a_profile_of_one_s_own(write_grid: WriteGrid) -> None:
    file = write_grid("executor: local\nworkers: 3\nthreads: 2\ndevice: cpu", "mine.yaml")
    mine = profile.load(str(file))
    assert (mine.workers, mine.threads, mine.gpus) == (3, 2, ())


@pytest.mark.parametrize("file", sorted((REPOSITORY / "slurm").glob("*.yaml")), ids=lambda file: file.stem)
def test_our_profiles_are_right(file: Path) -> None:
    assert profile.load(str(file)).workers >= 1


MISTAKES = {
    "unknown field": ("workers: 2\nworker: 3", 2, "Did you mean 'workers'?"),
    "unknown executor": ("executor: slrum", 1, "there is no 'slrum'"),
    "no number": ("threads: many", 1, "a whole number from 1 up, or auto"),
    "zero": ("workers: 0", 1, "a whole number from 1 up"),
    "empty": ("", 1, "holds no profile"),
    "no GPU": ("device: cuda", 1, "no NVIDIA GPU"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_profile_s_mistake_is_named(case: str, write_grid: WriteGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "visible_gpus", tuple)
    text, line, words = MISTAKES[case]
    file = write_grid(text, "mine.yaml")
    with pytest.raises(UserError) as caught:
        profile.load(str(file))
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert words in str(caught.value)


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no profile 'lokal'. Write local, or the path"):
        profile.load("lokal")
    with pytest.raises(UserError, match="there is no such file"):
        profile.load(str(tmp_path / "none.yaml"))


def test_visible_gpus_follow_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Devices:
        def glob(self, _: str) -> list[Path]:
            return [tmp_path / name for name in ("nvidia1", "nvidia0", "nvidia10", "nvidiactl", "nvidia-uvm")]

    monkeypatch.setattr(profile, "Path", lambda _: Devices())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert profile.visible_gpus() == ("0", "1", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5ab")
    assert profile.visible_gpus() == ("3", "GPU-5ab")
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert profile.visible_gpus() == ()
