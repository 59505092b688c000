"""Puts our problems, our judge and our generation into lighteval 0.13's Pipeline, and nothing else.

lighteval's own registry is never loaded: it takes 10 s, and with huggingface_hub 2 or without network it fails. Its
cache of predictions is never used: its key does not contain the weights, so trained weights would be given the
answers of their predecessor. Importing this module imports lighteval (5 s).
"""

import json
import logging
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lighteval.logging.evaluation_tracker import EvaluationTracker
from lighteval.metrics.metrics_sample import SampleLevelComputation, SamplingMetric
from lighteval.metrics.utils.metric_utils import SampleLevelMetric
from lighteval.models.abstract_model import LightevalModel, ModelConfig
from lighteval.models.model_output import ModelResponse
from lighteval.pipeline import ParallelismManager, Pipeline, PipelineParameters
from lighteval.tasks.lighteval_task import LightevalTask, LightevalTaskConfig
from lighteval.tasks.prompt_manager import PromptManager
from lighteval.tasks.registry import Registry
from lighteval.tasks.requests import Doc, SamplingMethod

from hfagent.agent.sequential import streaming_order
from hfagent.job_templates.generation import Decoding, generate
from hfagent.tools.judging import Judge, is_complete, program, stops
from hfagent.tools.problem import Problem

METRIC = "pass@1"
PROMPT_TOKENS = 2048
"""Room for the prompt in a vLLM engine; the longest prompt of HumanEval has about 500 tokens."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One sample of one problem."""

    id: str
    prompt: str
    completion: str
    program: str
    """What was run to judge it; empty where nothing was."""
    kind: str
    detail: str


class PassFraction(SampleLevelComputation, SamplingMetric):  # type: ignore[misc]
    """Judges every sample; a problem's score is the share of its samples that pass.

    An answer is judged once: when it is there if the model tells (`judge`), else at the end (`compute`).
    """

    def __init__(self, problems: Sequence[Problem], judge: Judge, *, num_samples: int) -> None:
        self.checks = {problem.id: problem.check for problem in problems}
        self.judges = judge
        self.samples = num_samples
        self.tried: list[Tried] = []

    def num_samples(self) -> int:
        """Asked by lighteval, which passes it on to the model."""
        return self.samples

    def judge(self, answers: Iterable[tuple[str, str]]) -> Iterator[None]:
        """Judge these answers, pairs of problem id and text, one a step; any thread may do so."""
        return self.judges.judge((self.checks[name], text) for name, text in answers)

    def fraction(self, name: str, texts: Sequence[str]) -> float:
        """The share of a problem's samples that passed; all were judged."""
        return sum(self.judges.judgement(self.checks[name], text).passed for text in texts) / len(texts)

    def compute(self, docs: list[Doc], responses: list[ModelResponse], **_: Any) -> list[float]:
        """The fractions, in the documents' order; NaN for a document that has no answers."""
        answers = [
            (doc.specific["id"], doc.query, text)
            for doc, response in zip(docs, responses, strict=True)
            for text in response.final_text
        ]
        list(self.judge((name, text) for name, _, text in answers))
        self.tried = []
        for name, prompt, text in answers:
            found = self.judges.judgement(self.checks[name], text)
            self.tried.append(Tried(name, prompt, text, program(self.checks[name], text), found.kind, found.detail))
        passed = self.fractions()
        return [passed.get(doc.specific["id"], float("nan")) for doc in docs]

    def fractions(self) -> dict[str, float]:
        """Id of each problem that was answered -> share of its samples that passed, in the problems' order."""
        answered = {one.id for one in self.tried}
        passed = Counter(one.id for one in self.tried if one.kind == "passed")
        return {name: passed[name] / self.samples for name in self.checks if name in answered}

    def errors(self) -> dict[str, int]:
        """Kind of failure -> number of samples, most frequent first."""
        return dict(Counter(one.kind for one in self.tried if one.kind != "passed").most_common())

    def save(self, path: Path) -> None:
        """One line of JSON for each sample."""
        path.write_text("".join(json.dumps(asdict(one)) + "\n" for one in self.tried), encoding="utf-8")

    def __deepcopy__(self, _: dict[int, Any]) -> "PassFraction":
        """The registry copies a task with its metrics; what was tried must stay readable here."""
        return self


class NoCache:
    """Stands where lighteval expects its cache of predictions."""

    def __init__(self, config: Any = None) -> None:
        """Nothing is read and nothing is written."""

    def _init_registry(self, registry: Registry) -> None:
        """Called by the pipeline."""


