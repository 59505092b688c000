"""Where the kept adapter is and how it is loaded. Pure."""

import json
from typing import NamedTuple

from hfagent.agent.hf_wiring import BUCKET
from hfagent.agent.state import State


class KeptAdapter(NamedTuple):
    """An adapter that may have to be fetched first."""

    run: str
    folder: str
    """On this machine."""
    fetch: str | None
    """The command that brings it there; None where it is there already."""
    code: str
    """Python that loads it with its base model."""


def kept_adapter(state: State) -> KeptAdapter | None:
    """The kept run's adapter; None where nothing is kept, or it left none."""
    run = state.kept
    found = state.runs[run].result.get("adapter") if run is not None and run in state.runs else None
    if run is None or not isinstance(found, str):
        return None
    if state.plan.backend != "hf":
        return KeptAdapter(run, found, None, _with_its_own_base(json.dumps(found)))
    folder = f"{state.plan.label}-{run}"
    inside = found.rpartition("/jobs/")[2]
    fetch = f"hf buckets sync hf://buckets/{state.plan.namespace}/{BUCKET}/jobs/{inside} {folder}"
    base = state.model_path or state.plan.model.id
    return KeptAdapter(run, folder, fetch, _with_base(json.dumps(base), json.dumps(folder)))


def _with_its_own_base(adapter: str) -> str:
    return (
        "from peft import AutoPeftModelForCausalLM\n"
        "from transformers import AutoTokenizer\n\n"
        f"model = AutoPeftModelForCausalLM.from_pretrained({adapter})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({adapter})"
    )


def _with_base(base: str, adapter: str) -> str:
    """Named, since the adapter itself names the place where its job saw the base."""
    return (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({base})\n"
        f"model = PeftModel.from_pretrained(base, {adapter})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({adapter})"
    )
