"""How jobs go in a simulated world, from their arguments: how long, how they end, and what they leave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hfagent.agent.fakes import Ending
from hfagent.agent.records import BenchmarkRef, JobSpec, TrainConfig
from hfagent.agent.runs import Attempt
from hfagent.agent.sequential import FutilityGoal, futile, streaming_order
from hfagent.agent.simulator import Trained, Training, World
from hfagent.agent.thresholds import ALPHA, FUTILITY_MIN_PROBLEMS
from hfagent.job_templates.futility import parse_reference

SMOKE_STEPS = 3
PLACE = "sim://"
CLEAN = "-clean"
"""End of a dataset's name once the firewall has left rows out."""
TRACEBACK = "Traceback (most recent call last):"


@dataclass(frozen=True)
class _Course:
    """A training job: what it does, and how fast."""

    training: Training
    step_s: float
    start_s: float
    stopped_at: int | None = None
    """The step after which a hanging job makes none."""

    def at(self, step: int) -> float:
        """Seconds from the job's start to the end of a step."""
        return self.start_s + (step - self.training.first_step) * self.step_s

    def last_step(self, elapsed_s: float) -> int:
        """The last step that is done so long after the start."""
        done = self.training.first_step + int(max(elapsed_s - self.start_s, 0) / self.step_s + 1e-9)
        return min(done, self.training.last_step if self.stopped_at is None else self.stopped_at)


