"""Who asks, and whether they may: as the real service answers people with a wrong token, or none."""

from typing import cast

from starlette.requests import Request
from tests.emulator.errors import HubError, forbidden, hidden_repo, nobody, unknown_repo
from tests.emulator.hub import Bucket, Hub
from tests.emulator.repos import Kind, Repo
from tests.emulator.users import User


def caller(hub: Hub, request: Request) -> User | None:
    """Who asks; None without a token.

    Raises:
        HubError: 401, the token is unknown or expired.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    user = hub.users.get(token)
    if user is None or user.expired:
        raise HubError(401, "Invalid credentials in Authorization header")
    return user


def known_caller(hub: Hub, request: Request) -> User:
    """Who asks, by a token.

    Raises:
        HubError: 401, without one.
    """
    user = caller(hub, request)
    if user is None:
        raise nobody()
    return user


def require(user: User, namespace: str, permission: str) -> None:
    """Let pass who may.

    Raises:
        HubError: 403.
    """
    if user.may(namespace, permission):
        return
    if user.role == "read":
        raise forbidden("Forbidden: you must use a write token to do this.")
    raise forbidden(f'You don\'t have the required permissions ({permission}) in the namespace "{namespace}".')


def asked_repo(hub: Hub, request: Request, *, write: bool = False) -> Repo:
    """The repo in the path of a request.

    Raises:
        HubError: 401 or 404, not there for this person; 403, not theirs to write.
    """
    kind = cast(Kind, request.path_params.get("kind", "models").removesuffix("s"))
    repo_id = f"{request.path_params['ns']}/{request.path_params['name']}"
    return repo_for(hub, request, kind, repo_id, write=write)


def repo_for(hub: Hub, request: Request, kind: Kind, repo_id: str, *, write: bool = False) -> Repo:
    """A repo for who asks; errors as of `asked_repo`."""
    user = caller(hub, request)
    repo = hub.repos.get((kind, repo_id))
    if repo is None or not sees(user, repo):
        raise hidden_repo() if user is None else unknown_repo()
    if write:
        require(known_caller(hub, request), repo.namespace, "repo.write")
    return repo


def sees(user: User | None, repo: Repo) -> bool:
    """Whether a person knows of a repo."""
    return not repo.private or (user is not None and user.may(repo.namespace, "repo.content.read"))


def require_access(hub: Hub, request: Request, repo: Repo) -> None:
    """Files of a gated repo are for those who were let in.

    Raises:
        HubError: 401 or 403, with the code GatedRepo.
    """
    user = caller(hub, request)
    if not repo.gated or (user and (user.name in repo.granted or user.may(repo.namespace, "repo.content.read"))):
        return
    if user is None:
        message = f"Access to {repo.kind} {repo.id} is restricted. You must have access to it and be authenticated."
        raise HubError(401, message, code="GatedRepo")
    message = f"Access to {repo.kind} {repo.id} is restricted and you are not in the authorized list. "
    raise HubError(403, f"{message}Visit {hub.url(repo)} to ask for access.", code="GatedRepo")


def asked_bucket(hub: Hub, request: Request, *, write: bool = False) -> Bucket:
    """The bucket in the path of a request; errors as of `asked_repo`."""
    user = caller(hub, request)
    namespace = request.path_params["ns"]
    bucket = hub.buckets.get(f"{namespace}/{request.path_params['name']}")
    readable = bucket and (not bucket.private or (user and user.may(namespace, "repo.content.read")))
    if bucket is None or not readable:
        raise hidden_repo() if user is None else unknown_repo()
    if write:
        require(known_caller(hub, request), namespace, "repo.write")
    return bucket
