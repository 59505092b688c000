"""Where the kept adapter is: here, or in the bucket that the jobs wrote it to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from nights import finished_night, state_of

from hfagent.agent.console import closing
from hfagent.agent.loading import kept_adapter
from hfagent.agent.report import render
from hfagent.agent.state import State
from hfagent.agent.wiring import Paths

LEFT = "/hfagent/jobs/improve-code-sft-sft-01-x1-a1/0a1b/out/adapter"
BASE = "/home/ada/.cache/hfagent/models/SmolLM2-135M-Instruct"


def on_hf() -> State:
    state = state_of(finished_night())
    kept = state.runs["sft-01-x1"]
    left: dict[str, Any] = {**kept.result, "adapter": LEFT}
    runs = {**state.runs, "sft-01-x1": replace(kept, attempts=(*kept.attempts[:-1], replace(kept.last, result=left)))}
    plan = state.plan.model_copy(update={"backend": "hf", "namespace": "ada"})
    return replace(state, plan=plan, runs=runs, model_path=BASE)


def test_an_adapter_in_the_bucket_is_fetched_and_loaded_on_the_base_that_is_here() -> None:
    state = on_hf()
    kept = kept_adapter(state)
    assert kept is not None
    source = "hf://buckets/ada/hfagent/jobs/improve-code-sft-sft-01-x1-a1/0a1b/out/adapter"
    assert kept.fetch == f"hf buckets sync {source} {kept.folder}"
    assert f'from_pretrained("{BASE}")' in kept.code
    assert f'PeftModel.from_pretrained(base, "{kept.folder}")' in kept.code
    text = render(state)
    assert kept.fetch in text
    assert kept.code in text
    shown = closing(state, Paths(Path("r"), "p"), state.updated_at, held=False)
    assert kept.fetch in shown
    assert LEFT not in shown.replace(kept.fetch, "")


def test_a_local_adapter_is_loaded_where_it_is() -> None:
    kept = kept_adapter(state_of(finished_night()))
    assert kept is not None
    assert kept.fetch is None
    assert "AutoPeftModelForCausalLM" in kept.code
