"""Where the studies are: an SQLite file in the results directory, or any database that Optuna can use."""

import os
import re
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
_REMEDY = "Give an SQLAlchemy URL, such as postgresql+psycopg://user:password@host/database."


def url(layout: Layout, given: str | None) -> str:
    """The storage's URL: what was given, by option or by the variable, else the results directory's own file."""
    return given or os.environ.get(VARIABLE) or f"sqlite:///{layout.studies.absolute()}"


def shown(url: str) -> str:
    """A URL without its password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


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
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        problem = f"the studies in {shown(url)} cannot be written any more: {said}."
        raise IcbenchError(f"{problem} Nothing is lost: the same command goes on.") from None


def connect(url: str) -> "RDBStorage":
    """Optuna's storage; its tables are made where there are none. Raises UserError where it cannot be reached."""
    import optuna
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # SQLite: several controllers take turns.
    arguments = {"timeout": _BUSY_SECONDS} if url.startswith("sqlite") else {}
    try:
        with unwarned():
            return RDBStorage(
                url,
                engine_kwargs={"connect_args": arguments, "pool_pre_ping": not arguments},
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
            )
    except (ArgumentError, NoSuchModuleError) as error:
        raise UserError(f"--storage {shown(url)} is no database: {error}.", _REMEDY) from None
    except ImportError as error:
        remedy = "For PostgreSQL: pip install 'icbench[postgresql]', and a URL that begins with postgresql+psycopg://."
        raise UserError(f"--storage {shown(url)} needs a library that is not there: {error}.", remedy) from None
    except (SQLAlchemyError, RuntimeError) as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise UserError(f"the studies in {shown(url)} cannot be opened: {said}.", _REMEDY) from None