class SimulatedJobs:
    """Behaviour of every job, and what is known of it afterwards."""

    def __init__(self, world: World):
        self.world = world
        self.courses: dict[str, _Course] = {}
        """Key -> course of a training job."""
        self.tracked: dict[tuple[str, str], str] = {}
        """Project and run in the tracker -> key."""
        self.full_s: dict[str, float] = {}
        """Key -> seconds that a training job takes when neither anybody nor its machine ends it early."""

    def behave(self, spec: JobSpec) -> Ending:
        """How the job goes, by its arguments: what this world does not know of them is ignored."""
        flags = _flags(spec.args)
        ending = self._evaluate(spec, flags) if spec.kind == "evaluate" else self._train(spec, flags)
        return self._troubled(spec, ending)

    def model(self, adapter: str | None) -> Trained:
        """The model behind an adapter's path; the base model without one."""
        if adapter is None:
            return self.world.base
        return self.courses[_key(adapter)].training.trained

    def skill(self, key: str) -> float:
        """True skill of the model of a training job."""
        return self.courses[key].training.trained.skill

    def ended_sound(self, attempt: Attempt) -> bool:
        """Whether a training job made a model, or would have made one if it had not been ended early."""
        course = self.courses.get(attempt.job.key)
        if course is None or attempt.lost or course.stopped_at is not None:
            return False
        return course.training.fate in ("completes", "diverges")

    def evaluation_s(self, problems: BenchmarkRef, num_samples: int) -> float:
        """Seconds of an evaluation of all problems."""
        scenario = self.world.scenario
        answers = (problems.n or scenario.answers.problems) * num_samples
        return scenario.machine.start_s + answers / scenario.machine.answers_per_s

    def canceled_result(self, key: str, elapsed_s: float) -> Mapping[str, Any] | None:
        """What a training leaves that was stopped after so many seconds: its checkpoints."""
        course = self.courses.get(key)
        return None if course is None else {"checkpoints": _checkpoints(key, course, course.last_step(elapsed_s))}

    def _train(self, spec: JobSpec, flags: Mapping[str, str]) -> Ending:
        fields = {name: flags[name] for name in TrainConfig.model_fields if name in flags}
        config = TrainConfig.model_validate(fields)
        checkpoint = flags.get("resume_from_checkpoint")
        training = self.world.train(
            spec.key,
            config,
            first_step=0 if checkpoint is None else int(checkpoint.rpartition("-")[2]),
            contaminated=not flags["dataset"].endswith(CLEAN),
            max_steps=SMOKE_STEPS if "smoke" in flags else None,
        )
        machine = self.world.scenario.machine
        batch = config.per_device_train_batch_size * config.gradient_accumulation_steps
        course = _Course(training, step_s=batch * machine.row_tokens / machine.tokens_per_s, start_s=machine.start_s)
        self.courses[spec.key] = course
        self.tracked[flags.get("project", spec.project), flags.get("run_name", spec.run)] = spec.key
        running_s = course.at(training.last_step)
        match training.fate:
            case "out_of_memory":
                log = [TRACEBACK, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."]
                return Ending(running_s, stage="ERROR", exit_code=1, message="exit code 1", log=log)
            case "nan":
                log = [f"error: training diverged: loss is NaN at step {training.last_step}; lower the learning rate"]
                return Ending(running_s, stage="ERROR", exit_code=1, message="exit code 1", log=log)
        return Ending(running_s, result=_trained(spec, flags, course))

    def _evaluate(self, spec: JobSpec, flags: Mapping[str, str]) -> Ending:
        world, adapter = self.world, flags.get("adapter")
        problems = BenchmarkRef.model_validate(
            {
                "name": flags["benchmark"],
                "set": flags["set"],
                "n": flags.get("n"),
                "seed": flags.get("benchmark_seed", 0),
            }
        )
        samples = int(flags.get("num_samples", 1))
        outcomes = world.answers(
            adapter or "base",
            self.model(adapter),
            problems,
            num_samples=samples,
            draw=f"{flags.get('batch_size')}/{flags.get('seed')}",
        )
        extra = dict[str, Any]()
        if "reference" in flags:
            outcomes, extra = _ended_early(outcomes, flags, samples)
        n = len(outcomes)
        result = {
            "benchmark": problems.model_dump(),
            "metric": "pass@1",
            "value": sum(outcomes.values()) / n,
            "n": n,
            "outcomes": outcomes,
            "harness": "simulated",
            "sandbox": "simulated",
            **extra,
        }
        return Ending(self.evaluation_s(problems.model_copy(update={"n": n}), samples), result=result)

    def _troubled(self, spec: JobSpec, ending: Ending) -> Ending:
        """The ending, if queue and machine allow it."""
        trouble, drawn = self.world.scenario.trouble, self.world.random("trouble", spec.key)
        self.full_s[spec.key] = ending.running_s
        queued_s = drawn.expovariate(1 / max(self.world.scenario.machine.queue_s, 1e-9))
        if drawn.random() < trouble.stuck_share:
            queued_s += trouble.stuck_s
        if drawn.random() < trouble.lost_share:
            return Ending(
                drawn.random() * ending.running_s,
                stage="ERROR",
                exit_code=None,
                message="the machine was lost",
                queued_s=queued_s,
            )
        course = self.courses.get(spec.key)
        if course is not None and spec.kind == "train" and drawn.random() < trouble.hang_share:
            done = course.training.last_step - course.training.first_step
            stop = course.training.first_step + int(drawn.random() * done)
            self.courses[spec.key] = replace(course, stopped_at=stop)
            return Ending(
                spec.timeout_s,
                stage="ERROR",
                exit_code=143,
                message=f"Job timeout: {spec.timeout_s} s",
                queued_s=queued_s,
            )
        if ending.running_s > spec.timeout_s:
            return Ending(
                spec.timeout_s,
                stage="ERROR",
                exit_code=143,
                message=f"Job timeout: {spec.timeout_s} s",
                queued_s=queued_s,
            )
        return replace(ending, queued_s=queued_s)


def _trained(spec: JobSpec, flags: Mapping[str, str], course: _Course) -> dict[str, Any]:
    """The RESULT of a training template, as far as a night reads it."""
    training = course.training
    losses = [loss for point in training.points if (loss := point.values.get("train/loss")) is not None]
    held_out = [loss for point in training.points if (loss := point.values.get("eval/loss")) is not None]
    checkpoints = _checkpoints(spec.key, course, training.last_step)
    steps = training.last_step - training.first_step
    return {
        "adapter": f"{PLACE}{spec.key}/adapter",
        "checkpoint": checkpoints.get(str(training.last_step)),
        "stable_checkpoint": checkpoints.get(str(training.schedule.stable)),
        "checkpoints": checkpoints,
        "steps": training.last_step,
        "epochs": round(training.epochs, 4),
        "train_loss": losses[-1] if losses else None,
        "eval_loss": held_out[-1] if held_out else None,
        "seconds": round(steps * course.step_s, 2),
        "base_model": flags["model"],
        "adapter_base_model": flags["model"],
        "base_fingerprint": "simulated",
        "weight_change": 0.01,
        "launched": training.config.model_dump(),
        "trackio_project": flags.get("project"),
        "trackio_run": flags.get("run_name"),
    }


def _checkpoints(key: str, course: _Course, last: int) -> dict[str, str]:
    """Step -> folder, of those that a training has written up to a step."""
    training = course.training
    every = training.config.save_steps
    steps = set(range(every, last + 1, every)) | {training.schedule.stable, training.last_step}
    kept = sorted(step for step in steps if training.first_step < step <= last)
    return {str(step): f"{PLACE}{key}/checkpoint-{step}" for step in kept}


def _ended_early(
    outcomes: Mapping[str, float], flags: Mapping[str, str], samples: int
) -> tuple[Mapping[str, float], dict[str, Any]]:
    """The outcomes up to where the evaluation is futile, as the template ends it."""
    reference = parse_reference(flags["reference"], list(outcomes), num_samples=samples)
    order = streaming_order(list(outcomes), int(flags.get("seed", 0)))
    goal: FutilityGoal = "significant" if flags.get("futility_goal") == "significant" else "any_gain"
    for done in range(FUTILITY_MIN_PROBLEMS, len(order), FUTILITY_MIN_PROBLEMS):
        differences = [outcomes[name] - reference[name] for name in order[:done] if name in reference]
        found = futile(
            differences,
            len(reference),
            goal=goal,
            lead=float(flags.get("lead", 0.0)),
            alpha=float(flags.get("alpha", ALPHA)),
        )
        if found is not None:
            part = {name: outcomes[name] for name in order[:done]}
            return part, {"planned_n": len(order), "futility": found.numbers}
    return outcomes, {}


def _flags(args: Sequence[str]) -> dict[str, str]:
    """`--some-name value` as some_name -> value; a flag without a value is there with an empty one."""
    found: dict[str, str] = {}
    name = None
    for word in args:
        if word.startswith("--"):
            name = word[2:].replace("-", "_")
            found[name] = ""
        elif name is not None:
            found[name], name = word, None
    return found


def _key(path: str) -> str:
    return path.removeprefix(PLACE).partition("/")[0]
