"""Reads a dataset's columns: what they hold, which of them TRL would read, and the mapping that each method needs."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hfagent.agent.dataset_records import ColumnMapping
from hfagent.agent.records import (
    Method,
)
from hfagent.tools.dataset_mapping import TEXT_OR_MESSAGES
from hfagent.tools.dataset_table import CONTENT, CONTENT_KEYS, ROLE_KEYS, Table, json_list, turn_key

Columns = dict[str, tuple[str, ...]]

CHAT_TURNS = {"prompt": "user", "completion": "assistant", "chosen": "assistant", "rejected": "assistant"}
"""`ColumnMapping.turns` that make texts a conversation. Mappings made here use it, because TRL glues a text prompt and
its completion together without a separator and without the model's chat template."""
TEMPLATE_MARKS = ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "<|user|>", "[INST]")
"""What the chat templates of ChatML (Qwen, SmolLM), Llama 3, Gemma, Phi and Zephyr, and Mistral write before a turn."""

_ALWAYS_READ = frozenset({*TEXT_OR_MESSAGES, "messages", "image", "images", "tools", "chat_template_kwargs"})
READ_BY_TRL: dict[Method, frozenset[str]] = {
    "sft": _ALWAYS_READ
    | {"text", "conversations", "input_ids", "labels", "completion_mask", "assistant_masks", "seq_lengths"},
    "dpo": _ALWAYS_READ,
    "kto": _ALWAYS_READ | {"label"},
    "grpo": frozenset({"prompt", "prompts", "completions", "image", "images"}),
    "distillation": frozenset({"prompt", "image", "images"}),
    "reward": _ALWAYS_READ | {"margin", "chosen_ids", "rejected_ids", "chosen_input_ids", "rejected_input_ids"},
}
"""Columns that change what TRL 1.16 does, wanted or not. A `prompt` beside `messages` is a KeyError, a `text` beside
prompt and completion takes the end-of-sequence token away from the completion, a `label` beside chosen and rejected
overwrites the labels that KTO makes, `completions` collides with an argument of GRPO's reward functions."""

