"""What is left to spend, and whether a step fits in. Pure."""

from pydantic import Field

from hfagent.agent.records import Record


class Remaining(Record):
    """What is left to spend. None is no limit."""

    seconds: float | None = None
    micro_usd: int | None = None
    gpu_s: float | None = None
    reserve_s: float = Field(default=0, ge=0)
    """Kept back for the jobs that must still follow, the confirming ones among them."""
    reserve_micro_usd: int = Field(default=0, ge=0)
    reserve_gpu_s: float = Field(default=0, ge=0)
    gpus: int = Field(default=1, ge=1)
    """Of a job."""

    def short_of(self, *, seconds: float = 0.0, micro_usd: int = 0) -> str | None:
        """What is missing for a step that must leave the reserve untouched; None when there is enough."""
        needed_s, needed = seconds + self.reserve_s, micro_usd + self.reserve_micro_usd
        if self.seconds is not None and needed_s > self.seconds:
            kept = f", {self.reserve_s:.0f} s of them for what follows" if self.reserve_s else ""
            return f"about {needed_s:.0f} s needed{kept}, {max(self.seconds, 0):.0f} s left of the time limit"
        if self.micro_usd is not None and needed > self.micro_usd:
            kept = f", ${self.reserve_micro_usd / 1e6:.2f} of it for what follows" if self.reserve_micro_usd else ""
            return f"about ${needed / 1e6:.2f} needed{kept}, ${max(self.micro_usd, 0) / 1e6:.2f} left of the budget"
        needed_gpu_s = self.gpus * seconds + self.reserve_gpu_s
        if self.gpu_s is not None and needed_gpu_s > self.gpu_s:
            kept = f", {self.reserve_gpu_s / 3600:.2f} of them for what follows" if self.reserve_gpu_s else ""
            return f"about {needed_gpu_s / 3600:.2f} GPU hours needed{kept}, {max(self.gpu_s, 0) / 3600:.2f} left"
        return None
