"""Whether a night can run on Hugging Face Jobs, asked before it begins: account, bucket, jobs, sources, metrics."""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from hfagent.agent.errors import AccountRefused, BackendAway, HfagentError, JobError, OutOfCredit, SettingsError
from hfagent.agent.hf_wiring import BUCKET, metrics_space
from hfagent.agent.planning import SET_HERE
from hfagent.agent.records import DatasetRef, ModelRef, Plan, Refusal
from hfagent.agent.redact import redact
from hfagent.agent.settings import Settings
from hfagent.tools import hf_rights, hub_hardware
from hfagent.tools.dataset_read import looks_local
from hfagent.tools.doctor import Check
from hfagent.tools.embedded_model import PREFIX
from hfagent.tools.hf_account import found_token
from hfagent.tools.hf_rights import broken, note, ok
from hfagent.tools.hub_calls import NOT_THE_HUB, api, ask, http_error, status_of

TRACKIO_TIMEOUT_S = 10.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
ALL = "`hfagent doctor --backend hf` shows everything"


class Finding(NamedTuple):
    """A check, and what a night ends with where it is broken."""

    check: Check
    error: type[HfagentError] = AccountRefused


class Wanted(NamedTuple):
    """What is asked about beside the account; None is not asked about."""

    flavor: str | None
    model: ModelRef | None
    dataset: DatasetRef | None
    teacher: ModelRef | None = None


def examine(
    settings: Settings, *, model: str | None = None, dataset: str | None = None, client: Any = None
) -> list[Check]:
    """All checks, in the order in which a night meets them; the bucket of the jobs is made where it is missing.

    Args:
        settings: whose account, which flavor, where the metrics go.
        model: a Hub id, a folder or an embedded one.
        dataset: likewise.
        client: a `huggingface_hub.HfApi` in place of the account's own.
    """
    wanted = Wanted(
        settings.flavor,
        None if model is None else ModelRef(id=model),
        None if dataset is None else DatasetRef(id=dataset),
    )
    return [finding.check for finding in findings(settings, wanted, client=client)]


def require(settings: Settings, plan: Plan, *, client: Any = None) -> None:
    """Refuse a night that could not end.

    Raises:
        SettingsError: a setting, a variable or the plan's sources.
        AccountRefused: the account may not, or cannot pay.
        BackendAway: the Hub does not answer.
    """
    for check, error in findings(settings, Wanted(plan.flavor, plan.model, plan.dataset, plan.teacher), client=client):
        if check.status == "broken":
            mend = f"; {check.mend}" if check.mend else ""
            raise error(f"jobs on hf cannot run: {check.name}: {check.detail}{mend}; {ALL}")


def findings(settings: Settings, wanted: Wanted, *, client: Any = None) -> Iterator[Finding]:
    """The checks, each asked when it is wanted; those that need an account end where there is none."""
    if offline := _offline():
        yield offline
        return
    token = found_token(settings)
    if unusable := _unusable(token):
        yield unusable
        return
    client = client or api(None, token)
    who = _answer("token", lambda: _named(client.whoami()))
    if isinstance(who, Finding):
        yield who
        return
    namespace = settings.namespace or who["name"]
    of_account = [
        Finding(hf_rights.token_check(who, namespace)),
        Finding(hf_rights.namespace_check(who, namespace), SettingsError),
        Finding(hf_rights.payment_check(who, namespace), OutOfCredit),
    ]
    yield from of_account
    if all(found.check.status != "broken" for found in of_account[:2]):  # else it is refused for the same reason
        yield _bucket(client, f"{namespace}/{BUCKET}")
        yield _jobs(client, namespace)
    yield _hardware(client, wanted.flavor)
    if wanted.model is not None:
        yield _source(client, "model", wanted.model)
    if wanted.teacher is not None:
        yield _source(client, "model", wanted.teacher)
    if wanted.dataset is not None:
        yield _source(client, "dataset", wanted.dataset)
    space = metrics_space(settings, namespace)
    yield _server(str(settings.trackio_server_url)) if space is None else _space(client, who, space)


# --- each check ------------------------------------------------------------------------------------------------------


