"""What a long export reports while it runs, and the bar that shows it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from tqdm import tqdm

# Called with (stage, done, total).
OnProgress = Callable[[str, int, int], None]


@contextlib.contextmanager
def progress_bar() -> Iterator[OnProgress]:
    """Yields a callback that draws a bar on stderr if that is a terminal."""
    # disable=None: only on a terminal. total=1 stands until the first call.
    with tqdm(disable=None, total=1, unit="", unit_scale=True, file=sys.stderr, leave=False) as bar:

        def on_progress(stage: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_description(stage, refresh=False)
            bar.update(done - bar.n)

        yield on_progress
