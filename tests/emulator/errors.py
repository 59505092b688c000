"""The Hub's ways of saying no: a status, a message, and the code that the clients turn into an exception."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class HubError(Exception):
    """An answer that is an error.

    Args:
        status: of the HTTP answer.
        message: in the body and in X-Error-Message.
        code: X-Error-Code, such as RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo.
        headers: further ones.
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}


def unknown_repo() -> HubError:
    """What an authenticated person sees of a repo that is not there, or not for them."""
    return HubError(404, "Repository not found", code="RepoNotFound")


def unknown_entry(path: str, *, commit: str | None = None) -> HubError:
    """No such file or folder at this revision; the commit lets clients remember it."""
    headers = {"X-Repo-Commit": commit} if commit else None
    return HubError(404, f"Entry not found: {path}", code="EntryNotFound", headers=headers)


def nobody() -> HubError:
    """A person without a token asks for what needs one."""
    return HubError(401, "Invalid username or password.")


def hidden_repo() -> HubError:
    """What a person without a token sees of a repo that is not there, or private.

    The real service sends no code; clients make RepositoryNotFoundError of the bare 401, but only over https.
    """
    return HubError(401, "Invalid username or password.", code="RepoNotFound")


def forbidden(message: str) -> HubError:
    """A token that may not do this."""
    return HubError(403, message)


async def answer_error(request: Request, error: Exception) -> Response:
    """The exception handler of the app."""
    assert isinstance(error, HubError)
    return JSONResponse({"error": error.message}, error.status, headers=error.headers)
