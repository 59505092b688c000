"""How much memory a job needs, by the number of weights alone. Pure.

Every term leans to the upper side, for a job that runs out of memory is paid for and thrown away. Layers and width are
not asked for: with `hidden = sqrt(weights) / 21` (`thresholds.HIDDEN_SIZE_DIVISOR`) and 12 x layers x hidden^2 weights,
layers x hidden is 1.75 x sqrt(weights): 4 to 90 % above that of SmolLM2, Qwen2.5, Qwen3 and Llama from 135M to 14B.
"""

import math

from hfagent.agent import thresholds
from hfagent.agent.hardware import Need
from hfagent.agent.records import EvalConfig, Method, TrainConfig
from hfagent.agent.train_config import SAMPLING

GB = 1e9
VOCABULARY = 152_064
"""Where nobody said it: Qwen's, the largest but for Gemma's 262,144."""
LAYERS_LOW = 24
"""One layer of so many is computed anew at a time (Llama-3.2-1B has 16, but `depth_times_width` is 88 % above its)."""
WEIGHT_BYTES = 2
"""bf16, or fp16 on a T4: the base under LoRA, and what is generated with."""
FULL_BYTES = 18
"""Of a weight that is trained: float32 itself 4, its gradient 4, Adam's two moments 8, its copy in 16 bits 2 (autocast
keeps it)."""
ADAPTER_BYTES = 16
"""Of a weight of the adapter: peft keeps it in float32, and a copy in 16 bits is small beside it."""
ADAPTER_WIDTHS = 22
"""Inputs and outputs of a layer's seven linear modules in widths: 4 of the width with itself (8), 3 of the width with
3.5 to 4 times the width (13.5 to 15). Llama-2-7B at rank 16: 40 million weights, here 46."""
ACTIVATION_BYTES = {True: 70, False: 80}
"""Of a token, layer and unit of width, kept for the backward pass; by LoRA and full. Counted by torch's hooks for saved
tensors with autocast and fused attention: Llama 54 to 62, Qwen3 62 to 70; full 77 without the copies of weights."""
CHECKPOINT_BYTES = 2
"""The same with activation checkpointing: a layer's input alone."""
CHECKPOINTING_FROM = 1_000_000_000
"""Weights from which `train_sft.py` computes activations twice; TRL's own default is always."""
LOGIT_BYTES = 14
"""Of a token and word of the vocabulary: 2 in 16 bits; in float32 the log-softmax, its gradient and that of the logits,
4 each. TRL 1.16's fused head works in tiles and keeps none; counted all the same, since label smoothing, metrics of
logits and other heads fall back to the whole."""
REFERENCE_LOGIT_BYTES = 6
"""The reference model's or the teacher's, without gradients, while the trained model's are held."""
SECOND_MODEL: tuple[Method, ...] = ("dpo", "kto", "distillation")
"""Methods by which two models read each row."""
REFERENCE_BYTES = 4
"""A reference model of its own beside one that is trained in full; with LoRA it is the base with the adapter off."""
KV_BYTES = 4
"""Keys and values of a token, layer and unit of width, 2 bytes each, with as many heads as queries: models with grouped
heads need a half to an eighth of it."""
BF16_FROM = 1_000_000_000
"""Weights from which a GPU without bf16 is not chosen: large models are trained in bf16, and what they compute can
overflow in the fp16 of a T4. Smaller ones train there, as the blog's do; a person may name it for any."""
PROMPT_TOKENS = 512
"""Of an evaluation's prompt (HumanEval's longest has about 400)."""
ANSWER_TOKENS = 2048
"""Of an answer where the plan sets no limit."""
GENERATION_LOGIT_BYTES = 12
"""Of a row and word while a token is chosen: 16 bits, float32, its softmax and the draw."""
RAM_BASE_GB = 4.0
"""Of the host for Python, torch with CUDA, and the rows (3 GB seen for such a process, and one to spare)."""
DISK_BASE_GB = 22.0
"""Packages of a job (about 10 GB with torch and CUDA), and its data (codeforces-cots: 9.7 GB)."""
CHECKPOINTS = 3
"""Kept by `training_watch`: two, and the one before the decay."""


def depth_times_width(parameters: int) -> float:
    """Layers x hidden size."""
    return thresholds.HIDDEN_SIZE_DIVISOR / 12 * math.sqrt(parameters)


def checkpointed(parameters: int, method: Method) -> bool:
    """Whether activations are computed twice to save memory."""
    return method != "sft" or parameters >= CHECKPOINTING_FROM


def adapter_weights(parameters: int, rank: int) -> float:
    """Weights of an adapter on all linear modules."""
    return ADAPTER_WIDTHS * rank * depth_times_width(parameters)


