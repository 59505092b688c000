"""What hfagent does on a CUDA GPU: each method, a whole night, memory beside its estimate, speed beside TRL's script.

    python benchmarks/gpu.py [methods] [night] [memory] [speed] [quantized] [--out FILE] [--work DIR] [--device cpu]

Writes `benchmarks/gpu.md`, anew after each measurement. All parts, in this order, where none is named:

- `methods`: each training script by its own command line, resumed, merged and evaluated, on the embedded model;
- `night`: `hfagent "improve code solving with SFT" --yes`, whole;
- `memory`: the peak of two steps on rows of full length, of models with random weights in the shapes of Qwen3 and
  Qwen2.5-7B, beside what `hfagent.agent.memory` says, by which hardware is rented;
- `speed`: seconds of training by TRL's own script and by hfagent, on rows of mixed lengths;
- `quantized`: the same peak of a base model in 4 bits (needs bitsandbytes; the estimate is that of 16 bits).

Needs no network once the embedded model is prepared, 30 GB in --work (in memory it is quickest: /dev/shm), and ten
minutes of an H100. What fails or takes too long becomes a row that says so, and the next measurement begins.
`--device cpu` tries this program out with tiny models: what it then measures means nothing.
"""

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import training_speed

from hfagent.agent import memory
from hfagent.agent.errors import HfagentError
from hfagent.agent.jobs import hyperparameter_args
from hfagent.agent.records import Method, ModelRef, TrainConfig
from hfagent.agent.train_config import METHODS
from hfagent.tools.embedded_model import EmbeddedModelStore
from hfagent.tools.procedural_python import tasks, train_rows

HERE = Path(__file__).parent
JOB = """
import importlib, json, sys
try:
    code = importlib.import_module("hfagent.job_templates." + sys.argv[1]).main(sys.argv[2:])
finally:
    import torch
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        peaks = [torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), total - free]
        print("PEAKS", json.dumps([peak / 1e9 for peak in peaks]), flush=True)
sys.exit(code)
"""
"""A job in a process of its own, and what its GPU held: tensors and torch's pool at most, all of it at the end."""
RANDOM_MODEL = """
import json, sys, torch, transformers
shape, folder, device = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_default_device(device)
model = transformers.AutoModelForCausalLM.from_config(transformers.Qwen3Config(**shape), dtype=torch.bfloat16)
model.save_pretrained(folder)
print(model.num_parameters())
"""
KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
SHAPES = {
    "Qwen3-0.6B": (1024, 3072, 28, 16, 8),
    "Qwen3-1.7B": (2048, 6144, 28, 16, 8),
    "Qwen3-4B": (2560, 9728, 36, 32, 8),
    "Qwen2.5-7B": (3584, 18_944, 28, 28, 4),
}
VOCABULARY = 151_936
LENGTHS: tuple[tuple[Method, int, int], ...] = (("sft", 1, 2048), ("sft", 4, 2048), ("dpo", 1, 2048), ("grpo", 4, 1024))
CASES = [(name, *one) for name in ("Qwen3-0.6B", "Qwen2.5-7B", "Qwen3-4B", "Qwen3-1.7B") for one in LENGTHS]
"""Model, method, micro-batch, tokens; those of a model follow each other: one at a time lies in --work."""
QUANTIZED: list[tuple[str, Method, int, int]] = [("Qwen3-4B", "sft", 1, 2048), ("Qwen2.5-7B", "sft", 1, 2048)]
ANSWER = 256
"""Tokens of a completion of GRPO: an untrained model writes all of them."""
GRPO: dict[str, Any] = {"num_generations": 4, "reward_funcs": "gpu:spread"}


@dataclass(frozen=True)
class Bench:
    """What all parts know; `model` is the embedded one's folder, `real` whether what is measured means something."""

    device: str
    work: Path
    model: str
    real: bool


Row = list[str]
Named = Iterator[tuple[str, float, Callable[[], Row]]]
"""Measurements: the name, the seconds it may take, and what gives the rest of the row."""


