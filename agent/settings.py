"""How hfagent runs here: flag > HFAGENT_* variable > hfagent.toml > default, merged once and passed down."""

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError

from hfagent.agent.errors import SettingsError
from hfagent.agent.records import Record

FILE = "hfagent.toml"
PREFIX = "HFAGENT_"
SECRETS = {"hf_token": "HF_TOKEN", "openai_api_key": "OPENAI_API_KEY", "notify": "HFAGENT_NOTIFY"}
ALIASES = {"OPENAI_BASE_URL": "openai_base_url"}
"""Variables by the names that other programs use, too."""
"""Settings that come from these variables alone: a flag is seen by `ps`, a file by git."""


Backend = Literal["local", "hf", "slurm", "ray"]


class Settings(Record):
    """Made by `load`; never changed afterwards."""

    backend: Backend = "local"
    """Where jobs run: on this machine, as Hugging Face Jobs, or on a cluster of one's own."""
    flavor: str | None = Field(default=None, min_length=1)
    """Hardware of a job; None lets the backend choose."""
    namespace: str | None = Field(default=None, pattern=r"^[\w.-]+$")
    """User or organization that jobs on hf belong to and are billed to; None is the token's own."""
    trackio_space: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    """Space that shows the metrics of jobs on hf, `user/name`."""
    trackio_server_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """A Trackio server of one's own that jobs on hf send their metrics to instead of a Space."""
    budget_usd: float | None = Field(default=None, ge=0)
    """Cap over the whole project. None is no cap, right for local jobs, which cost nothing; jobs on hf need one."""
    max_hours: float | None = Field(default=None, gt=0)
    """Time for the whole project; None is no limit."""
    max_gpu_hours: float | None = Field(default=None, gt=0)
    """Hours of all jobs of the project together, each times its GPUs; a job without one counts as one. None is no
    limit."""
    max_planner_tokens: int | None = Field(default=None, ge=0)
    """Tokens that the planner's model may read and write in the whole project; the rules plan when they are used."""
    max_trials: int | None = Field(default=None, ge=1)
    """Sets of hyperparameters to try; None takes 1 for the embedded model and `plan.DEFAULT_TRIALS` elsewhere."""
    max_jobs: int = Field(default=1, ge=1, le=64)
    """Jobs at a time while sets of hyperparameters are tried; more than 1 where jobs run elsewhere."""
    target_points: float | None = Field(default=None, gt=0, le=100)
    """Gain on the search set, in points, at which the search ends."""
    contaminated_rows: Literal["drop", "refuse"] = "drop"
    """What becomes of training rows that hold benchmark problems."""
    approve_runs: bool = False
    """Each training run waits for a person's yes: `/approve` in the chat."""
    planner: str = Field(default="rules", min_length=1)
    """`rules`, `openai:<model>`, `hf:<model>`, or the base url of an OpenAI-compatible endpoint."""
    openai_base_url: str | None = Field(default=None, min_length=1)
    """Endpoint of `openai:<model>` where it is another one; also read from OPENAI_BASE_URL."""
    planner_timeout_s: float = Field(default=120.0, gt=0)
    """For one answer of the planner's model."""
    planner_outage_s: float = Field(default=900.0, ge=0)
    """So long the planner's model is waited for before the rules plan in its place."""
    planner_max_tokens: int = Field(default=1024, ge=64)
    """Of one answer of the planner's model, its reasoning included."""
    planner_price_in: float | None = Field(default=None, ge=0)
    planner_price_out: float | None = Field(default=None, ge=0)
    """Dollars for a million tokens of the planner's model, read and written."""
    reports_dir: Path = Path("training_reports")
    """Ledgers and reports, from the working directory."""
    state_dir: Path = Path(".hfagent")
    """Files of local jobs, from the working directory."""
    cache_dir: Path = Path("~/.cache/hfagent")
    """Converted models; may be deleted at any time."""
    looks_file: Path = Path("~/.local/state/hfagent/looks.jsonl")
    """Counts the looks at confirm sets over all projects; deleting it would let a seen set count as fresh."""
    unsafe_exec: bool = False
    """Run generated code without a sandbox where none works."""
    seed: int = Field(default=0, ge=0)
    poll_s: float | None = Field(default=None, gt=0)
    """Seconds between two looks at a running job; None takes what suits the backend."""
    cluster_gpu: bool | None = None
    """Whether jobs on a cluster get a GPU; None asks Slurm, and is no on Ray."""
    cluster_cpus: int | None = Field(default=None, ge=1)
    """Cores of a job on a cluster; None takes the cluster's default."""
    cluster_usd_per_gpu_hour: float | None = Field(default=None, ge=0)
    """What a GPU of the cluster costs; None counts its jobs as free."""
    slurm_partition: str | None = Field(default=None, min_length=1)
    slurm_account: str | None = Field(default=None, min_length=1)
    slurm_qos: str | None = Field(default=None, min_length=1)
    slurm_gres: str | None = Field(default=None, min_length=1)
    """As sbatch takes them; None leaves each to Slurm, but for a `gpu:1` where there are GPUs."""
    slurm_options: str = ""
    """More options of sbatch, as in a shell, e.g. `--mem=32G --constraint=a100`."""
    ray_address: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """Of Ray's dashboard; None is http://127.0.0.1:8265."""
    settle_s: float = Field(default=60.0, ge=0)
    """Jobs elsewhere: seconds after which a request without an answer has become a job, or never will."""
    job_mount: str = Field(default="/hfagent", pattern=r"^/\S+$")
    """Jobs on hf: where they see their bucket."""
    confirm_yes: bool = False
    """Start without asking."""
    hf_token: SecretStr | None = Field(default=None, repr=False)
    openai_api_key: SecretStr | None = Field(default=None, repr=False)
    notify: SecretStr | None = Field(default=None, repr=False)
    """Addresses by apprise's URLs, separated by spaces, that are told of what needs a person; see `notify`."""

    @property
    def look_s(self) -> float:
        """Seconds between two looks at a running job: each is a request where jobs run elsewhere."""
        return self.poll_s or (2.0 if self.backend == "local" else 15.0)

    @property
    def budget_micro_usd(self) -> int | None:
        """The cap as records count money."""
        return None if self.budget_usd is None else round(self.budget_usd * 1_000_000)