def terms(
    parameters: int,
    method: Method,
    *,
    lora: bool,
    train: TrainConfig,
    vocab_size: int | None = None,
    teacher: int | None = None,
) -> dict[str, float]:
    """What is held at the peak of a training step, in GB; GRPO's cache is not held at the same time.

    Args:
        parameters: number of weights.
        method: what trains.
        lora: an adapter, or all weights.
        train: batch, length and rank; `max_length` is prompt and completion together.
        vocab_size: of the tokenizer; None takes `VOCABULARY`.
        teacher: number of its weights, of a distillation; None without one.
    """
    depth_width, vocabulary = depth_times_width(parameters), vocab_size or VOCABULARY
    # A pair is two rows, and KTO scores each prompt with another completion to see how far the model moved.
    rows = train.per_device_train_batch_size * (1 if method in ("sft", *SAMPLING) else 2)
    tokens = rows * train.max_length
    adapter = adapter_weights(parameters, train.lora_r)
    whole = ACTIVATION_BYTES[lora] * tokens * depth_width
    activations = CHECKPOINT_BYTES * tokens * depth_width + whole / LAYERS_LOW
    found = {
        "weights": parameters * (WEIGHT_BYTES if lora else FULL_BYTES),
        "adapter": adapter * ADAPTER_BYTES if lora else 0.0,
        "reference": parameters * REFERENCE_BYTES if method in ("dpo", "kto") and not lora else 0.0,
        "teacher": (teacher or 0) * float(WEIGHT_BYTES),
        "activations": activations if checkpointed(parameters, method) else whole,
        "logits": 0.0 if method == "reward" else float(LOGIT_BYTES * tokens * vocabulary),
        "reference logits": float(REFERENCE_LOGIT_BYTES * tokens * vocabulary) if method in SECOND_MODEL else 0.0,
    }
    return {name: value / GB for name, value in found.items()}


def memory_gb(
    parameters: int,
    method: Method,
    *,
    lora: bool,
    train: TrainConfig,
    vocab_size: int | None = None,
    teacher: int | None = None,
) -> float:
    """GPU memory of a training job: the peak of a step; where it samples, that of the generation if it is higher."""
    held = terms(parameters, method, lora=lora, train=train, vocab_size=vocab_size, teacher=teacher)
    if method not in SAMPLING:
        return sum(held.values())
    # TRL generates for all micro-batches of a step at once.
    rows = train.per_device_train_batch_size * train.gradient_accumulation_steps
    generating = generation_gb(parameters, rows=rows, tokens=train.max_length, vocab_size=vocab_size)
    resting = held["weights"] + held["adapter"] + held["teacher"]
    return max(sum(held.values()), resting + generating)


def generation_gb(parameters: int, *, rows: int, tokens: int, vocab_size: int | None = None) -> float:
    """Memory beside the weights for so many rows of so many tokens, prompts included, that are generated together."""
    cache = KV_BYTES * rows * tokens * depth_times_width(parameters)
    return (cache + GENERATION_LOGIT_BYTES * rows * (vocab_size or VOCABULARY)) / GB


def evaluation_gb(parameters: int, evaluation: EvalConfig, vocab_size: int | None = None) -> float:
    """GPU memory of an evaluation job."""
    tokens = PROMPT_TOKENS + (evaluation.max_new_tokens or ANSWER_TOKENS)
    cache = generation_gb(parameters, rows=evaluation.batch_size, tokens=tokens, vocab_size=vocab_size)
    return parameters * WEIGHT_BYTES / GB + cache


def need(
    parameters: int,
    method: Method,
    *,
    lora: bool,
    train: TrainConfig,
    evaluation: EvalConfig | None = None,
    vocab_size: int | None = None,
    teacher: int | None = None,
) -> Need:
    """What all jobs of a plan need: GPU memory, memory of the host, disk."""
    weights = parameters / GB
    adapter = adapter_weights(parameters, train.lora_r) / GB
    vram = memory_gb(parameters, method, lora=lora, train=train, vocab_size=vocab_size, teacher=teacher)
    if evaluation is not None:
        vram = max(vram, evaluation_gb(parameters, evaluation, vocab_size))
    # Loaded and merged in the host's memory: 16 bits, or float32 where all weights are trained.
    loaded = weights * (WEIGHT_BYTES if lora else 4)
    # A checkpoint holds float32 weights of what is trained, and two moments of each.
    checkpoint = 12 * (adapter if lora else weights)
    disk = DISK_BASE_GB + 2 * WEIGHT_BYTES * weights + CHECKPOINTS * checkpoint
    learnt_from = (teacher or 0) * WEIGHT_BYTES / GB
    return Need(
        vram_gb=vram,
        ram_gb=RAM_BASE_GB + loaded + learnt_from,
        disk_gb=disk + learnt_from,
        parameters=parameters,
        bf16=parameters >= BF16_FROM,
    )
