"""Studies in a database that several controllers share: SQLite, and a real PostgreSQL."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from conftest import REPOSITORY, Icbench, environment
from crew import OPENED, search
from test_search_controller import TEXT, best_at_a_fifth

from icbench.search import storage
from icbench.search.study import Outcome

# A controller with a results directory of its own, as on another machine.
ELSEWHERE = """
import sys, pathlib
from crew import search
from test_search_controller import TEXT, best_at_a_fifth
folder = pathlib.Path(sys.argv[1]); folder.mkdir()
search(folder, TEXT.replace("trials: 8", "trials: 24"), best_at_a_fifth, url=sys.argv[2])
"""


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """A real PostgreSQL server of this test's own; its URL.

    Skips where PostgreSQL is not installed, unless ICBENCH_REQUIRE_POSTGRESQL says that it has to be, as CI does.
    """
    programs = [*Path("/usr/lib/postgresql").glob("*/bin"), *filter(None, [_beside("initdb")])]
    if not programs and not os.environ.get("ICBENCH_REQUIRE_POSTGRESQL"):
        pytest.skip("PostgreSQL is not installed here: there is no initdb")
    programs.sort()
    # It refuses to be started by root.
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="icbench-pg-"))  # short: the path of its socket is
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

    def run(program: str, *arguments: object) -> None:
        words = [str(programs[-1] / program), *map(str, arguments)]
        subprocess.run(words, user=user, cwd=folder, check=True, timeout=60, capture_output=True)

    run("initdb", "-D", folder / "data", "-U", "icbench", "--auth=trust", "-E", "UTF8", "--no-sync")
    options = f"-c listen_addresses='' -k {folder} -c fsync=off"
    run("pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start")
    try:
        run("createdb", "-h", folder, "-U", "icbench", "studies")
        yield f"postgresql+psycopg://icbench@/studies?host={folder}"
    finally:
        run("pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


def _beside(program: str) -> Path | None:
    found = shutil.which(program)
    return Path(found).resolve().parent if found else None


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("postgresql") if request.param == "postgresql" else f"sqlite:///{tmp_path}/shared.db"


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Whatever a test has opened is closed at its end."""
    yield
    while OPENED:
        OPENED.pop().engine.dispose()


def studies(url: str) -> list[optuna.Study]:
    database = optuna.storages.RDBStorage(url)
    OPENED.append(database)
    summaries = optuna.get_all_study_summaries(database)
    return [optuna.load_study(study_name=each.study_name, storage=database) for each in summaries]


def test_three_controllers_of_one_study(url: str, tmp_path: Path) -> None:
    """From three results directories at once: no trial too many, every one with its value, all three do some."""
    path = environment(PYTHONPATH=f"{REPOSITORY / 'tests'}:{REPOSITORY}")
    processes = [
        subprocess.Popen([sys.executable, "-c", ELSEWHERE, tmp_path / str(number), url], env=path)
        for number in range(3)
    ]
    assert [process.wait(200) for process in processes] == [0, 0, 0]
    (study,) = (each for each in studies(url) if len(each.trials) >= 24)
    states = Counter(trial.state.name for trial in study.trials)
    assert states["COMPLETE"] == 24
    assert states["RUNNING"] == 0
    assert states["FAIL"] == len(study.trials) - 24 <= 3  # withdrawn: asked for at the same moment
    owners = Counter(trial.user_attrs["controller"] for trial in study.trials)
    assert len(owners) == 3
    for trial in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        assert trial.value == pytest.approx(0.9 - (trial.params["dropout"] - 0.2) ** 2)


def test_a_controller_that_is_lost_elsewhere(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trial fails once it has been silent for long enough, and is replaced; no sooner."""
    text = TEXT.replace("made-up", "lost")
    monkeypatch.setattr(storage, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(storage, "GRACE_SECONDS", 3600)
    (tmp_path / "there").mkdir()
    lost = search(tmp_path / "there", text, best_at_a_fifth, dies_after=2, url=url)
    lost.studies[0].beat(lost.studies[0].adopt(lambda _: True, "still alive", ())[0])
    (tmp_path / "here").mkdir()
    here = search(tmp_path / "here", text, best_at_a_fifth, url=url)
    assert [state for _, state, *_ in here.trials] == ["RUNNING"] + ["COMPLETE"] * 7
    monkeypatch.setattr(storage, "GRACE_SECONDS", 1)
    time.sleep(3.1)  # databases keep whole seconds
    again = search(tmp_path / "here", text, best_at_a_fifth, url=url)
    assert [state for _, state, *_ in again.trials] == ["FAIL"] + ["COMPLETE"] * 8
    assert Outcome.of(again.studies[0].study.trials[0]).reason == ""
    assert again.studies[0].failures() == []


def test_a_real_search_in_postgresql(postgresql: str, tmp_path: Path, icbench: Icbench) -> None:
    """From end to end; the URL from the environment; nothing is left in the results directory's own place."""
    (tmp_path / "search.yaml").write_text(TEXT.replace("epochs: 4", "epochs: 1").replace("trials: 8", "trials: 2"))
    (tmp_path / "one.yaml").write_text("workers: 1")
    words = ("search", "search.yaml", "--profile", "one.yaml", "--no-build", "--json")
    done = icbench(*words, ICBENCH_STORAGE=postgresql)
    assert done.code == 0, done.err
    (found,) = done.json()["studies"]
    assert found["trials"]["COMPLETE"] == 2
    assert found["study"] in {study.study_name for study in studies(postgresql)}
    assert not (tmp_path / "results/studies.db").exists()


def test_a_database_that_does_not_answer(postgresql: str, tmp_path: Path, icbench_here: Icbench) -> None:
    (tmp_path / "search.yaml").write_text(TEXT)
    for url, said in (
        (postgresql.replace("/studies", "/none"), 'database "none" does not exist'),
        ("postgresql+psycopg://me:secret@/x?host=/nowhere", "cannot be opened"),
    ):
        refused = icbench_here("search", "search.yaml", "--no-build", "--storage", url)
        assert refused.code == 2
        assert said in refused.err
        assert "secret" not in refused.err
        assert "Traceback" not in refused.err
    assert not (tmp_path / "results").exists()
