"""A run's failure as its record in the results directory."""

from datetime import UTC, datetime

from icbench.errors import UserError
from icbench.files import write_json
from icbench.layout import RunFiles


def record_failure(files: RunFiles, kind: str, message: str, trace: str = "") -> None:
    """Write why a run failed; from then on no worker goes on with it. kind: one of icbench/kinds.py."""
    files.folder.mkdir(parents=True, exist_ok=True)
    moment = datetime.now(UTC).isoformat()
    write_json(files.failure, {"kind": kind, "message": message, "traceback": trace, "failed_at": moment})


def in_words(error: Exception) -> str:
    """An exception as a failure's message."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
