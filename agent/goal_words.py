"""The words by which a goal is understood: tables only."""

import re
from typing import NamedTuple

from hfagent.agent.records import Method, TaskArea

METHOD_WORDS: dict[Method, str] = {
    "sft": r"sft|supervised fine-?\s?tuning|instruction[- ]tuning",
    "dpo": r"dpo|(?:direct )?preference optimi[sz]ation",
    "grpo": r"grpo|reinforcement learning",
    "kto": r"kto",
    "distillation": r"(?<![\w-])distil(?:l(?:ing|ation)?|ation)?(?![\w-])",
}
UNKNOWN_METHODS = r"ppo|orpo|rloo|rlhf|cpo|simpo|gspo|gkd|reward model(?:l?ing)?|self-distillation"
"""Methods that people ask for and that must not quietly become another one."""

DENIAL = (
    r"(?:\b(?:not|never|no|without|avoid(?:ing)?|skip(?:ping)?|instead of|rather than|neither|nor)|n['’]t)"
    r"(?:\s+(?:use|using|do|doing|run|running|try|train|training|evaluate|evaluating|apply|it|its|the|an?|any|to|with|on|"
    r"by|for|in|or|nor|convert|conversion|upload|model|adapter|results?|weights))*\s+[\"'`*]*$"
)
"""What stands before something that is not wanted."""

AREA_WORDS: dict[TaskArea, str] = {
    "code": r"cod(?:e|es|ing|er)|programming|program synthesis|python|leetcode|codeforces",
    "math": r"maths?|mathematics|mathematical|arithmetic|algebra|word problems",
    "instruction-following": r"instruction[- ]following|follow(?:ing|s)?(?: \w+)? instructions",
}
DATASET_AREAS: dict[TaskArea, str] = {
    "code": r"code|coding|python|humaneval|mbpp|swe",
    "math": r"math|gsm|aime|algebra",
    "instruction-following": r"capybara|instruct|chat|ultrafeedback|alpaca|dolly|oasst|no_robots|tulu|hh-rlhf|sharegpt",
}
"""Parts of a dataset's id that tell what it is good for."""


class BenchmarkWord(NamedTuple):
    """How people write a benchmark."""

    pattern: str
    name: str
    area: TaskArea


BENCHMARKS = (
    BenchmarkWord(r"(?:openai[_/-])?(?:openai_)?human[-_ ]?eval", "openai_humaneval", "code"),
    BenchmarkWord(r"human[-_ ]?eval(?:\+|[-_ ]?plus)", "humaneval_plus", "code"),
    BenchmarkWord(r"procedural[-_]python", "procedural_python", "code"),
    BenchmarkWord(r"procedural[-_]math", "procedural_math", "math"),
    BenchmarkWord(r"reasoning[-_ ]gym", "reasoning_gym", "math"),
    BenchmarkWord(r"mbpp", "mbpp", "code"),
    BenchmarkWord(r"(?:openai/)?gsm-?8k", "gsm8k", "math"),
    BenchmarkWord(r"math[-_]500", "math_500", "math"),
    BenchmarkWord(r"if-?eval", "ifeval", "instruction-following"),
    BenchmarkWord(r"ifbench(?:_test)?", "ifbench_test", "instruction-following"),
)
OTHER_BENCHMARKS = (
    r"\w{2,}-?bench|mmlu(?:[-_ ]pro)?|hellaswag|gpqa|truthfulqa|winogrande|bbh|ds-?1000|cruxeval|multipl-e|mt-bench"
)
"""Benchmarks that people ask for and that must not quietly become another one."""
PLAIN_BENCHMARK_WORDS = (
    r"the|an?|any|all|some|this|that|these|those|its?|same|standard|public|usual|common|default|popular|known|other|"
    r"another|my|our|your|good|better|best|each|every|own|embedded|built-in|held-out|search|confirm|final|new|hidden|"
    r"official|right|solving|relevant|reasoning|chosen|following"
)
"""What may stand before the word benchmark without being the name of one."""

FLAVORS = (
    r"cpu-(?:basic|upgrade|performance|xl)|zero-a10g|v5e-\w+|"
    r"(?:\d+\s?x\s?)?(?:nvidia[- ])?(?:a10g?|a100|l4|l40s?|t4|h100|h200|b200|rtx[- ]?(?:pro[- ]?)?\d+\w*)"
    r"(?:-?(?:small|medium|large|\d+gb))?(?:-?x\d+)?s?|"
    r"\d+\s?x?\s?gpus|multi[- ]gpu"
)
"""Hardware by the names of Hugging Face Jobs, and as people write it."""

DATASET_NAMES = {"gsm8k": "openai/gsm8k", "codeforces-cots": "open-r1/codeforces-cots", "capybara": "trl-lib/Capybara"}
"""Datasets that people call by the last part of their id, in lower case."""


class Family(NamedTuple):
    """How a family of models spells its ids."""

    prefix: str
    org: str
    unit: str
    """The letter after the number of weights: B or b."""


FAMILIES = (
    Family("Qwen", "Qwen", "B"),
    Family("SmolLM", "HuggingFaceTB", "B"),
    Family("Llama", "meta-llama", "B"),
    Family("Meta-Llama", "meta-llama", "B"),
    Family("gemma", "google", "b"),
)

_PLAIN = """and or either input output inputs outputs prompt response prompts responses pass fail train test eval valid
true false yes no before after question answer questions answers his her he she user assistant chosen rejected w wo n a
i o on off in out read write problem solution"""
PLAIN_PAIRS = frozenset(_PLAIN.split())
"""Words that people join by a slash without meaning an id, such as and/or."""


def denied(text: str, start: int) -> bool:
    """Whether the words before a place say that what stands there is not wanted: `do not use ...`."""
    return re.search(DENIAL, text[:start], re.IGNORECASE) is not None
