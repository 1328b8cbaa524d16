"""Where the studies are: an SQLite file in the results directory, or any database that Optuna can use."""

import itertools
import os
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from icbench.errors import IcbenchError, UserError
from icbench.layout import Layout

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

VARIABLE = "ICBENCH_STORAGE"
# How often a controller gives a sign of life for each of its trials, and after what silence others take one for lost.
HEARTBEAT_SECONDS = 30
GRACE_SECONDS = 150
_BUSY_SECONDS = 60
_ATTEMPTS = 5
_AGAIN_SECONDS = 0.5
_MADE_MEANWHILE = re.compile("already exists|UNIQUE constraint|duplicate key")
_REMEDY = "Give an SQLAlchemy URL, such as postgresql+psycopg://user:password@host/database."


def url(layout: Layout, given: str | None) -> str:
    """The storage's URL: what was given, by option or by the variable, else the results directory's own file."""
    return given or os.environ.get(VARIABLE) or _own(layout)


def _own(layout: Layout) -> str:
    return f"sqlite:///{layout.studies.absolute()}"


def shown(url: str) -> str:
    """A URL without its password."""
    return re.sub(r"(://[^:/@]*:)[^@]*(?=@)|([?&]password=)[^&]*", r"\1\2***", url)


@contextmanager
def unwarned() -> Iterator[None]:
    """Without Optuna's warnings: that something is experimental, that nobody but us gives signs of life."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def failures(url: str) -> Iterator[None]:
    """What the database refuses while it is used, as IcbenchError."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        problem = f"the studies in {shown(url)} cannot be written any more: {_said(error)}."
        raise IcbenchError(f"{problem} Nothing is lost: the same command goes on.") from None


def connect(url: str, layout: Layout) -> "RDBStorage":
    """Optuna's storage; its tables are made where there are none, and the results directory if it is in there.

    Raises UserError where it cannot be reached.
    """
    import optuna
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url == _own(layout):
        layout.root.mkdir(parents=True, exist_ok=True)
    try:
        return _connect(url)
    except (ArgumentError, NoSuchModuleError) as error:
        raise UserError(f"--storage {shown(url)} is no database: {error}.", _REMEDY) from None
    except ImportError as error:
        remedy = "For PostgreSQL: pip install 'icbench[postgresql]', and a URL that begins with postgresql+psycopg://."
        raise UserError(f"--storage {shown(url)} needs a library that is not there: {error}.", remedy) from None
    except (SQLAlchemyError, RuntimeError) as error:
        raise UserError(f"the studies in {shown(url)} cannot be opened: {_said(error)}.", _REMEDY) from None


def _connect(url: str) -> "RDBStorage":
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    # SQLite: several controllers take turns.
    arguments = {"timeout": _BUSY_SECONDS} if url.startswith("sqlite") else {}
    for attempt in itertools.count(1):
        try:
            with unwarned():
                return RDBStorage(
                    url,
                    engine_kwargs={"connect_args": arguments, "pool_pre_ping": not arguments},
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=GRACE_SECONDS,
                )
        except (OperationalError, ProgrammingError, IntegrityError) as error:
            # Two that begin at once both make the tables, and the slower one fails.
            if attempt == _ATTEMPTS or not _MADE_MEANWHILE.search(str(error)):
                raise
            time.sleep(_AGAIN_SECONDS)
    raise AssertionError


def _said(error: Exception) -> str:
    """What the database says, in one line."""
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
