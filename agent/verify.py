"""`hfagent verify`: whether a ledger is what was written into it."""

import json
import re

from hfagent.agent.chain import HASH_CHARS, Chain
from hfagent.agent.errors import LedgerDamaged, UsageError
from hfagent.agent.ledger import is_held, read_chain
from hfagent.agent.report import head_in
from hfagent.agent.settings import Settings
from hfagent.agent.wiring import Paths, find_project


def verify(project: str | None, settings: Settings, *, head: str | None = None, as_json: bool) -> int:
    """Check the whole chain, and that it goes at least as far as it once did.

    Args:
        project: its name; None is the one written last.
        settings: where the ledgers are.
        head: a hash that `verify` or a report told earlier; the report beside the ledger is asked anyway.
        as_json: whether a program reads what is printed.

    Returns:
        0, or 1 where a line is altered, missing or out of place: the first one is named.

    Raises:
        UsageError: no such project, or the head is no hash.
    """
    if head is not None and not re.fullmatch(f"[0-9a-f]{{{HASH_CHARS}}}", head):
        raise UsageError(f"--head is {head!r}: give the {HASH_CHARS} digits that a report or an earlier verify told")
    paths = find_project(settings.reports_dir, project)
    told: dict[str, object] = {"project": paths.project, "ledger": str(paths.ledger)}
    try:
        found, known = _checked(paths, head)
    except LedgerDamaged as error:
        told |= {"whole": False, "line": error.line, "why": error.why}
        text = str(error)
    else:
        told |= {
            "whole": True, "lines": len(found.events), "unlinked": found.unlinked, "torn_bytes": len(found.torn),
            "head": found.head, "known_lines": known,
        }  # fmt: skip
        text = _text(paths.project, found, known, held=is_held(paths.ledger))
    print(json.dumps(told) if as_json else text)  # noqa: T201 - the result
    return int(not told["whole"])


def _checked(paths: Paths, head: str | None) -> tuple[Chain, int | None]:
    """The chain, and how many of its lines something outside it vouches for; None for none.

    Raises:
        LedgerDamaged: it is not what was written.
    """
    rendered = head_in(paths.report)  # before the ledger, which goes on meanwhile
    found = read_chain(paths.ledger)
    known = None if rendered is None else rendered.lines
    if rendered is not None and (why := found.strays_from(rendered)) is not None:
        line = min(len(found.hashes) + 1, rendered.lines)
        raise LedgerDamaged(str(paths.ledger), line, f"by the report {paths.report.name!r} {why}")
    if head is not None:
        if head not in found.hashes:
            why = f"no line has the hash {head}: lines were cut off its end, or it was written anew"
            raise LedgerDamaged(str(paths.ledger), len(found.hashes) + 1, why)
        known = max(known or 0, found.hashes.index(head) + 1)
    return found, known


def _text(project: str, found: Chain, known: int | None, *, held: bool) -> str:
    said = [f"{project}: {len(found.events)} lines, whole and in order; the last has the hash {found.head}"]
    if known is None:
        said.append("no report tells how far it went: lines cut off its end would not be noticed")
    if found.unlinked:
        said.append(f"lines 1 to {found.unlinked} are of a version that wrote no hashes: only their order is checked")
    if found.torn and not held:
        size = len(found.torn)
        said.append(f"after them {size} bytes of a line that was never whole: `hfagent resume {project}` puts it aside")
    return "\n".join(said)