CHATS = ("messages", "conversations", "conversation")
ROLES = {
    **dict.fromkeys(("human", "prompter", "User", "Human"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bot", "chatbot", "ai", "model", "Assistant"), "assistant"),
    **dict.fromkeys(("System",), "system"),
    **dict.fromkeys(("observation", "function", "ipython"), "tool"),
}
"""Role of another format -> chat role."""
# Order is preference: a full solution teaches more than the bare answer beside it.
SYSTEMS = ("system", "system_prompt")
PROMPTS = ("prompt", "instruction", "question", "problem", "query", "task", "user", "human", "input")
CONTEXTS = ("input", "context")
ANSWERS: tuple[str, ...] = (
    "completion",
    "response",
    "output",
    "solution",
    "answer",
    "generation",
    "reply",
    "assistant",
    "gpt",
)
ANSWERS += ("target", "canonical_solution", "code")
LABELS = ("label", "desirable", "is_preferred", "thumbs_up")
CHOSEN = frozenset({"chosen", "good", "accepted", "preferred", "winner", "winning", "better", "best", "positive"})
REJECTED = frozenset(
    {"rejected", "bad", "refused", "dispreferred", "loser", "losing", "worse", "worst", "negative", "unpreferred"}
)
NEGATIONS = frozenset({"dis", "non", "not", "un"})
ABOUT_ANSWERS = frozenset({"id", "model", "score", "rating", "source", "reason", "type", "name", "language"})
"""Words of columns that describe an answer and do not hold it."""


@dataclass(frozen=True)
class Candidate:
    """One way to train. Shapes are right; whether the single rows are is judged elsewhere."""

    mapping: ColumnMapping
    changes: tuple[str, ...]
    """What the mapping does to the rows; empty where TRL takes them as they are."""


def candidates(table: Table, method: Method, *, chat_template: bool | None = None) -> Iterator[Candidate]:
    """The mappings that give the columns a method needs, the best format first; none where no columns can be.

    Texts become turns of a chat where the model has a template for them; where that is unknown, only those whose
    columns are renamed anyway.
    """
    formats_of: dict[Method, Callable[[Table], Iterator[Columns] | Columns | None]] = {
        "sft": _sft, "dpo": _dpo, "kto": _kto, "grpo": _grpo, "reward": _dpo, "distillation": _distillation,
    }  # fmt: skip
    found = formats_of[method](table)
    formats = found if isinstance(found, Iterator) else iter([found] if found else [])
    for columns in formats:
        yield _candidate(table, method, columns, chat_template=chat_template)


def _candidate(table: Table, method: Method, columns: Columns, *, chat_template: bool | None) -> Candidate:
    extras: Columns = {}
    if method != "distillation":
        extras = _others(table, columns) if method == "grpo" else {name: (name,) for name in _usable_extras(table)}
    chats = [name for sources in columns.values() for name in sources if table.kinds[name] in ("messages", "json")]
    turns = [turn for chat in chats for turn in table.turns(chat)]
    roles = {str(turn.get(turn_key(turn, ROLE_KEYS) or "")) for turn in turns}
    mapping = ColumnMapping(
        columns=columns | extras,
        parse_json=tuple(name for name in chats if table.kinds[name] == "json"),
        roles={role: ROLES[role] for role in sorted(roles & set(ROLES))},
        turn_keys=_turn_keys(turns),
        turns=_text_turns(table, columns, chat_template=chat_template),
    )
    return Candidate(mapping, _changes(table, method, mapping))


def _sft(table: Table) -> Iterator[Columns]:
    """All formats that the columns hold: rows of several formats may be mixed in one file."""
    if messages := table.find(("messages",), "messages", "json"):
        yield {"messages": (messages,)}
    if exact := _exact_pair(table):
        yield exact
    if (chat := table.find(CHATS, "messages", "json") or _other_chat(table)) not in (None, messages):
        yield {"messages": (str(chat),)}
    if (pair := _named_pair(table)) and pair != exact:
        yield pair
    if text := table.find(("text",), "text"):
        yield {"text": (text,)}
    preference = _dpo(table) or {}
    if "prompt" in preference:
        yield {"prompt": preference["prompt"], "completion": preference["chosen"]}
    elif preference and _holds_prompt(table, preference["chosen"][0]):
        yield {"messages": preference["chosen"]}


def _dpo(table: Table) -> Columns | None:
    answers = _answers(table)
    if answers is None:
        return None
    chosen, rejected = answers
    columns: Columns = {"chosen": (chosen,), "rejected": (rejected,)}
    prompt = table.content([name for name in PROMPTS if name not in answers])
    if prompt is None or _holds_prompt(table, chosen):
        return columns
    exact = (prompt, chosen, rejected) == ("prompt", "chosen", "rejected")
    return {"prompt": (prompt,) if exact else _prompt_sources(table, prompt), **columns}


def _kto(table: Table) -> Columns | None:
    label = table.find(LABELS, "bool", "other")
    pair = _exact_pair(table) or _named_pair(table)
    # Any other number is a class or a score, and would be summed up as if it were a count of good answers.
    if label and pair and all(value in (0, 1) for value in table.values(label)):
        return {**pair, "label": (label,)}
    return _dpo(table)


def _grpo(table: Table) -> Columns | None:
    prompt = table.content(PROMPTS)
    if prompt is None:
        return None
    return {"prompt": ("prompt",) if prompt == "prompt" else _prompt_sources(table, prompt)}


def _distillation(table: Table) -> Columns | None:
    """A prompt, or a chat, of which all before its last answer is one."""
    chat = table.find(("messages",), "messages", "json") or table.find(CHATS, "messages", "json")
    return _grpo(table) or ({"messages": (chat,)} if chat else None)


def _other_chat(table: Table) -> str | None:
    chats = (name for name, kind in table.kinds.items() if kind in ("messages", "json"))
    return next((name for name in chats if name not in TEXT_OR_MESSAGES), None)


def _exact_pair(table: Table) -> Columns | None:
    if any(table.kinds.get(name) not in CONTENT for name in ("prompt", "completion")):
        return None
    return {"prompt": ("prompt",), "completion": ("completion",)}


def _named_pair(table: Table) -> Columns | None:
    prompt, answer = table.content(PROMPTS), table.content(ANSWERS)
    if prompt is None or answer is None:
        return None
    return {"prompt": _prompt_sources(table, prompt), "completion": (answer,)}


def _prompt_sources(table: Table, prompt: str) -> tuple[str, ...]:
    """A text prompt with the system prompt before it and the context after it."""
    if table.kinds[prompt] != "text":
        return (prompt,)
    around = table.find(SYSTEMS, "text"), prompt, table.find(CONTEXTS, "text")
    return tuple(dict.fromkeys(name for name in around if name))


def _answers(table: Table) -> tuple[str, str] | None:
    """The columns of the better and the worse answer: their names agree but for the words that tell them apart."""
    better: list[tuple[frozenset[str], str]] = []
    worse: list[tuple[frozenset[str], str]] = []
    for name, kind in table.kinds.items():
        words = _words(name)
        if kind not in CONTENT or words & ABOUT_ANSWERS:
            continue
        # The negated form first: "dis-preferred" holds the word "preferred" too.
        if words & REJECTED or (words & CHOSEN and words & NEGATIONS):
            worse.append((words - REJECTED - CHOSEN - NEGATIONS, name))
        elif words & CHOSEN:
            better.append((words - CHOSEN, name))
    pairs = [(one, other) for (rest, one), (same, other) in product(better, worse) if rest == same]
    return min(pairs, key=lambda pair: pair != ("chosen", "rejected"), default=None)


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))


