"""What icbench's own processes spare when they import: torch without looking for garbage, pyarrow without pandas.

Each process pays for its imports anew, of which a sweep has many.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept() -> Iterator[None]:
    """What is imported within lasts as long as the process: garbage is not looked for in it, then or ever after.

    Of the CPU time in which a process imports torch and ends, that is a sixth. For processes that have just begun,
    since whatever there is already is kept as well.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def arrow_alone() -> None:
    """Import pyarrow, which then does not import pandas for its first array: half the time of `icbench status`.

    It asks once whether there is pandas. It still imports pandas for what makes a DataFrame, but would not know one
    that it is given.
    """
    if "pandas" in sys.modules:
        return
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        import pyarrow as pa

        pa.array([])
    finally:
        sys.meta_path.remove(absent)


class _Absent:
    """Finds no pandas."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name, name=name)
