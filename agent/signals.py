"""Signals that ask a night to end: its process closes the ledger and goes, its job goes on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALED = 128
"""A shell reports a signal as so much more than its number."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, e.g. of `timeout` or of a machine that shuts down, or SIGHUP of a terminal that was closed.

    The night ends as by Ctrl-C.
    """

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def exit_code(signaled: KeyboardInterrupt) -> int:
    """As a shell reports the signal."""
    return SIGNALED + (signaled.number if isinstance(signaled, Terminated) else signal.SIGINT)


@contextmanager
def terminable() -> Iterator[None]:
    """Make SIGTERM and SIGHUP exceptions, once: `timeout` sends its signal twice, to the process and to its group.

    A SIGHUP that is ignored, e.g. by `nohup`, stays so.
    """

    def terminate(number: int, frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(number)

    heeded = (signal.SIGTERM, signal.SIGHUP)
    before = {number: old for number in heeded if (old := signal.getsignal(number)) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, terminate)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
