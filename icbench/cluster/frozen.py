"""icbench's own code as it is at submission, copied beside the results: what queued jobs run, whatever stands later.

A job may wait for days and be requeued for weeks, while its author goes on writing. Jobs that imported from the working
tree would run what stands there when they start; two halves of one run might be of two versions.
"""

import hashlib
import py_compile
import secrets
import shutil
from pathlib import Path

from icbench import provenance
from icbench.files import write_json
from icbench.layout import Layout

_PACKAGE = Path(__file__).parent.parent


def freeze(layout: Layout) -> Path:
    """The folder to put first on Python's path, holding `icbench/` as it is now; made unless it is there already.

    The copy is compiled, since jobs may not write where they read, and knows its git commit.
    """
    # Each file is read once, so that what is copied is what the name says, whoever edits meanwhile.
    sources = sorted(path for path in _PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    contents = {source.relative_to(_PACKAGE.parent): source.read_bytes() for source in sources}
    target = layout.code / _digest(contents)
    if target.is_dir():
        return target
    layout.code.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{target.name}-{secrets.token_hex(4)}")
    try:
        for name, content in contents.items():
            copy = temporary / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
            if copy.suffix == ".py":
                # By content: a copy's times say nothing, and a compiled file that does not fit would be ignored.
                py_compile.compile(
                    str(copy), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
                )
        write_json(temporary / provenance.RECORD, provenance.of_code())
        temporary.replace(target)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        if not target.is_dir():  # else another sweep was quicker
            raise
    return target


def _digest(contents: dict[Path, bytes]) -> str:
    """The first 12 hex digits of the SHA-256 of the package's files and of what git says of them."""
    digest = hashlib.sha256(repr(sorted(provenance.of_code().items())).encode())
    for name, content in contents.items():
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:12]
