"""Questions that no pattern knows are answered by the model that plans, from the same facts that a planner gets."""

from datetime import datetime

from smolagents import ChatMessage, MessageRole, Model

from hfagent.agent.brief import brief, cut, load_prompt, plain_text
from hfagent.agent.redact import redact
from hfagent.agent.state import State

MAX_CHARS = 1500


def answer(question: str, state: State, model: Model, now: datetime) -> str:
    """The model's words: at most MAX_CHARS, without control characters or secrets.

    Raises:
        PlannerAway: it does not answer.
    """
    text = f"{brief(state, now)}\n\nThe question: {cut(question, 1000)}"
    messages = [
        ChatMessage(role=role, content=[{"type": "text", "text": part}])
        for role, part in ((MessageRole.SYSTEM, load_prompt("answer.md")), (MessageRole.USER, text))
    ]
    said = model.generate(messages).content
    return redact(plain_text(said if isinstance(said, str) else "", MAX_CHARS)) or "(no answer)"
