"""The end of a log that another machine sends line by line, for a bounded time."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from hfagent.tools.hub_calls import NO_ANSWER, http_error


def last_lines(fetch: Callable[[], Iterable[str]], tail: int, *, wait_s: float) -> list[str]:
    """What has come after `wait_s`, or at the end of the log.

    Args:
        fetch: asks for the log; in a thread, since the client blocks for seconds while a running job is quiet.
        tail: number of lines that are kept.
        wait_s: the longest time.
    """
    lines: queue.Queue[str | None] = queue.Queue(maxsize=max(2 * tail, 100))
    over = threading.Event()

    def read() -> None:
        with suppress(queue.Full):  # nobody reads any more
            with suppress(http_error(), *NO_ANSWER):  # a log that breaks off is as long as it is
                for line in fetch():
                    lines.put(line, timeout=wait_s)
                    if over.is_set():
                        return
            lines.put(None, timeout=wait_s)

    threading.Thread(target=read, daemon=True).start()
    found: deque[str] = deque(maxlen=tail)
    deadline = time.monotonic() + wait_s
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            line = lines.get(timeout=left_s)
        except queue.Empty:
            break
        if line is None:
            break
        found.extend(part for part in line.splitlines() if part)
    over.set()
    return list(found)
