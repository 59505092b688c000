"""Our loop gives the tokens that transformers' own `generate` gives, whatever a model keeps between tokens."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
from tiny_model import write_tiny_model

from hfagent.job_templates.generation import Decoding, generate, shared_prefix

PROMPTS = ["w1 w2 w3 w4", "w1 w2 w3 " + " ".join(f"w{i}" for i in range(5, 30)), "w1 w2 w3 w9 w8", "w1 w2 w3 w7"]
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 1,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(write_tiny_model(tmp_path_factory.mktemp("tiny")))


def random_model(kind: str, tokenizer: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    extra: dict[str, Any] = {
        "llama": {},
        "mistral": {"sliding_window": 8},  # shorter than the prompts
        "lfm2": {"layer_types": ["conv", "full_attention"]},  # a convolution's state
    }[kind]
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=len(tokenizer), **SHAPE, **extra))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # at the usual 0.02 every prompt gets the same answer
    return model.float().eval()


def answers(model: Any, tokenizer: Any, *, stop_at: str = "", **changes: Any) -> list[list[str]]:
    decoding = Decoding(**{"max_new_tokens": 12, "batch_size": 3, **changes})
    return generate(
        model,
        tokenizer,
        prompts=PROMPTS,
        decoding=decoding,
        is_complete=lambda _, text: bool(stop_at) and stop_at in text.split(),
        progress=lambda done, total, seconds: None,
    )


@pytest.mark.parametrize("kind", ["llama", "mistral", "lfm2"])
def test_a_batch_gives_what_transformers_gives_one_by_one(kind: str, tokenizer: Any) -> None:
    model = random_model(kind, tokenizer)
    expected = []
    for prompt in PROMPTS:
        encoded = tokenizer(prompt, return_tensors="pt")
        length = encoded["input_ids"].shape[1]
        output = model.generate(**encoded, max_new_tokens=12, do_sample=False)
        expected.append([tokenizer.decode(output[0, length:], skip_special_tokens=True)])
    assert len({answer for [answer] in expected}) > 1
    assert answers(model, tokenizer) == expected


def test_an_answer_ends_where_it_is_complete_and_the_others_go_on(tokenizer: Any) -> None:
    model = random_model("llama", tokenizer)
    full = [text for [text] in answers(model, tokenizer)]
    word = full[0].split()[3]
    expected = [" ".join(words[: words.index(word) + 1 if word in words else None]) for words in map(str.split, full)]
    assert [text for [text] in answers(model, tokenizer, stop_at=word)] == expected != full


def test_samples_differ_from_each_other_and_repeat_with_their_seed(tokenizer: Any) -> None:
    model = random_model("llama", tokenizer)
    sampled = answers(model, tokenizer, num_samples=3, temperature=1.5)
    assert [len(set(texts)) > 1 for texts in sampled] == [True] * len(PROMPTS)
    assert answers(model, tokenizer, num_samples=3, temperature=1.5) == sampled
    assert answers(model, tokenizer, num_samples=3, temperature=1.5, seed=1) != sampled


def test_progress_counts_every_answer_and_a_failure_reaches_the_caller(tokenizer: Any) -> None:
    model = random_model("llama", tokenizer)
    told: list[tuple[int, int]] = []
    decoding = Decoding(max_new_tokens=5, batch_size=1)

    def run(is_complete: Callable[[int, str], bool]) -> None:
        generate(
            model,
            tokenizer,
            prompts=PROMPTS,
            decoding=decoding,
            is_complete=is_complete,
            progress=lambda done, total, seconds: told.append((done, total)),
        )

    run(lambda *_: False)
    assert sorted(told) == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(ZeroDivisionError):
        run(lambda *_: bool(1 / 0))


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [([[1, 2, 3], [1, 2, 4]], 2), ([[1, 2], [1, 2, 3]], 1), ([[5], [5]], 0), ([[1, 2], [3, 4]], 0), ([[1, 2, 3]], 2)],
)
def test_the_shared_prefix_leaves_each_prompt_a_token(prompts: list[list[int]], shared: int) -> None:
    assert shared_prefix(prompts) == shared


class Listener:
    """Notes what it is told, and has enough after so many prompts."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.told: list[tuple[int, str]] = []
        self.asked: list[list[list[str]]] = []

    def answered(self, pairs: Sequence[tuple[int, str]]) -> Iterator[None]:
        for pair in pairs:
            self.told.append(pair)
            yield

    def enough(self, samples: list[list[str]]) -> bool:
        self.asked.append(samples)
        return len(samples) >= self.after


def listened(model: Any, tokenizer: Any, listener: Listener, **changes: Any) -> list[list[str]]:
    return generate(
        model,
        tokenizer,
        prompts=PROMPTS,
        decoding=Decoding(**{"max_new_tokens": 12, "batch_size": 1, **changes}),
        is_complete=lambda *_: False,
        progress=lambda done, total, seconds: None,
        answered=listener.answered,
        enough=listener.enough,
    )


def test_every_answer_is_told_and_nothing_changes_while_it_is_not_enough(tokenizer: Any) -> None:
    model = random_model("llama", tokenizer)
    listener = Listener(after=99)
    found = listened(model, tokenizer, listener)
    assert found == answers(model, tokenizer, batch_size=1)
    assert sorted(listener.told) == [(prompt, text) for prompt, [text] in enumerate(found)]
    assert listener.asked == [found[:1], found[:2], found[:3]]  # not after the last: nothing is left to spare


@pytest.mark.parametrize("after", [1, 2, 3])
def test_where_it_is_enough_the_first_prompts_have_the_answers_that_they_always_have(
    after: int, tokenizer: Any
) -> None:
    model = random_model("llama", tokenizer)
    listener = Listener(after)
    expected = answers(model, tokenizer, batch_size=1)
    assert listened(model, tokenizer, listener) == [*expected[:after], *([[]] * (len(PROMPTS) - after))]
    assert [len(samples) for samples in listener.asked] == list(range(1, after + 1))


def test_a_prompt_counts_once_all_its_samples_are_there(tokenizer: Any) -> None:
    model = random_model("llama", tokenizer)
    listener = Listener(after=99)
    listened(model, tokenizer, listener, num_samples=3, temperature=1.5, batch_size=4)
    assert [[len(texts) for texts in samples] for samples in listener.asked] == [[3], [3, 3]]


def test_a_failure_of_the_listener_reaches_the_caller(tokenizer: Any) -> None:
    class Failing(Listener):
        def answered(self, pairs: Iterable[tuple[int, str]]) -> Iterator[None]:
            raise ZeroDivisionError
            yield

    with pytest.raises(ZeroDivisionError):
        listened(random_model("llama", tokenizer), tokenizer, Failing(after=1))
