"""How the rows of an optimizer step are divided into passes through the model: by length, so that little is padding."""

from collections.abc import Sequence


def divide(lengths: Sequence[int], *, most_tokens: int, pass_tokens: int) -> list[list[int]]:
    """The rows of each pass, by their indices, longest rows first: of all divisions the one that takes the least time.

    A pass takes the time of its tokens, padding included, and of `pass_tokens` more.

    Args:
        lengths: tokens of each row.
        most_tokens: padding included, that one pass has memory for; a longer row is passed alone.
        pass_tokens: what a pass costs besides.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    cost = [0] * (len(order) + 1)  # of the rows from there on
    size = [0] * len(order)  # of the pass that begins there
    for first in reversed(range(len(order))):
        longest = max(lengths[order[first]], 1)
        most = min(max(most_tokens // longest, 1), len(order) - first)
        cost[first], size[first] = min(
            (pass_tokens + rows * longest + cost[first + rows], rows) for rows in range(1, most + 1)
        )
    passes, first = [], 0
    while first < len(order):
        passes.append(order[first : first + size[first]])
        first += size[first]
    return passes
