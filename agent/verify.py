"""`hfagent verify`: whether a ledger is what was written into it."""

import json

from hfagent.agent.chain import Chain
from hfagent.agent.errors import LedgerDamaged
from hfagent.agent.ledger import is_held, read_chain
from hfagent.agent.settings import Settings
from hfagent.agent.wiring import find_project


def verify(project: str | None, settings: Settings, *, as_json: bool) -> int:
    """Check the whole chain and name the first line that is altered, missing or out of place; 1 where there is one."""
    paths = find_project(settings.reports_dir, project)
    told: dict[str, object] = {"project": paths.project, "ledger": str(paths.ledger)}
    try:
        found = read_chain(paths.ledger)
    except LedgerDamaged as error:
        told |= {"whole": False, "line": error.line, "why": error.why}
        text = str(error)
    else:
        told |= {
            "whole": True, "lines": len(found.events), "unlinked": found.unlinked, "torn_bytes": len(found.torn),
            "head": found.head,
        }  # fmt: skip
        text = _text(paths.project, found, held=is_held(paths.ledger))
    print(json.dumps(told) if as_json else text)  # noqa: T201 - the result
    return int(not told["whole"])


def _text(project: str, found: Chain, *, held: bool) -> str:
    said = [f"{project}: {len(found.events)} lines, whole and in order; the last has the hash {found.head}"]
    if found.unlinked:
        said.append(f"lines 1 to {found.unlinked} are of a version that wrote no hashes: only their order is checked")
    if found.torn and not held:
        size = len(found.torn)
        said.append(f"after them {size} bytes of a line that was never whole: `hfagent resume {project}` puts it aside")
    return "\n".join(said)
