"""Other checkouts of the project, so that a process can run the package that one of them makes."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def environment_of(tree: Path) -> Iterator[dict[str, str]]:
    """The environment of a process that is to import the quadflow of a checkout, on one thread.

    The one package that the three folders make when they are installed is a folder of links; it is
    gone when the context ends.
    """
    tree = tree.resolve()
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "quadflow")
        package.mkdir()
        for entry in (*(tree / "quadflow").iterdir(), tree / "adapters", tree / "analysis"):
            (package / entry.name).symlink_to(entry)
        paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
        yield {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
