"""A disk that is full or may not be written, as one clear line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from hfagent.agent.errors import HfagentError, NoRoom

WRITES_FAIL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


@contextmanager
def needed(project: str) -> Iterator[None]:
    """Say which file could not be written, and how to go on, where a write fails that nobody else has explained.

    Raises:
        NoRoom: such a write failed.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, HfagentError) or error.errno not in WRITES_FAIL:
            raise
        where = f"cannot use {str(error.filename)!r}" if error.filename else "a file cannot be written"
        raise NoRoom(f"{where}: {error.strerror}; mend it, then `hfagent resume {project}`") from error