def _offline() -> Finding | None:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() not in ("1", "true", "yes", "on"):
        return None
    if os.environ.get(SET_HERE):
        return _broken("hub", "the Hub does not answer", hf_rights.mend_of(None), BackendAway)
    return _broken("hub", "HF_HUB_OFFLINE is set, and jobs on hf need the Hub", "unset HF_HUB_OFFLINE", SettingsError)


def _unusable(token: str | None) -> Finding | None:
    if token is None:
        return _broken("token", "none", hf_rights.LOG_IN, SettingsError)
    if not token.isascii() or not token.isprintable() or " " in token:
        # The client's error would hold the token.
        detail = "it holds blanks, line breaks or letters that no token has"
        return _broken("token", detail, "set HF_TOKEN to one token alone", SettingsError)
    return None


def _named(who: Any) -> hf_rights.Who:
    """The answer to whoami, if it is one."""
    return {**who, "name": str(who["name"])}


def _bucket(client: Any, bucket: str) -> Finding:
    from huggingface_hub import get_session, hf_raise_for_status

    def made() -> Any:
        client.create_bucket(bucket, private=True, exist_ok=True)
        # What an upload begins with: to a bucket that another member of the organization made, not all may write.
        url = f"{client.endpoint}/api/buckets/{bucket}/xet-write-token"
        hf_raise_for_status(get_session().get(url, headers={"Authorization": f"Bearer {client.token}"}))
        return client.bucket_info(bucket)

    info = _answer("bucket", made)
    if isinstance(info, Finding):
        return info
    if not info.private:
        mend = f"make it private at {hf_rights.HUB}/buckets/{bucket}/settings, or delete it: the next job makes it anew"
        detail = f"{bucket} is public: everybody would read the data that jobs are given and what they leave"
        return _broken("bucket", detail, mend, SettingsError)
    return Finding(ok("bucket", f"{bucket}, private, may be written"))


def _jobs(client: Any, namespace: str) -> Finding:
    newest = _answer("jobs", lambda: list(islice(client.list_jobs(namespace=namespace), 1)))
    if isinstance(newest, Finding):
        return newest
    return Finding(ok("jobs", f"the Hub lists those of {namespace}"))


def _hardware(client: Any, flavor: str | None) -> Finding:
    listed = _answer("hardware", lambda: list(client.list_jobs_hardware()))
    if isinstance(listed, Finding):
        return listed
    table = hub_hardware.listed_table(listed)
    if table is None:
        detail = f"none of the {len(listed)} flavors that the Hub lists could be read"
        return _broken("hardware", detail, "update hfagent", JobError)
    if flavor is None:
        return Finding(ok("hardware", f"{len(table.flavors)} flavors; the plan chooses one"))
    found = table.named(flavor)
    if isinstance(found, Refusal):
        return _broken("hardware", found.why, "choose one with --flavor", SettingsError)
    prices = ", ".join(f"{item.name} at ${item.price_micro_usd_per_hour / 1e6:.2f} an hour" for item in found)
    return Finding(ok("hardware", prices))


