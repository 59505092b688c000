"""Pushes a folder to the Hub and looks that it has arrived."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfagent.agent.errors import ModelError
from hfagent.tools.hub_calls import explained, first_line


def push(
    repo: str,
    folder: Path,
    card: str | None,
    *,
    public: bool,
    only: Sequence[str] | None = None,
    client: Any = None,
) -> dict[str, Any]:
    """Upload a folder, private unless `public`, and its README; what is there already is not sent again.

    Args:
        repo: `user/name`; made where it does not exist.
        folder: what is uploaded.
        card: README.md.
        public: whether all may see it. A repo that is public already is refused without this.
        only: names of files; None is all.
        client: a `huggingface_hub.HfApi` in place of that of the environment.

    Returns:
        `url`, `revision` (the commit), `private`.

    Raises:
        ModelError: the Hub does not take it, all would see it, or a file has not arrived whole.
    """
    from huggingface_hub import HfApi

    api, names = client or HfApi(), None if only is None else list(only)
    try:
        with explained():
            url = api.create_repo(repo, private=not public, exist_ok=True)
            if not public and not api.model_info(repo).private:
                raise ModelError(f"{repo!r} is public: add --public, make it private, or push to another repo")
            api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=names, commit_message="Model by hfagent")
            if card is not None:
                api.upload_file(
                    repo_id=repo, path_or_fileobj=card.encode(), path_in_repo="README.md",
                    commit_message="Card by hfagent",
                )  # fmt: skip
            info = api.model_info(repo, files_metadata=True)
    except ModelError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # the last one is hf_xet's, and of what is explained
        raise ModelError(f"{repo!r} could not be pushed: {first_line(error)}") from error
    there = {file.rfilename: file.size for file in info.siblings or ()}
    sent = [path for path in folder.rglob("*") if path.is_file() and (names is None or path.name in names)]
    for path in sent:
        name = path.relative_to(folder).as_posix()
        if there.get(name) != path.stat().st_size and not (name == "README.md" and card is not None):
            raise ModelError(f"{repo!r} has no whole {name!r} after the push: push again")
    return {"url": str(url), "revision": info.sha, "private": info.private}