def load(flags: Mapping[str, Any], *, cwd: Path, env: Mapping[str, str]) -> Settings:
    """Merge all sources.

    Args:
        flags: field -> value of the command line; None is a flag that was not given.
        cwd: where `hfagent.toml` is looked for and where relative folders start.
        env: environment variables; an empty one counts as unset.

    Raises:
        SettingsError: a file that cannot be read, an unknown key, or a value that is not allowed.
    """
    path = cwd / FILE
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, value in _read(path).items():
        _refuse_unknown(name, where=str(path))
        values[name], sources[name] = value, f"{name} in {path}"
    for variable, value in env.items():
        field = _field_of(variable)
        if field is not None and value:
            values[field], sources[field] = value, variable
    for name, value in flags.items():
        if value is not None:
            flag = "--" + name.replace("_", "-")
            _refuse_unknown(name, where=flag)
            values[name], sources[name] = value, flag
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(problem, sources) for problem in error.errors())) from None
    places = ("reports_dir", "state_dir", "cache_dir", "looks_file")
    return settings.model_copy(update={name: cwd / getattr(settings, name).expanduser() for name in places})


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f'{path} is not valid TOML: {error}; write lines such as backend = "local"') from error
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror or error}; make it readable or remove it"
        ) from error


def _field_of(variable: str) -> str | None:
    """The field that a variable sets; None for a variable of somebody else.

    Raises:
        SettingsError: it looks like a misspelt one, which must not silently lift e.g. the budget.
    """
    for name, secret in SECRETS.items():
        if variable == secret:
            return name
    if variable in ALIASES:
        return ALIASES[variable]
    name = variable.removeprefix(PREFIX).lower()
    if not variable.startswith(PREFIX) or (name not in Settings.model_fields and not _similar(name)):
        return None
    _refuse_unknown(name, where=variable)
    return name


def _refuse_unknown(name: str, *, where: str) -> None:
    if name in SECRETS:
        raise SettingsError(f"{name} is a secret and not read from {where}: set the variable {SECRETS[name]}")
    if name not in Settings.model_fields:
        known = ", ".join(field for field in Settings.model_fields if field not in SECRETS)
        hint = f"did you mean {_similar(name)!r}? " if _similar(name) else ""
        raise SettingsError(f"unknown setting {name!r} ({where}): {hint}the settings are {known}")


def _similar(name: str) -> str | None:
    known = [field for field in Settings.model_fields if field not in SECRETS]
    return next(iter(get_close_matches(name, known, n=1)), None)


def _explain(problem: Any, sources: Mapping[str, str]) -> str:
    """One pydantic error as: where the value comes from, the value, what is allowed."""
    name, value = str(problem["loc"][0]), problem["input"]
    shown = "a value" if name in SECRETS else repr(value)
    allowed = problem["msg"][0].lower() + problem["msg"][1:]
    text = f"{sources[name]} is {shown}: {allowed}"
    expected = problem.get("ctx", {}).get("expected", "")
    guesses = get_close_matches(str(value), expected.replace("'", "").replace(" or ", ", ").split(", "), n=1)
    return f"{text}; did you mean {guesses[0]!r}?" if guesses and problem["type"] == "literal_error" else text