def _source(client: Any, kind: str, ref: ModelRef | DatasetRef) -> Finding:
    if ref.id.startswith(PREFIX) or looks_local(ref.id) or Path(ref.id).expanduser().exists():
        return _local(kind, ref)
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    revision = ref.revision if isinstance(ref, ModelRef) else None

    def readable() -> Any:
        info = client.repo_info(ref.id, repo_type=kind, revision=revision)
        if info.gated:
            client.auth_check(ref.id, repo_type=kind)
        return info

    page = hf_rights.page_of(kind, ref.id)
    try:
        info = ask(readable)
    except HFValidationError as error:
        return _broken(kind, f"{ref.id!r} is no Hub id: {error}", f"name another with --{kind}", SettingsError)
    except JobError as error:
        if isinstance(error.__cause__, GatedRepoError):
            mend = f"ask for access at {page}; a fine-grained token needs the right to read gated repos, too"
            return _broken(kind, f"{ref.id} is gated, and this account has no access", mend, AccountRefused)
        if isinstance(error.__cause__, RevisionNotFoundError):
            return _broken(kind, f"{ref.id} has no revision {revision!r}", f"see {page}", SettingsError)
        if isinstance(error.__cause__, RepositoryNotFoundError):
            mend = f"see {page}; name another with --{kind}"
            return _broken(kind, f"{ref.id} is not on the Hub, or private and not this token's", mend, SettingsError)
        return _refused(kind, error)
    tags = [str(tag) for tag in info.tags or ()]
    licences = [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
    return Finding(hf_rights.repo_check(kind, ref.id, licences=licences, gated=bool(info.gated)))


def _local(kind: str, ref: ModelRef | DatasetRef) -> Finding:
    from hfagent.tools.sources import require_dataset, require_model

    try:
        if isinstance(ref, ModelRef):
            require_model(ref, hub=True)
        else:
            require_dataset(ref, hub=True)
    except HfagentError as error:
        return _broken(kind, str(error), f"name another with --{kind}", SettingsError)
    return Finding(ok(kind, f"{ref.id}, which goes to the bucket"))


def _server(url: str) -> Finding:
    from huggingface_hub import get_session

    shown = url.split("?")[0]
    if "write_token=" in url:
        detail = f"the url of {shown} holds its write token, which plans and reports would show"
        return _broken("metrics", detail, "leave it out, and set TRACKIO_WRITE_TOKEN", SettingsError)
    if not os.environ.get("TRACKIO_WRITE_TOKEN"):
        detail = f"jobs may not write to {shown} without a token, and Trackio would end them"
        return _broken("metrics", detail, "set TRACKIO_WRITE_TOKEN to what the server says at its start", SettingsError)
    try:
        answer = get_session().get(f"{shown.rstrip('/')}/version", timeout=TRACKIO_TIMEOUT_S)
        answer.raise_for_status()
        version = answer.json().get("version")
    except (http_error(), ValueError, AttributeError) as error:
        mend = "start it with `trackio show --host 0.0.0.0`; until then metrics are read from the jobs' logs"
        return Finding(note("metrics", f"{shown} is no Trackio server that answers ({type(error).__name__})", mend))
    if urlsplit(url).hostname in LOOPBACK:
        mend = "set HFAGENT_TRACKIO_SERVER_URL to an address that is reached from outside, or unset it for a Space"
        return Finding(note("metrics", f"{shown} is this machine: jobs elsewhere do not reach it", mend))
    return Finding(ok("metrics", f"Trackio {version} at {shown}"))


def _space(client: Any, who: hf_rights.Who, space: str) -> Finding:
    from huggingface_hub.errors import RepositoryNotFoundError

    owner = hf_rights.namespace_check(who, space.split("/")[0])
    if owner.status == "broken":
        mend = "set HFAGENT_TRACKIO_SPACE to a Space of your own, or leave it out"
        return _broken("metrics", f"the Space {space}: {owner.detail}", mend, SettingsError)
    try:
        info = ask(lambda: client.space_info(space))
    except JobError as error:
        if isinstance(error.__cause__, RepositoryNotFoundError):
            return Finding(note("metrics", f"the Space {space} does not exist yet: the first job makes it, private"))
        return _refused("metrics", error)
    page = f"{hf_rights.HUB}/spaces/{space}"
    stage = str(info.runtime.stage) if info.runtime is not None else "unknown"
    if not info.private:
        mend = f"make it private at {page}/settings"
        return Finding(note("metrics", f"the Space {space} is public: everybody sees the metrics", mend))
    if stage not in ("RUNNING", "SLEEPING", "BUILDING", "APP_STARTING", "RUNNING_BUILDING", "RUNNING_APP_STARTING"):
        mend = f"restart it at {page}; until then metrics are read from the jobs' logs"
        return Finding(note("metrics", f"the Space {space} is {stage}", mend))
    return Finding(ok("metrics", f"the Space {space}, private, {stage}"))


# --- inside ----------------------------------------------------------------------------------------------------------


def _answer(name: str, call: Callable[[], Any]) -> Any:
    """The Hub's answer, or the finding that it refuses."""
    try:
        return ask(call)
    except JobError as error:
        return _refused(name, error)
    except (ValueError, TypeError) as error:
        detail = f"{NOT_THE_HUB} ({type(error).__name__})"
        return _broken(name, detail, "check HF_ENDPOINT and proxies", BackendAway)


def _refused(name: str, error: JobError) -> Finding:
    status = status_of(error.__cause__) if error.__cause__ is not None else None
    return _broken(name, redact(str(error)), hf_rights.mend_of(status), type(error))


def _broken(name: str, detail: str, mend: str, error: type[HfagentError]) -> Finding:
    return Finding(broken(name, detail, mend), error)
