"""What an account may do and pay, by the Hub's answer to whoami; and what to do about each refusal. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from hfagent.tools.doctor import Check

Who = Mapping[str, Any]
"""The answer of /api/whoami-v2."""
NEEDED = ("repo.write", "job.write")
"""Permissions of a fine-grained token: the bucket, the Space and what is published; jobs."""
WRITERS = frozenset({"admin", "write", "contributor"})
"""Roles in an organization that may make repos in it."""
HUB = "https://huggingface.co"
LOG_IN = f"create a token with the role write at {HUB}/settings/tokens and set HF_TOKEN, or run `hf auth login`"
BILLING = f"add a payment method or credit at {HUB}/settings/billing, or subscribe to Pro at {HUB}/pro"


def ok(name: str, detail: str) -> Check:
    """As it should be."""
    return Check(name=name, status="ok", detail=detail)


def note(name: str, detail: str, mend: str | None = None) -> Check:
    """To be known; no reason not to begin."""
    return Check(name=name, status="note", detail=detail, mend=mend)


def broken(name: str, detail: str, mend: str) -> Check:
    """A night would not end."""
    return Check(name=name, status="broken", detail=detail, mend=mend)


def token_check(who: Who, namespace: str) -> Check:
    """Whether the token may write and run jobs."""
    role = _access(who).get("role")
    said = f"{who['name']}, role {role or 'unknown'}"
    if role == "read":
        return broken("token", f"{said}: it can neither write nor run jobs", LOG_IN)
    if role == "write":
        return ok("token", said)
    granted = permissions(who, namespace) if role == "fineGrained" else None
    if granted is None:
        return note("token", f"{said}: the Hub does not tell what it may do", "where jobs are refused, " + LOG_IN)
    missing = [needed for needed in NEEDED if needed not in granted]
    if missing:
        return broken(
            "token",
            f"{said}: in {namespace} it lacks {' and '.join(missing)}",
            f"add them at {HUB}/settings/tokens, or create one that has them at {fine_grained_url(who, namespace)}",
        )
    return ok("token", f"{said}, with {' and '.join(NEEDED)} in {namespace}")


def namespace_check(who: Who, namespace: str) -> Check:
    """Whether jobs and repos may belong to the namespace."""
    if namespace == who["name"]:
        return ok("namespace", f"{namespace}, the token's own")
    org = _org(who, namespace)
    if org is None and set(NEEDED) <= (permissions(who, namespace) or set()):
        return ok("namespace", f"{namespace}, by the token's permissions")
    others = ", ".join([who["name"], *(str(item["name"]) for item in _orgs(who) if item.get("roleInOrg") in WRITERS)])
    another = f"set HFAGENT_NAMESPACE to one of: {others}"
    if org is None:
        mend = f"{another}; an organization must be allowed to the token at {HUB}/settings/tokens"
        return broken("namespace", f"{namespace!r} is neither {who['name']!r} nor an organization of the token", mend)
    role = org.get("roleInOrg")
    if role is None:
        return note("namespace", f"{namespace}, an organization; the role in it is not told")
    if role not in WRITERS:
        mend = f"ask an admin at {HUB}/organizations/{namespace}/settings/members for the role write, or {another}"
        return broken("namespace", f"{namespace}, an organization with the role {role}, which may not write", mend)
    return ok("namespace", f"{namespace}, an organization with the role {role}")


def payment_check(who: Who, namespace: str) -> Check:
    """Whether the namespace can pay for jobs, as far as it is told: a balance is not."""
    own = namespace == who["name"]
    payer: Mapping[str, Any] = who if own else _org(who, namespace) or {}
    pays = payer.get("canPay")
    plan = payer.get("isPro") if own else (payer.get("isEnterprise") or payer.get("plan"))
    billing = (
        BILLING
        if own
        else f"an admin adds a payment method or credit at {HUB}/organizations/{namespace}/settings/billing"
    )
    if pays:
        return ok("payment", f"{namespace} can pay")
    if plan:
        named = plan if isinstance(plan, str) else "Pro" if own else "Enterprise"
        return note("payment", f"{namespace} has the credit of its plan ({named}) alone", f"for more, {billing}")
    if pays is None:
        return note("payment", f"whether {namespace} can pay is not told", f"where jobs are refused (402), {billing}")
    return broken("payment", f"{namespace} has neither a payment method nor a plan with credit, and jobs cost", billing)


def permissions(who: Who, namespace: str) -> set[str] | None:
    """Of a fine-grained token in a namespace; None where the Hub does not tell."""
    told = _access(who).get("fineGrained")
    if not isinstance(told, Mapping):
        return None
    kind = who.get("type", "user") if namespace == who["name"] else "org"
    found = set(map(str, told.get("global") or ()))
    for scope in told.get("scoped") or ():
        entity = scope.get("entity") or {}
        named = entity.get("name", namespace)
        if entity.get("type") == kind and named == namespace:
            found.update(map(str, scope.get("permissions") or ()))
    return found


def fine_grained_url(who: Who, namespace: str) -> str:
    """The page that makes a token with what is needed."""
    fields = [("tokenType", "fineGrained")]
    if namespace == who["name"]:
        fields += [("ownUserPermissions", needed) for needed in NEEDED]
    else:
        fields += [("orgs", namespace), *(("orgPermissions", needed) for needed in NEEDED)]
    return f"{HUB}/settings/tokens/new?{urlencode(fields)}"


def mend_of(status: int | None) -> str:
    """What to do about an answer of the Hub; None is no answer."""
    if status is None:
        return f"check the network and HF_ENDPOINT; is the Hub up? {HUB.replace('//', '//status.')}"
    if status == 429:
        return "the account asks the Hub too often: try again in some minutes"
    if status >= 500:
        return f"try again later; is the Hub up? {HUB.replace('//', '//status.')}"
    return {401: LOG_IN, 402: BILLING, 403: f"give the token {' and '.join(NEEDED)} at {HUB}/settings/tokens"}.get(
        status, "what the Hub says tells why"
    )


def page_of(kind: str, name: str) -> str:
    """Where a person sees a model or dataset."""
    return f"{HUB}/{'datasets/' if kind == 'dataset' else ''}{name}"


def repo_check(kind: str, name: str, *, licences: Iterable[str], gated: bool) -> Check:
    """A model or dataset that is there and may be read."""
    licence = ", ".join(licences)
    detail = f"{name}, {'gated, with access, ' if gated else ''}license {licence or 'not stated'}"
    page = page_of(kind, name)
    if not licence:
        return note(kind, detail, f"read {page} before what is trained is given away")
    if "-nc" in licence:
        return note(kind, detail, "not for commercial use, nor is what is trained with it")
    return ok(kind, detail)


def _access(who: Who) -> Mapping[str, Any]:
    auth = who.get("auth") or {}
    return auth.get("accessToken") or {}


def _orgs(who: Who) -> list[Mapping[str, Any]]:
    return [org for org in who.get("orgs") or () if "name" in org]


def _org(who: Who, name: str) -> Mapping[str, Any] | None:
    return next((org for org in _orgs(who) if org["name"] == name), None)