class OwnGeneration(LightevalModel):  # type: ignore[misc]
    """A loaded model, generating by `generation.generate` or by a function that is called alike.

    It answers in the order of `streaming_order`, so that the problems answered so far are a random part of all, and
    has the answers of a batch judged while the next one is generated.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        chat: bool,
        decoding: Decoding,
        metric: PassFraction,
        progress: Callable[[int, int, float], None],
        futile: Callable[[dict[str, float]], bool] | None,
        generator: Callable[..., list[list[str]]] = generate,
    ) -> None:
        self.model, self._tokenizer, self.generator = model, tokenizer, generator
        self.chat, self.decoding, self.metric = chat, decoding, metric
        self.progress, self.futile = progress, futile
        self.config = ModelConfig(model_name=name)
        self._cache = NoCache()

    @property
    def tokenizer(self) -> Any:
        """As lighteval asks for it."""
        return self._tokenizer

    @property
    def add_special_tokens(self) -> bool:
        """A chat template writes them itself."""
        return not self.chat

    @property
    def max_length(self) -> int:
        """No task of ours compares likelihoods, for which prompts are cut."""
        raise NotImplementedError

    def greedy_until(self, docs: list[Doc]) -> list[ModelResponse]:
        """The samples of each document, none where the evaluation ended before it; `greedy` is lighteval's name."""
        by_id = {doc.specific["id"]: doc for doc in docs}
        order = streaming_order(list(by_id), self.decoding.seed)
        manager = PromptManager(use_chat_template=self.chat, tokenizer=self._tokenizer)
        prompts = {name: manager.prepare_prompt(by_id[name]) for name in order}
        stop, metric = self.futile, self.metric

        def enough(samples: list[list[str]]) -> bool:
            answered = zip(order, samples, strict=False)  # the first of all
            return stop is not None and stop({name: metric.fraction(name, texts) for name, texts in answered})

        answers = self.generator(
            self.model,
            self._tokenizer,
            prompts=list(prompts.values()),
            decoding=self.decoding,
            is_complete=lambda index, text: is_complete(metric.checks[order[index]], text, chat=self.chat),
            progress=self.progress,
            add_special_tokens=self.add_special_tokens,
            answered=lambda pairs: metric.judge((order[index], text) for index, text in pairs),
            enough=enough,
        )
        texts = dict(zip(order, answers, strict=True))
        return [ModelResponse(input=prompts[name], text=texts[name]) for name in by_id]

    def loglikelihood(self, docs: list[Doc]) -> list[ModelResponse]:
        """No task of ours compares likelihoods."""
        raise NotImplementedError

    def loglikelihood_rolling(self, docs: list[Doc]) -> list[ModelResponse]:
        """No task of ours compares likelihoods."""
        raise NotImplementedError


def vllm_model(folder: str, revision: str, *, dtype: str, chat: bool, decoding: Decoding) -> Any:
    """lighteval's own vLLM model without its cache. Untested: it needs a GPU."""
    from lighteval.models.model_input import GenerationParameters
    from lighteval.models.vllm import vllm_model as module

    module.SampleCache = NoCache
    parameters = GenerationParameters(
        temperature=decoding.temperature, max_new_tokens=decoding.max_new_tokens, seed=decoding.seed
    )
    config = module.VLLMModelConfig(
        model_name=folder,
        revision=revision,
        dtype=dtype,
        seed=decoding.seed,
        max_num_seqs=decoding.batch_size,
        max_model_length=PROMPT_TOKENS + decoding.max_new_tokens,
        gpu_memory_utilization=0.85,
        add_special_tokens=not chat,
        override_chat_template=chat,
        generation_parameters=parameters,
    )
    model = module.VLLMModel(config)
    model.greedy_until = model._greedy_until  # without the decorator that reads the cache
    return model


def run(
    model: LightevalModel, metric: PassFraction, *, name: str, problems: Sequence[Problem], chat: bool, vllm: bool
) -> float:
    """The benchmark's score by lighteval's pipeline; the metric then knows every sample.

    Args:
        model: Generates the answers.
        metric: Judges them.
        name: The task's name.
        problems: What is asked.
        chat: Whether the model gets the prompt as a user's message, else it continues the prefix.
        vllm: Whether the model is a vLLM engine.
    """
    asked = {problem.id: problem for problem in problems}
    name = re.sub(r"\W", "_", name)  # a file's name may hold what means something to lighteval

    def document(line: dict[str, Any], task_name: str) -> Doc:
        problem = asked[line["id"]]
        query = problem.prompt if chat else problem.prefix
        return Doc(query=query, choices=[""], gold_index=0, specific={"id": problem.id}, task_name=task_name)

    task = LightevalTaskConfig(
        name=name,
        prompt_function=document,
        hf_repo=name,
        hf_subset="default",
        metrics=[_metric(metric)],
        hf_avail_splits=["test"],
        evaluation_splits=["test"],
        generation_size=max(problem.max_new_tokens for problem in problems),
        stop_sequence=_common([stops(problem.check) for problem in problems]),
    )
    logging.getLogger("lighteval").setLevel(logging.ERROR)  # it warns of few-shot examples, of which there are none
    Registry.load_all_task_configs = staticmethod(lambda **_: {name: task})
    LightevalTask.download_dataset_worker = staticmethod(
        lambda _: {"test": [{"id": problem_id} for problem_id in asked]}
    )
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline(
            tasks=f"{name}|0",
            pipeline_parameters=PipelineParameters(
                launcher_type=ParallelismManager.VLLM if vllm else ParallelismManager.NONE, bootstrap_iters=0
            ),
            evaluation_tracker=EvaluationTracker(output_dir=folder, save_details=False),
            model=model,
        )
        pipeline.evaluate()
    return float(pipeline.evaluation_tracker.metrics_logger.metric_aggregated[f"{name}|0"][METRIC])


def _common(stops: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """An engine stops all answers alike; what it does not cut is cut where the answer is judged."""
    return tuple(stop for stop in stops[0] if all(stop in others for others in stops))


def _metric(metric: PassFraction) -> SampleLevelMetric:
    return SampleLevelMetric(
        metric_name=METRIC,
        higher_is_better=True,
        category=SamplingMethod.GENERATIVE,
        sample_level_fn=metric,
        corpus_level_fn=np.nanmean,  # over the documents that were answered
        batched_compute=True,
    )
