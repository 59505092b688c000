# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "pydantic>=2.11",
#   "torch>=2.6",
#   "transformers>=5.20,<6",
#   "peft>=0.18",
#   "accelerate>=1.12",
#   "datasets>=5.2,<6",
# ]
#
# [tool.hfagent.with]
# "embedded:reasoning-gym" = ["reasoning-gym>=0.1.25,<0.2"]
# ///
"""Has a model answer prompts and makes training data of the answers: pairs, labelled ones, or those that pass.

Exit codes: 0 with a RESULT line; 1 failed; 2 arguments that cannot be used, or nothing left to train on; 143 stopped
by SIGTERM.
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hfagent.agent.dataset_records import ColumnMapping
from hfagent.agent.errors import HfagentError, ModelError, UsageError
from hfagent.agent.records import DatasetRef
from hfagent.job_templates.evaluate import check_folders, load_model, load_tokenizer
from hfagent.job_templates.generation import Decoding, generate
from hfagent.job_templates.runtime import emit_result, on_sigterm, pick_precision, say, stop
from hfagent.tools import rewards
from hfagent.tools.code_answer import is_complete
from hfagent.tools.dataset_files import write_text
from hfagent.tools.dataset_mapping import flaw, map_rows
from hfagent.tools.dataset_read import load_rows
from hfagent.tools.dataset_store import EMBEDDED, MADE_FILE
from hfagent.tools.merge import base_folder, check_fits
from hfagent.tools.sampled_data import MAKERS, Asked, Made, Sample

SMOKE_PROMPTS = 2
EMBEDDED_TOKENS, MAX_NEW_TOKENS = 64, 512
"""Of an answer: the longest solution of the embedded tasks takes 50; TRL's own limit for GRPO."""
ROUNDING = 1e-9
JUDGES = (("tests", "tests_pass"), ("answer", "number_equal"))
"""Column -> reward that judges by it, where no rewards are named."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The job's arguments, checked as far as that needs no heavy package."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None, allow_abbrev=False)
    parser.add_argument("--model", required=True, help="folder or Hub id of the model that answers")
    parser.add_argument("--revision", help="its commit or branch on the Hub")
    parser.add_argument("--adapter", type=Path, help="LoRA folder, merged into the model before")
    parser.add_argument("--method", required=True, choices=tuple(MAKERS), help="what is to be trained on the data")
    parser.add_argument("--prompts", required=True, help=f"{', '.join(EMBEDDED)}, a Hub id, file or folder")
    parser.add_argument("--config", help="config of that dataset")
    parser.add_argument("--split", default="train", help="split of that dataset")
    parser.add_argument("--mapping", help="ColumnMapping as JSON: how its rows are rewritten")
    parser.add_argument("--n", type=int, required=True, help="number of prompts")
    parser.add_argument("--num-samples", type=int, default=4, help="answers to each prompt")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--max-new-tokens", type=int, help="of an answer")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the embedded prompts, and of the sampling")
    parser.add_argument("--reward-funcs", help="what judges the answers (default: tests_pass or number_equal)")
    parser.add_argument("--pass-at", type=float, help="worth from which an answer passes (default: the most there is)")
    parser.add_argument("--no-solutions", action="store_true", help="never use the dataset's own solutions")
    parser.add_argument("--smoke", action="store_true", help=f"only {SMOKE_PROMPTS} prompts")
    parser.add_argument("--unsafe-exec", action="store_true", help="run answers even where no sandbox works")
    parser.add_argument("--output-dir", type=Path, required=True)
    args = parser.parse_args(argv)
    for name, least in (("n", 1), ("num_samples", 1), ("batch_size", 1)):
        if getattr(args, name) < least:
            parser.error(f"argument --{name.replace('_', '-')}: {getattr(args, name)} is less than {least}")
    if args.temperature <= 0:
        parser.error(f"argument --temperature: {args.temperature:g} would give equal answers; give more than 0")
    try:
        args.mapping = ColumnMapping.model_validate_json(args.mapping) if args.mapping else None
    except ValidationError as error:
        parser.error(f"argument --mapping: {args.mapping!r}: {error.errors()[0]['msg']}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; 0 done, 1 failed, 2 arguments that cannot be used."""
    args = parse_args(argv)
    on_sigterm(stop)
    try:
        emit_result(make(args))
    except HfagentError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, UsageError) else 1
    return 0


