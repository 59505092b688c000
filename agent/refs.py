"""What a plan works with: a base model, a dataset, a benchmark."""

from typing import Literal

from pydantic import Field

from hfagent.agent.record import Record

ProblemSet = Literal["search", "confirm"]


class ModelRef(Record):
    """A base model: a Hub id, a local folder, or an embedded one."""

    id: str
    """`org/name`, a path, or `embedded:<name>`."""
    revision: str | None = None
    parameters: int | None = None
    """Number of weights; None while unknown."""


class DatasetRef(Record):
    """A dataset: a Hub id, a local file or folder, or an embedded one."""

    id: str
    """`org/name`, a path, or `embedded:<name>`."""
    config: str | None = None
    split: str = "train"

    @property
    def embedded(self) -> bool:
        """Whether it is written here: then it is one file, and its config is in the file's name."""
        return self.id.startswith("embedded:")

    def prepared(self, path: str) -> "DatasetRef":
        """The dataset where it can be read."""
        return DatasetRef(id=path) if self.embedded else self.model_copy(update={"id": path})


class BenchmarkRef(Record):
    """Problems to be solved: a benchmark's name, which set of it, and how many."""

    name: str
    set: ProblemSet
    n: int | None = Field(default=None, ge=1)
    """Problems drawn; None means all of them."""
    seed: int = 0
    """Seed of a procedural benchmark's draw; ignored by a fixed one."""
    revision: str | None = None
    """Commit of the Hub dataset that the problems are rows of, or hash of the person's own file; None without."""
    path: str | None = None
    """The person's own file of problems; None for a benchmark that is known by its name."""
