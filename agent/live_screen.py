"""A part of a terminal that is drawn again and again, as often as that may cost."""

import threading
import time
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live

REFRESH_S = 1.0
"""Between two drawings, at least."""
SHARE = 0.005
"""Of a processor core that drawing may take: a long table is drawn less often."""


class LiveScreen:
    """Shows what `render` gives, and the lines that are printed meanwhile above it."""

    def __init__(self, console: Console, render: Callable[[], RenderableType]):
        self._live = Live(console=console, get_renderable=render, auto_refresh=False, transient=False)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Show it."""
        self._over.clear()
        self._live.start(refresh=True)
        self._thread = threading.Thread(target=self._draw, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Leave the last picture and give the terminal back."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._live.stop()

    def _draw(self) -> None:
        pause_s = REFRESH_S
        while not self._over.wait(pause_s):
            begun = time.thread_time()
            self._live.refresh()
            pause_s = max(REFRESH_S, (time.thread_time() - begun) / SHARE)