def make(args: argparse.Namespace) -> dict[str, Any]:
    """All steps; everything that can be refused is refused before the first long one.

    Raises:
        HfagentError: the prompts, the rewards or the model cannot be used, or nothing is left to train on.
    """
    started = time.monotonic()
    rows = read_prompts(args)
    judges = load_rewards(args, rows)
    check_model(args)
    answers: list[list[str]] = [[] for _ in rows]
    if args.method != "grpo":
        answers = sample(args, rows)
        _keep(args.output_dir, rows, answers)
    asked = judge(judges, rows, answers, pass_at=args.pass_at)
    made = MAKERS[args.method](asked, solutions=not args.no_solutions)
    facts = counts(asked, made)
    if not made.rows:
        raise UsageError(
            f"nothing is left to train {args.method} on: {facts['passed']} of {facts['samples']} answers to "
            f"{len(rows)} prompts passed, and the answers to {made.equal} prompts are worth the same; "
            "sample more answers or at another temperature, or train a better model first"
        )
    return {**write(args, made, facts, judges), "seconds": round(time.monotonic() - started, 1)}


def read_prompts(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows with the prompts.

    Raises:
        DatasetError: they cannot be read.
        UsageError: one of them has no prompt.
    """
    count = min(args.n, SMOKE_PROMPTS) if args.smoke else args.n
    if args.prompts in EMBEDDED:
        return EMBEDDED[args.prompts](count, args.seed, "grpo")
    if args.prompts.startswith("embedded:"):
        raise UsageError(f"unknown embedded dataset {args.prompts!r}; there is {' or '.join(EMBEDDED)}")
    ref = DatasetRef(id=args.prompts, config=args.config, split=args.split)
    rows = load_rows(ref, limit=count).rows
    rows = rows if args.mapping is None else map_rows(rows, args.mapping)
    if not rows or "prompt" not in rows[0]:
        raise UsageError(f"{args.prompts!r} has no column 'prompt': give a --mapping that makes one")
    problems = [(index, problem) for index, row in enumerate(rows) if (problem := flaw({"prompt": row.get("prompt")}))]
    if problems:
        index, problem = problems[0]
        raise UsageError(f"{len(problems)} of {len(rows)} rows cannot be asked, the first is row {index}: {problem}")
    return rows


def load_rewards(args: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> tuple[rewards.Reward, ...]:
    """What judges the answers, held against the rows.

    Raises:
        UsageError: a row holds nothing to judge by, a reward fails, or nobody knows with how much an answer passes.
    """
    row = rows[0]
    named = args.reward_funcs or next((name for column, name in JUDGES if row.get(column) is not None), None)
    if named is None:
        raise UsageError(
            f"{args.prompts!r} has columns {sorted(row)}: nothing to judge answers by; it needs tests and entry_point, "
            "or answer, or --reward-funcs"
        )
    found = rewards.load(named, unsafe=args.unsafe_exec, max_tokens=_max_new_tokens(args))
    own = [reward.name for reward in found if reward.weight > 0 and reward.most is None]
    if own and args.pass_at is None and args.method != "grpo":
        raise UsageError(f"give --pass-at, the worth from which an answer passes: {own[0]!r} does not tell its most")
    rewards.check(found, rows)
    return found


def check_model(args: argparse.Namespace) -> None:
    """Refuse a model that is not there, or an adapter of another one.

    Raises:
        UsageError: with the reason.
    """
    try:
        check_folders(args.model, args.adapter)
        if args.adapter is not None:
            check_fits(args.model, base_folder(args.model, args.revision), args.adapter)
    except ModelError as error:
        raise UsageError(str(error)) from error


def sample(args: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The answers to each prompt, as an evaluation has them written."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if Path(args.model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is to be fetched, so no request may be waited for
    precision = pick_precision()
    tokenizer = load_tokenizer(args.model, args.revision)
    texts = [_prompt_text(tokenizer, row) for row in rows]
    model = load_model(args, precision.dtype, precision.device)
    say(f"sample {len(rows)} prompts x {args.num_samples} on {precision.hardware}, {precision.dtype}")
    decoding = Decoding(
        max_new_tokens=_max_new_tokens(args),
        batch_size=args.batch_size,
        num_samples=args.num_samples,
        temperature=args.temperature,
        seed=args.seed,
    )
    chat = not isinstance(rows[0]["prompt"], str)
    code = rows[0].get("tests") is not None
    return generate(
        model,
        tokenizer,
        prompts=texts,
        decoding=decoding,
        is_complete=lambda _, text: code and is_complete(text, chat=chat),
        progress=lambda done, total, seconds: say(f"sample {done}/{total} answers {seconds:.0f} s"),
        add_special_tokens=not chat,
    )


def judge(
    judges: Sequence[rewards.Reward],
    rows: Sequence[dict[str, Any]],
    answers: Sequence[Sequence[str]],
    *,
    pass_at: float | None = None,
) -> list[Asked]:
    """What each answer is worth; one passes from `pass_at` on, else with all that there is to get."""
    pairs = [(row, text) for row, texts in zip(rows, answers, strict=True) for text in texts]
    columns = {name: [row.get(name) for row, _ in pairs] for name in rows[0] if name != "prompt"}
    given = {
        "prompts": [row["prompt"] for row, _ in pairs],
        "completions": [Asked(row, ()).answer(text) for row, text in pairs],
        "completion_ids": [text.split() for _, text in pairs],  # words: only their number is looked at
    }
    worth = rewards.total(judges, **given, **columns) if pairs else []
    if pass_at is None:
        pass_at = sum(reward.weight * (reward.most or 0.0) for reward in judges if reward.weight > 0)
    least = pass_at - ROUNDING
    samples = iter([Sample(text, value, value >= least) for (_, text), value in zip(pairs, worth, strict=True)])
    return [Asked(row, tuple(islice(samples, len(texts)))) for row, texts in zip(rows, answers, strict=True)]


def _keep(folder: Path, rows: Sequence[dict[str, Any]], answers: Sequence[Sequence[str]]) -> None:
    """The answers as they were given, before anything judges them: sampling takes long, and a reward may fail."""
    pairs = ({"prompt": row["prompt"], "answers": texts} for row, texts in zip(rows, answers, strict=True))
    write_text(folder.resolve() / "answers.jsonl", "".join(f"{json.dumps(pair)}\n" for pair in pairs))


def counts(asked: Sequence[Asked], made: Made) -> dict[str, Any]:
    """What was asked, answered and made of it."""
    samples = [sample for one in asked for sample in one.samples]
    return {
        "prompts": len(asked),
        "samples": len(samples),
        "passed": sum(sample.passed for sample in samples),
        "mean_reward": statistics.fmean(sample.worth for sample in samples) if samples else None,
        "rows": len(made.rows),
        "equal": made.equal,
        "from_solutions": made.from_solutions,
    }


def write(
    args: argparse.Namespace, made: Made, facts: dict[str, Any], judges: Sequence[rewards.Reward]
) -> dict[str, Any]:
    """The dataset's folder and its recipe, which stands beside it; returns what the RESULT says of them.

    Raises:
        DatasetError: they cannot be written.
    """
    text = "".join(f"{json.dumps(row)}\n" for row in made.rows)
    folder, recipe = args.output_dir.resolve() / "data", args.output_dir.resolve() / "recipe.json"
    write_text(folder / MADE_FILE, text)
    said = {"method": args.method, **facts, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    how = {name: value for name, value in vars(args).items() if name not in ("mapping", "output_dir")}
    how |= {"adapter": str(args.adapter) if args.adapter else None, "max_new_tokens": _max_new_tokens(args)}
    how |= {"mapping": args.mapping.model_dump(exclude_defaults=True) if args.mapping else None}
    how["reward_funcs"] = {reward.name: reward.weight for reward in judges}
    write_text(recipe, json.dumps({**said, "made_by": how}, indent=2) + "\n")
    say(
        f"{len(made.rows)} rows for {args.method}: {facts['passed']} of {facts['samples']} answers to "
        f"{facts['prompts']} prompts passed; {made.equal} prompts left out, {made.from_solutions} solutions taken"
    )
    return {"dataset": str(folder), "recipe": str(recipe), **said}


def _max_new_tokens(args: argparse.Namespace) -> int:
    return int(args.max_new_tokens or (EMBEDDED_TOKENS if args.prompts in EMBEDDED else MAX_NEW_TOKENS))


def _prompt_text(tokenizer: Any, row: dict[str, Any]) -> str:
    """The prompt as the model reads it.

    Raises:
        UsageError: a chat for a model without a chat template.
    """
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return prompt
    if not tokenizer.chat_template:
        raise UsageError("the prompts are chats, and the model has no chat template: give it texts")
    return str(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False))


if __name__ == "__main__":
    sys.exit(main())
