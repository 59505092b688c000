# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "pydantic>=2.11",
#   "torch>=2.6",
#   "transformers>=5.20,<6",
#   "peft>=0.18",
#   "accelerate>=1.12",
#   "gguf>=0.17",
# ]
#
# [tool.hfagent.with]
# --quantize = ["libgguf>=0.2.2,<0.3", "xllamacpp>=2026.10"]
# ///
"""Merges an adapter into its base model and converts the result to GGUF files that llama.cpp has loaded and run.

Exit codes: 0 with a RESULT line; 1 failed; 2 arguments that cannot be used or a package that is missing; 143 stopped
by SIGTERM. A file that was not finished, or that llama.cpp did not load, does not keep its name.
"""

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfagent.agent.errors import HfagentError, PackageMissing, UsageError
from hfagent.job_templates.evaluate import check_folders
from hfagent.job_templates.runtime import emit_result, on_sigterm, say, stop
from hfagent.tools.gguf_export import read_config, whole_file, write_gguf
from hfagent.tools.gguf_quantize import quantizations, require_quantizer
from hfagent.tools.gguf_vocab import read_vocabulary
from hfagent.tools.llama_cpp import LlamaFile, check_tokens, require_binding
from hfagent.tools.merge import base_folder, merge

QUESTION = "Write a Python function that adds two numbers."
NEW_TOKENS = 32
CONTEXT = 1024


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The job's arguments, checked as far as that needs no heavy package."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None, allow_abbrev=False)
    parser.add_argument("--model", required=True, help="folder or Hub id of the base model")
    parser.add_argument("--revision", help="its commit or branch on the Hub")
    parser.add_argument("--adapter", type=Path, help="LoRA folder; without it the model is converted as it is")
    parser.add_argument(
        "--quantize", action="append", default=[], metavar="NAMES",
        help="F16, Q8_0, Q6_K, Q5_K_M or Q4_K_M; several with commas or repeated; none merges only",
    )  # fmt: skip
    parser.add_argument("--name", help="of the exported model, in the files' names, too (default: the model's, -tuned)")
    parser.add_argument("--output-dir", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        args.quantize = quantizations(",".join(args.quantize))
    except UsageError as error:
        parser.error(f"argument --quantize: {error}")
    if args.adapter is None and not args.quantize:
        parser.error("nothing to do: give an --adapter to merge, or a --quantize to convert to")
    args.name = args.name or Path(args.model.rstrip("/")).name + ("-tuned" if args.adapter else "")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; 0 done, 1 failed, 2 arguments that cannot be used."""
    args = parse_args(argv)
    on_sigterm(stop)
    try:
        emit_result(export(args))
    except HfagentError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, UsageError | PackageMissing) else 1
    return 0


def export(args: argparse.Namespace) -> dict[str, Any]:
    """All steps; everything that can be refused is refused before the first long one.

    Raises:
        HfagentError: it cannot be merged or converted.
    """
    started = time.monotonic()
    check_folders(args.model, args.adapter)
    if args.quantize:
        require_quantizer(args.quantize)
        require_binding()
    if Path(args.model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is to be fetched, so no request may be waited for
    folder = base_folder(args.model, args.revision)
    if args.quantize:
        read_vocabulary(folder, read_config(folder)["vocab_size"])  # the merged model's are the base model's
    args.output_dir.mkdir(parents=True, exist_ok=True)
    merged = None
    if args.adapter is not None:
        merged = merge(args.model, args.adapter, args.output_dir / "merged", revision=args.revision, say=say)
        folder = merged.folder
    files = [convert(folder, args.output_dir, name, args.name) for name in args.quantize]
    return {
        "model": args.model,
        "adapter": str(args.adapter.resolve()) if args.adapter else None,
        "merged": str(merged.folder.resolve()) if merged else None,
        "dtype": merged.dtype if merged else None,
        "changed_tensors": merged.changed if merged else None,
        "tensors": merged.tensors if merged else None,
        "files": files,
        "seconds": round(time.monotonic() - started, 1),
    }


def convert(folder: Path, output_dir: Path, quantization: str, name: str) -> dict[str, Any]:
    """Write one file, have llama.cpp load it and answer; only then it gets its name.

    Raises:
        HfagentError: it cannot be written, or llama.cpp reads it otherwise than transformers reads the model.
    """
    from transformers import AutoTokenizer

    started = time.monotonic()
    path = output_dir / f"{name}-{quantization}.gguf"
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    with whole_file(path) as scratch:
        written = write_gguf(folder, scratch, quantization, name=name)
        file = LlamaFile(scratch, context=CONTEXT)
        check_tokens(file, tokenizer)
        answer = file.complete(_prompt(tokenizer), max_new_tokens=NEW_TOKENS)
        with scratch.open("rb") as held:
            sha256 = hashlib.file_digest(held, "sha256").hexdigest()
    size = path.stat().st_size
    say(
        f"{path.name}: {size:,} bytes, {written.bits_per_weight:.2f} bits a weight, "
        f"{answer.tokens_per_s:.0f} tokens/s, after {time.monotonic() - started:.0f} s"
    )
    return {
        "name": path.name,
        "path": str(path.resolve()),
        "quantization": quantization,
        "size_bytes": size,
        "bits_per_weight": round(written.bits_per_weight, 3),
        "parameters": written.parameters,
        "tensor_types": written.types,
        "sha256": sha256,
        "tokens_per_s": round(answer.tokens_per_s, 1),
        "sample": answer.text,
    }


def _prompt(tokenizer: Any) -> list[int]:
    if not tokenizer.chat_template:
        return list(tokenizer(QUESTION)["input_ids"])
    chat = [{"role": "user", "content": QUESTION}]
    return list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))


if __name__ == "__main__":
    sys.exit(main())
