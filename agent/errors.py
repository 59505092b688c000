"""Everything hfagent raises on purpose.

HfagentError
├── UsageError        (ValueError)    the person's input; the message says what to do; exit 2
│   ├── SettingsError                 a flag, a variable or hfagent.toml
│   ├── GoalUnclear                   a sentence that does not say what to work on
│   ├── PlanRejected                  a goal or a combination that cannot be run
│   └── DatasetError                  a dataset that cannot be read or does not fit
├── LedgerError       (OSError)       the ledger cannot be read or written
│   └── LedgerDamaged                 a line of it is not what was written
├── JobError          (RuntimeError)  a job could not be submitted or inspected
│   ├── NoRoom                        a disk is full or read-only: nothing was started, and a person makes room
│   ├── BackendAway                   the place where jobs run does not answer: nobody knows, and it may answer later
│   │   └── NothingSent               likewise, but it is known that nothing was started
│   └── AccountRefused                the account may not: only a person can mend it
│       └── OutOfCredit               no money is left in the account; exit 3
├── EvaluationError   (RuntimeError)  an evaluation gave no usable scores
├── PackageMissing    (ImportError)   an optional package is needed; the message names the pip command
├── ModelError        (RuntimeError)  a model could not be fetched, converted or loaded
│   └── ModelNotFound                 (UsageError too) no model where its name says; exit 2
├── PlannerAway       (RuntimeError)  the model that plans does not answer; the rules plan meanwhile
└── ReportError       (OSError)       the report could not be written; the ledger is whole

A refusal by policy is not an error: it is a `Refusal` value, so that no planner is told to try again.
"""


class HfagentError(Exception):
    """Base of all errors raised on purpose: the text is complete and needs no traceback."""

    exit_code = 1


class UsageError(HfagentError, ValueError):
    """The person's input cannot be used."""

    exit_code = 2


class SettingsError(UsageError):
    """A flag, an environment variable or `hfagent.toml` holds a value that cannot be used."""


class GoalUnclear(UsageError):
    """A sentence that does not say what to work on."""


class PlanRejected(UsageError):
    """A goal that cannot be turned into a plan."""


class DatasetError(UsageError):
    """A dataset that cannot be found, read or used for the method."""


class LedgerError(HfagentError, OSError):
    """The ledger is damaged, or cannot be read or written."""


class LedgerDamaged(LedgerError):
    """A line of the ledger is not what was written: nothing is built on it."""

    def __init__(self, path: str, line: int, why: str):
        super().__init__(
            f"line {line} of the ledger {path!r} is damaged: {why}. Nothing was changed: put a copy of the file from "
            "before back and check it with `hfagent verify`, or begin a new project"
        )
        self.line = line
        self.why = why


class JobError(HfagentError, RuntimeError):
    """A job could not be submitted, found or inspected."""


class NoRoom(JobError):
    """A disk is full, or may not be written: nothing was started, and the project goes on once there is room."""


class BackendAway(JobError):
    """The place where jobs run does not answer: what became of a request is not known yet."""


class NothingSent(BackendAway):
    """The place where jobs run is away, and was before anything was asked of it: nothing was started."""


class AccountRefused(JobError):
    """The account may not do this, whatever is tried: a token, a right or an access must be mended by a person."""


class OutOfCredit(AccountRefused):
    """No money is left in the account."""

    exit_code = 3


class EvaluationError(HfagentError, RuntimeError):
    """An evaluation ended without usable scores."""


class PackageMissing(HfagentError, ImportError):
    """A package of an extra is needed and is not installed."""

    exit_code = 2


class ModelError(HfagentError, RuntimeError):
    """A model could not be fetched, converted or loaded."""


class ModelNotFound(ModelError, UsageError):
    """The person named a model that is not there."""


class PlannerAway(HfagentError, RuntimeError):
    """The model that plans does not answer, cannot be paid, or goes in circles."""


class ReportError(HfagentError, OSError):
    """The report could not be written. The ledger is whole, so it can be rendered again."""