def python(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What a Python program said, and its exit code."""
    command = [sys.executable, *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def job(template: str, argv: Sequence[object]) -> dict[str, Any]:
    """The RESULT of a job in a process of its own, with `wall_s` and `peaks`, which are empty without a GPU."""
    started = time.monotonic()
    done = python("-c", JOB, template, *argv)
    said = {line.partition(" ")[0]: line.partition(" ")[2] for line in done.stdout.splitlines()}
    peaks = [f"{peak:.2f}" for peak in json.loads(said.get("PEAKS", "[]"))]
    if done.returncode or "RESULT" not in said:
        raise RuntimeError(f"{done.stderr.strip() or done.stdout.strip()} (exit {done.returncode}, GB held: {peaks})")
    result: dict[str, Any] = json.loads(said["RESULT"])
    return {**result, "wall_s": f"{time.monotonic() - started:.1f}", "peaks": peaks or ["", "", ""]}


def train(bench: Bench, config: TrainConfig, model: object, rows: Any, run: str, *extra: object) -> dict[str, Any]:
    """Train by a method's script into `run`, and hold its RESULT against what a training leaves."""
    data = write_rows(bench.work / f"{run}.jsonl", rows)
    argv = ["--model", model, "--dataset", data, "--output-dir", bench.work / run, *hyperparameter_args(config), *extra]
    found = job(f"train_{config.method}", argv)
    loss, change = found["train_loss"], found["weight_change"]
    if found["device"] == bench.device and loss is not None and math.isfinite(loss) and change:
        return found
    raise RuntimeError(f"device {found['device']}, loss {loss}, adapter moved by {change}")


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Rows as a file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def spread(completions: Sequence[Any], **_: Any) -> list[float]:
    """A reward of GRPO that differs between the answers even of an untrained model."""
    return [len(str(completion)) % 7 / 7 for completion in completions]


def methods(bench: Bench) -> Named:
    """Every training script, a resumed training, an export and evaluations."""
    steps, problems = (6, 80) if bench.real else (3, 8)
    sft, merged = bench.work / "sft", bench.work / "export" / "merged"
    short = {"max_completion_length": 96}
    own: dict[Method, dict[str, Any]] = {"grpo": GRPO | short, "distillation": short, "sft": {"learning_rate": 1e-3}}

    def row(found: dict[str, Any], told: str) -> Row:
        return [told, found["wall_s"], str(found["seconds"]), str(found.get("step_s", "")), *found["peaks"][:2]]

    def trained(method: Method, total: int, run: str, *extra: object) -> Row:
        config = TrainConfig.model_validate({"method": method, "max_steps": total, **own.get(method, {})})
        found = train(bench, config, bench.model, train_rows(144, 0, method), run, *extra)
        told = f"{found['steps']} steps, loss {found['train_loss']:.3f}, weights moved by {found['weight_change']:.2g}"
        return row(found, told)

    def evaluated(*extra: object) -> Row:
        argv = ["--model", bench.model, "--benchmark", "procedural_python", "--set", "search", "--n", problems]
        found = job("evaluate", [*argv, "--output-dir", bench.work / "evaluation", *extra])
        return row(found, f"pass@1 {found['value']:.3f} of {found['n']} on {found['device']}, {found['sandbox']}")

    def exported() -> Row:
        found = job("export", ["--model", bench.model, "--adapter", sft / "adapter", "--output-dir", merged.parent])
        return row(found, f"{found['changed_tensors']} of {found['tensors']} tensors changed")

    resume = ("--resume-from-checkpoint", sft / f"checkpoint-{steps - round(0.2 * steps)}")
    yield "train_sft", 120, partial(trained, "sft", steps, "sft")
    yield "train_sft, resumed", 120, partial(trained, "sft", 3 * steps, "longer", *resume)
    yield "export (merge)", 60, exported
    yield "evaluate the base model", 120, evaluated
    yield "evaluate the resumed adapter", 120, partial(evaluated, "--adapter", bench.work / "longer" / "adapter")
    for method in METHODS[1:]:
        extra = ("--teacher", merged) if method == "distillation" else ()
        yield f"train_{method}", 300 if method == "grpo" else 120, partial(trained, method, steps, method, *extra)


def night(bench: Bench) -> Named:
    """The main job as a person starts it."""
    goal, folder = "improve code solving with SFT", bench.work / "night"

    hfagent = partial(python, "-m", "hfagent", cwd=folder)

    def whole() -> Row:
        folder.mkdir()
        started = time.monotonic()
        try:
            done = hfagent(goal, "--yes", "--project", "gpu")
        except TimeoutError:
            hfagent("cancel", "gpu")  # its job runs on without it
            raise
        seconds = time.monotonic() - started
        if done.returncode:
            raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        verdict = next(line for line in done.stdout.splitlines() if line.startswith("verdict "))
        score = json.loads(hfagent("status", "gpu", "--json").stdout)["verdict"]
        fields = [f"{score[name]:.3g}" for name in ("base_score", "candidate_score", "n", "p_value")]
        return [verdict.removeprefix("verdict").strip(), *fields, f"{seconds:.0f}"]

    yield goal, 420, whole


def random_model(bench: Bench, name: str) -> tuple[Path, int]:
    """A model of this shape with random weights in the place of the one before it, and the number of its weights."""
    count = (folder := bench.work / "random" / name) / "parameters"
    if not count.exists():
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(Path(bench.model, file), folder)
        sizes = SHAPES[name] if bench.real else (64, 128, 2, 4, 2)
        shape = dict(zip(KEYS, sizes, strict=True)) | {"vocab_size": VOCABULARY if bench.real else 49_152}
        shape |= {"head_dim": 128 if bench.real else 16, "tie_word_embeddings": name != "Qwen2.5-7B"}
        shape |= {"max_position_embeddings": 4096, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
        done = python("-c", RANDOM_MODEL, json.dumps(shape), folder, bench.device)
        if done.returncode:
            raise RuntimeError(f"no random {name}: {done.stderr}")
        count.write_text(done.stdout.split()[-1], encoding="utf-8")
    return folder, int(count.read_text(encoding="utf-8"))


def full_rows(method: Method, length: int) -> list[dict[str, Any]]:
    """Rows that are cut at `length` tokens; a prompt of GRPO barely leaves room for an answer."""
    text = "\n".join(task.prompt for task in tasks("train", length // 4, 0))
    words = " ".join(text.split()[: (length - ANSWER) // 2])
    asked = {"role": "user", "content": words if method == "grpo" else "Write tasks."}
    answers = [[{"role": "assistant", "content": f"{begin} tasks:\n{text}"}] for begin in ("Some", "Other")]
    rows: dict[Method, dict[str, Any]] = {
        "sft": {"messages": [asked, *answers[0]]},
        "dpo": {"prompt": [asked], "chosen": answers[0], "rejected": answers[1]},
        "grpo": {"prompt": [asked]},
    }
    return [rows[method]] * 16


def peak(bench: Bench, name: str, method: Method, micro: int, length: int, **more: Any) -> Row:
    """The peak of two steps, the estimate, and how many times torch's pool it is."""
    folder, parameters = random_model(bench, name)
    length = length if bench.real else 512
    own = GRPO | {"max_completion_length": ANSWER if bench.real else 8} if method == "grpo" else {}
    asked = {"method": method, "max_steps": 2, "per_device_train_batch_size": micro, "max_length": length}
    config = TrainConfig.model_validate({**asked, "eval_fraction": 0, "decay_fraction": 0, **own, **more})
    try:
        found = train(bench, config, folder, full_rows(method, length), "peak")
    finally:
        shutil.rmtree(bench.work / "peak", ignore_errors=True)
    estimate = memory.memory_gb(parameters, method, lora=True, train=config, vocab_size=VOCABULARY)
    ratio = f"{estimate / float(pool):.2f}" if (pool := found["peaks"][1]) else ""
    tokens = f"{found['tokens'] / found['steps']:.0f}"
    return [f"{parameters / 1e9:.2f}B", tokens, *found["peaks"], f"{estimate:.2f}", ratio, str(found["step_s"])]


def peaks(bench: Bench, cases: Sequence[tuple[str, Method, int, int]], **more: Any) -> Named:
    """The peak of each case; to try the program out, of the first four."""
    for case in cases if bench.real else cases[:4]:
        yield f"{case[0]}, {case[1]}, {case[2]} x {case[3]}", 120, partial(peak, bench, *case, **more)


def speed(bench: Bench) -> Named:
    """The same rows by TRL's script and by hfagent."""
    count, turns = (64, 20) if bench.real else (8, 2)
    steps = count // training_speed.BATCH

    def seconds(runner: training_speed.Runner, settings: dict[str, Any]) -> Row:
        model, _ = random_model(bench, "Qwen3-0.6B")
        with tempfile.TemporaryDirectory(dir=bench.work) as folder:
            data = write_rows(Path(folder, "data", "train.jsonl"), training_speed.mixed_rows(count, turns))
            found = runner(str(model), data, Path(folder) / "out", {"max_steps": steps, **settings})
        return [f"{found:.1f}", f"{found / steps:.2f}"]

    one, eight, here = training_speed.layout(1), training_speed.layout(8), {"use_cpu": not bench.real}
    plain = {**here, "dtype": "bfloat16"}
    for name, runner, settings in (
        ("TRL: fp32 weights, checkpointing (its defaults), 1 x 8", training_speed.by_trl,
         {**here, **one, "gradient_checkpointing": True}),
        ("TRL: bf16 weights, no checkpointing, 1 x 8", training_speed.by_trl, {**plain, **one}),
        ("hfagent, 1 x 8", training_speed.by_hfagent, one),
        ("TRL: bf16 weights, no checkpointing, 8 x 1", training_speed.by_trl, {**plain, **eight}),
        ("hfagent, 8 x 1", training_speed.by_hfagent, eight),
    ):  # fmt: skip
        yield name, 120, partial(seconds, runner, settings)


HELD = ["tensors, GB", "torch's pool, GB"]
PEAK = ["Training", "Weights", "Tokens a step", *HELD, "process, GB", "estimate, GB", "estimate / pool", "s a step"]
PARTS: dict[str, tuple[Callable[[Bench], Named], float, Row]] = {
    "methods": (methods, 420, ["Job", "What it said", "s", "its own s", "s a step", *HELD]),
    "night": (night, 420, ["Goal", "Verdict", "Base", "Kept", "Problems", "p", "s"]),
    "memory": (partial(peaks, cases=CASES), 560, PEAK),
    "speed": (speed, 300, ["Training", "train(), s", "s a step"]),
    "quantized": (partial(peaks, cases=QUANTIZED, load_in_4bit=True), 240, PEAK),
}
"""Measurements, the seconds they may take together, and the columns."""


def taken(name: str, seconds: float, measure: Callable[[], Row]) -> Row:
    """A row, or one that says why there is none; whatever is waited for is killed when its time is up."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        return [name, *measure()]
    except (HfagentError, OSError, LookupError, ValueError, RuntimeError, SystemExit, StopIteration) as error:
        sys.stderr.write(f"{name}: {error}\n")
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return [name, f"failed: {lines[-1] if lines else type(error).__name__}"[:300].replace("|", "/")]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    """Measure the named parts, and write the tables after each row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="part", help=f"{', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=HERE / "gpu.md")
    parser.add_argument("--work", type=Path, help="folder for models and runs (default: the system's temporary one)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    args = parser.parse_args()
    parts = args.parts or list(PARTS)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"CUDA_VISIBLE_DEVICES": ""} if args.device == "cpu" else {}
    # Jobs import hfagent from where this program did, and `spread` from here.
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*filter(None, sys.path), str(HERE.resolve())]))
    model = str(EmbeddedModelStore().prepare(ModelRef(id="embedded:SmolLM2-135M-Instruct")))
    # Asked in another process: this one must not hold the GPU.
    ask = "import torch as t; print(t.cuda.get_device_name() if t.cuda.is_available() else 'no GPU', t.__version__)"
    torch = python("-c", ask).stdout.strip()
    commit = subprocess.run(["git", "describe", "--always"], capture_output=True, text=True, check=False).stdout.strip()
    made = f"Made by `python benchmarks/gpu.py {' '.join(parts)}` at commit {commit or 'unknown'}"
    text = f"# On a GPU\n\n{made}: {torch}, {os.cpu_count()} processors. GB are 10^9 bytes.\n"
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        os.environ["TRACKIO_DIR"] = str(Path(folder) / "trackio")
        bench = Bench(args.device, Path(folder), model, args.device == "cuda")
        patience = 1 if bench.real else 10
        for part in parts:
            begin, allowed, columns = PARTS[part]
            text += f"\n## {part}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}\n"
            until = time.monotonic() + patience * allowed
            for name, seconds, measure in begin(bench):
                row = taken(name, min(patience * seconds, until - time.monotonic()), measure)
                line = f"| {' | '.join(row + [''] * (len(columns) - len(row)))} |\n"
                args.out.write_text(text := text + line, encoding="utf-8")
                print(line, end="", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
