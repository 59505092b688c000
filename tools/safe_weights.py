"""Weights are read as safetensors alone: a pickle can run code when it is opened."""

from pathlib import Path
from typing import Any

from hfagent.agent.errors import ModelError

SAFE: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
"""For `from_pretrained` of a model: no pickle is opened, and no code of a repository is run."""


def require_safe(adapter: Path) -> Path:
    """The folder of an adapter, if its weights are no pickle: peft would open one without being asked.

    Raises:
        ModelError: it holds no `adapter_model.safetensors`.
    """
    if not (adapter / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"the adapter {str(adapter)!r} holds no adapter_model.safetensors; a pickle can run code and is not opened:"
            " save it with save_pretrained(..., safe_serialization=True)"
        )
    return adapter
