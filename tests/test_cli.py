"""The command line as a user meets it: help, listing, mistakes, pipes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY, SMALL, Icbench, environment

from icbench import catalog

COMMANDS = ("sweep", "plan", "status", "show", "list", "compact", "data", "bench")
HEAVY = ("torch", "torchvision", "pandas", "matplotlib", "numpy", "pyarrow", "submitit", "rich", "scipy")


def modules_after(code: str, cwd: Path) -> set[str]:
    """The heavy modules that a fresh interpreter has imported after running `code`."""
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nprint('\\n' + ' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=cwd, env=environment(), capture_output=True, text=True, check=True
    )
    return set(HEAVY) & set(done.stdout.rsplit("\n", 2)[-2].split())


def after(*commands: list[str]) -> str:
    """The code that runs commands one after another."""
    return f"from icbench.cli import main; {'; '.join(f'main({words!r})' for words in commands)}"


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    assert modules_after(after(["--help"]), tmp_path) == set()


def test_commands_that_train_nothing_import_no_torch(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: li2018}")
    plans = (["plan", "g.yaml", "--json"], ["sweep", "g.yaml", "--dry-run", "--no-build"])
    assert "torch" not in modules_after(after(["list", "--json"], ["list", "--markdown"], *plans), tmp_path)


def test_commands_that_look_at_results_import_no_pandas(small_sweep: Path, tmp_path: Path) -> None:
    """Which pyarrow would import, and still does for who wants a DataFrame."""
    (tmp_path / "results").symlink_to(small_sweep)
    (tmp_path / "g.yaml").write_text(SMALL)
    run_id = next(small_sweep.glob("runs/*")).stem
    looks = after(["sweep", "g.yaml", "--json"], ["status"], ["show", run_id], ["plan", "g.yaml", "--no-build"])
    assert "pandas" not in modules_after(looks, tmp_path)
    read = f"{after(['status'])}; import icbench; assert len(icbench.load_runs()) == 10"
    assert "pandas" in modules_after(read, tmp_path)


def test_help_tells_every_command_and_exit_code(icbench: Icbench, icbench_here: Icbench) -> None:
    done = icbench("--help")
    assert done.code == 0
    assert all(f"    {command} " in done.out for command in COMMANDS)
    assert "Exit codes: 0 done, 1 some run failed, 2 a mistake" in done.out
    assert icbench().out == done.out
    for command in COMMANDS:
        assert icbench_here(command, "--help").code == 0


def test_version(icbench: Icbench) -> None:
    import icbench as package

    assert icbench("--version").out == f"icbench {package.__version__}\n"
    assert f'version = "{package.__version__}"' in (REPOSITORY / "pyproject.toml").read_text()


@pytest.mark.parametrize("arguments", [["swep"], ["sweep"], ["list", "norm"], ["sweep", "a", "--nosuch"], ["data"]])
def test_a_mistyped_command_is_the_user_s_mistake(arguments: list[str], icbench_here: Icbench) -> None:
    done = icbench_here(*arguments)
    assert done.code == 2
    assert "usage: icbench" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_list(kind: str, icbench_here: Icbench) -> None:
    done = icbench_here("list", kind)
    _, _, listed = done.out.partition("───\n")
    names = [line.split()[0] for line in listed.splitlines()]
    assert names == list(catalog.names(kind))
    entries = icbench_here("list", kind, "--json").json()[kind]
    assert [entry["name"] for entry in entries] == names
    assert all(len(entry["summary"]) > 20 for entry in entries)


def test_list_tells_all_kinds(icbench: Icbench) -> None:
    assert list(icbench("list", "--json").json()) == list(catalog.KINDS)


@pytest.mark.parametrize("kind", ["norms", "weights", "activations", "orderings", "optimizers", "datasets"])
def test_every_variant_has_a_first_line_that_fits(kind: str) -> None:
    for name in catalog.names(kind):
        line = catalog.summary(kind, name)
        assert line.endswith(".") or line.endswith("`."), (name, line)
        assert len(line) <= 120


def test_results_that_are_not_there(icbench_here: Icbench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "g.yaml").write_text("recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: li2018}")
    for arguments in (["status"], ["show", "abc"], ["compact"]):
        done = icbench_here(*arguments)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("icbench: results: there is no such results directory.")
    assert "this is not a directory" in icbench_here("sweep", "g.yaml", "--results", "file").err
    (tmp_path / "results").mkdir()
    assert icbench_here("status").out.startswith("No sweep in results/ yet.")
    assert "no run in results has an id that begins with 'abc'" in icbench_here("show", "abc").err
    assert icbench_here("compact").code == 0


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m icbench list --json | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_tf32_is_refused_without_a_gpu(icbench_here: Icbench, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(
        "recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: li2018, precision: tf32}"
    )
    (tmp_path / "cpu.yaml").write_text("device: cpu")
    done = icbench_here("sweep", "g.yaml", "--profile", "cpu.yaml")
    assert done.code == 2
    assert "tf32 needs an NVIDIA GPU" in done.err
    assert not (tmp_path / "results").exists()


def test_streams_that_are_closed_full_or_not_unicode(tmp_path: Path) -> None:
    def run(redirection: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = f"{sys.executable} -m icbench list norms {redirection}"
        return subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment(**more), capture_output=True, text=True, timeout=60
        )

    assert (run(">&-").returncode, run(">&-").stderr) == (0, "")
    assert run("| head -1; exit ${PIPESTATUS[0]}").returncode == 0
    assert (run(">/dev/full").returncode, run(">/dev/full").stderr) == (
        1,
        "icbench: output: No space left on device.\n",
    )
    ascii_only = run("", PYTHONIOENCODING="ascii")
    assert (ascii_only.returncode, ascii_only.stderr) == (0, "")
    assert "momentum: 0.1" in ascii_only.stdout


def test_what_cannot_go_well_is_said_before_anything_is_written(icbench_here: Icbench, tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("recipe: chen2019\nfixed: {dataset: cifar10, depth: 8, ordering: li2018}")
    (tmp_path / "my data").mkdir()
    (tmp_path / "my data" / "cifar10.npz").write_text("junk")
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    cases = {
        (
            "--data",
            "my data",
        ): "no readable .npz file. Make it again with: icbench data prepare cifar10 --data 'my data'",
        ("--results", "file"): "file: this is not a directory.",
        ("--results", "file/results"): "file: this is not a directory.",
    }
    for arguments, words in cases.items():
        done = icbench_here("sweep", "g.yaml", *arguments)
        assert (done.code, done.out) == (2, "")
        assert words in done.err
    assert icbench_here("plan", "g.yaml", "--results", "file").code == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_retry_failed_takes_its_kind_after_an_equals_sign(
    icbench_here: Icbench, write_grid: Callable[..., Path]
) -> None:
    """Before the grid, a bare one does not take the grid for a kind."""
    dry = ("--dry-run", "--no-build")
    write_grid("recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: baseline}", "g.yaml")
    for words in (("--retry-failed", "g.yaml"), ("g.yaml", "--retry-failed"), ("--retry-failed=gpu-oom", "g.yaml")):
        assert "1 missing" in icbench_here("sweep", *words, *dry).out
    wrong = icbench_here("sweep", "g.yaml", "--retry-failed=oom", *dry)
    assert wrong.code == 2
    assert "--retry-failed=oom: there is no such kind. Did you mean" in wrong.err
    assert "is a result, not a failure" in icbench_here("sweep", "g.yaml", "--retry-failed=diverged").err


def test_a_plan_for_a_cluster(icbench_here: Icbench, write_grid: Callable[..., Path]) -> None:
    write_grid("recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: baseline}\nseeds: 100", "g.yaml")
    write_grid("executor: slurm\ntime_limit: 60\nmax_jobs_at_once: 2\njobs: 5\ngpus_per_node: 4", "c.yaml")
    plan = ("plan", "g.yaml", "--profile", "c.yaml", "--no-build")
    shown = icbench_here(*plan).out
    assert "5 jobs of 4 slots each, 2 at once" in shown
    assert shown.count("about") == 20
    assert len(icbench_here(*plan, "--json").json()["packs"]) == 20


def test_without_slurm_a_cluster_s_profile_is_an_error(
    icbench_here: Icbench, write_grid: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And to the doctor a failure like any other, such as a damaged data set."""
    write_grid("recipe: digits\nfixed: {dataset: digits, depth: 8, ordering: baseline}", "g.yaml")
    write_grid("executor: slurm\ntime_limit: 60\ndevice: cpu", "c.yaml")
    monkeypatch.setenv("PATH", "/nonexistent")
    refused = icbench_here("sweep", "g.yaml", "--profile", "c.yaml", "--no-build")
    assert refused.code == 1
    assert "there is no scontrol here. Log in to a machine from which jobs are submitted." in refused.err
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10.npz").write_bytes(b"damaged")
    doctor = icbench_here("doctor", "--profile", "c.yaml")
    assert doctor.code == 1
    assert "failed  data set cifar10: this is no readable .npz file. Make it again with" in doctor.out
    assert "failed  SLURM's commands: sbatch, squeue, scontrol, scancel, srun not found." in doctor.out


def test_doctor_on_this_machine(icbench_here: Icbench, tmp_path: Path) -> None:
    done = icbench_here("doctor")
    assert done.code == 0, done.out
    assert "ok      data set digits" in done.out
    assert "ok      locks: flock works" in done.out
    assert list(tmp_path.iterdir()) == []