def _holds_prompt(table: Table, answers: str) -> bool:
    """Whether the answers' own messages begin with the prompt; TRL would put a second one in front of it."""
    first = next((value for value in table.values(answers) if isinstance(value, list)), None)
    if first is None or not isinstance(first[0], Mapping):
        return False
    role = first[0].get(turn_key(first[0], ROLE_KEYS) or "")
    return ROLES.get(str(role), role) != "assistant"


def _text_turns(table: Table, columns: Columns, *, chat_template: bool | None) -> dict[str, str]:
    """Which texts become turns. Beside a list of messages all do, since TRL takes two of one kind only.

    Two texts are left alone where the model has no chat template, or where they were written for one already.
    """
    content = {target: table.kinds[sources[0]] for target, sources in columns.items() if target in CHAT_TURNS}
    texts = {target: CHAT_TURNS[target] for target, kind in content.items() if kind == "text"}
    if len(texts) < len(content):
        return texts
    as_named = all(sources == (target,) for target, sources in columns.items())
    wanted = chat_template is True or (chat_template is None and not as_named)
    return texts if wanted and not any(map(holds_template_marks, _texts(table, columns))) else {}


def _texts(table: Table, columns: Columns) -> Iterator[str]:
    names = [name for target, sources in columns.items() if target in CHAT_TURNS for name in sources]
    return (value for name in names for value in table.values(name) if isinstance(value, str))


def holds_template_marks(text: str) -> bool:
    """Whether a chat template was applied to the text already; a second one around it would be nonsense."""
    return any(mark in text for mark in TEMPLATE_MARKS)


def _turn_keys(turns: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    renamed: dict[str, str] = {}
    for turn in turns:
        for wanted, keys in (("role", ROLE_KEYS), ("content", CONTENT_KEYS)):
            if (key := turn_key(turn, keys)) not in (None, wanted):
                renamed[str(key)] = wanted
    return renamed


def _usable_extras(table: Table) -> Iterator[str]:
    """Columns of chat options that TRL can read in every row: one bad row would end the training."""
    tools = [row.get("tools") for row in table.rows]
    if "tools" in table.kinds and all(isinstance(json_list(tool), list | None) for tool in tools):
        yield "tools"
    options = [row.get("chat_template_kwargs") for row in table.rows]
    if "chat_template_kwargs" in table.kinds and all(isinstance(option, Mapping) for option in options):
        yield "chat_template_kwargs"


def _others(table: Table, columns: Columns) -> Columns:
    """Columns that GRPO hands to the reward functions: the ground truth among them, but no second conversation."""
    used = READ_BY_TRL["grpo"].union(TEXT_OR_MESSAGES, ("messages", "text"), *columns.values())
    return {name: (name,) for name, kind in table.kinds.items() if name not in used and kind != "mixed"}


def _changes(table: Table, method: Method, mapping: ColumnMapping) -> tuple[str, ...]:
    stray = {name for name, kind in table.kinds.items() if name in READ_BY_TRL[method] or kind == "mixed"}
    stray -= {source for sources in mapping.columns.values() for source in sources}
    if "messages" in mapping.columns:
        stray.discard("text")  # TRL prefers messages
    renames = {target: sources for target, sources in mapping.columns.items() if sources != (target,)}
    own = renames == {"messages": ("conversations",)} and mapping.turn_keys == {"from": "role", "value": "content"}
    if method == "sft" and own and not (stray or mapping.roles or mapping.parse_json):
        return ()  # the one rename that TRL's SFT makes by itself
    changes = [f"{' + '.join(sources)} -> {target}" for target, sources in renames.items()]
    changes += [f"JSON text of {name} is parsed" for name in mapping.parse_json]
    if mapping.turn_keys or mapping.roles:
        turns = ", ".join(f"{old} -> {new}" for old, new in (mapping.turn_keys | mapping.roles).items())
        changes.append(f"in every turn {turns}")
    if mapping.turns:
        changes.append(f"text of {', '.join(mapping.turns)} becomes a chat message")
    if stray:
        changes.append(f"{', '.join(sorted(stray))} left out, since TRL would read or refuse it")
    return tuple(changes)
