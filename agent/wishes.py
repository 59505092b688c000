"""What a person wants of a night, folded from the ledger. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hfagent.agent.planner_facts import ApprovalAsked, Approved, Paused, Unpaused, Vetoed

Wish = Paused | Unpaused | ApprovalAsked | Approved | Vetoed


@dataclass(frozen=True)
class Wishes:
    """The wishes that count now."""

    paused: str | None = None
    """Why nothing is launched; None while it is."""
    asked: frozenset[str] = frozenset()
    """Training runs whose approval was asked for."""
    approved: frozenset[str] = frozenset()
    vetoed: Mapping[str, str] = field(default_factory=dict)
    """Training runs to which the answer was no, and why."""

    @property
    def waiting(self) -> list[str]:
        """Training runs whose approval was asked for and not given yet."""
        return sorted(self.asked - self.approved - self.vetoed.keys())

    def after(self, wish: Wish) -> "Wishes":
        """The wishes once another one was heard."""
        match wish:
            case Paused(why=why):
                return replace(self, paused=why)
            case Unpaused():
                return replace(self, paused=None)
            case ApprovalAsked(run=name):
                return replace(self, asked=self.asked | {name})
            case Approved(run=name):
                return replace(self, approved=self.approved | {name})
            case Vetoed(run=name, why=why):
                return replace(self, vetoed={**self.vetoed, name: why})
