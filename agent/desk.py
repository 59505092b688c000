"""The desk at which a night is worked: the open ledger, the state, and the few acts that change the world.

Every act appends what it is about to do before it does it, and what came of it afterwards.
"""

import json
from datetime import datetime
from pathlib import Path

from hfagent import __version__
from hfagent.agent import data_rules, envelope, hypotheses, jobs, policy, rules, shipping, thresholds
from hfagent.agent.claim import claim
from hfagent.agent.control import Request
from hfagent.agent.dataset_records import DatasetReport
from hfagent.agent.decide import decide
from hfagent.agent.errors import EvaluationError, PlanRejected
from hfagent.agent.events import (
    Claimed,
    Compared,
    ContaminationChecked,
    DataPrepared,
    DatasetChecked,
    Decided,
    LookTaken,
    ModelPrepared,
    ProjectEnded,
    Proposed,
    Refused,
    SearchEnded,
)
from hfagent.agent.evidence import evidence, inputs, trials
from hfagent.agent.integrity import ContaminationReport
from hfagent.agent.job_desk import JobDesk
from hfagent.agent.ledger import Ledger
from hfagent.agent.model_card import model_card
from hfagent.agent.pace import Pace
from hfagent.agent.planner_facts import ApprovalAsked, Approved, Noted, Paused, Unpaused, Vetoed
from hfagent.agent.ports import Ports
from hfagent.agent.records import (
    DatasetRef,
    Decision,
    Export,
    JobSpec,
    ProblemSet,
    Refusal,
    RunSpec,
    Score,
)
from hfagent.agent.rules import SEARCH_EXHAUSTED
from hfagent.agent.state import root_name
from hfagent.agent.upkeep_facts import ClockJumped, LimitNear
from hfagent.agent.verdict import Verdict, compare


class Desk(JobDesk):
    """What a planner may do with a project."""

    def __init__(self, ledger: Ledger, ports: Ports):
        super().__init__(ledger, ports)
        self._pace = Pace(ports.clock)

    def notice_jump(self) -> None:
        """Record that the clock was set, or that the machine slept, since the last look."""
        jump = self._pace.jump_s()
        if jump is not None:
            self.append(ClockJumped(seconds=jump))

    def warn(self) -> None:
        """Say once of each limit that most of it is used."""
        for limit, share in envelope.used(self.state, self.now).items():
            if share >= envelope.NEAR and limit not in self.state.warned:
                self.append(LimitNear(limit=limit, share=share))

    def end_search(self) -> None:
        """End the training jobs beside a model that is good enough. What is trained already is scored: it may be better
        still, and an evaluation is short."""
        why = policy.enough(self.state)
        for attempt in self.state.open_attempts if why is not None else ():
            if attempt.job.kind == "train" and attempt.cancel_why is None:
                self.cancel(attempt, f"not needed any more: {why}")

    def check_dataset(self) -> DatasetReport | Refusal:
        """Make model and data loadable, then judge the data for every method."""
        plan = self.state.plan
        if self.state.dataset is not None:
            return self.refuse(Refusal(what="check the dataset", why="already checked"))
        base = plan.model if plan.stage is None else plan.stage.base
        tokenizer = str(self.ports.models.prepare(base))
        if self.state.model_path is None:
            # What an earlier stage left is where its jobs put it, which may be no place of this machine.
            model = tokenizer if plan.model.id == base.id else plan.model.id
            teacher = None if plan.teacher is None else str(self.ports.models.prepare(plan.teacher))
            self.append(ModelPrepared(path=model, vocab_size=_vocab_size(Path(tokenizer)), teacher=teacher))
        if self.state.data_path is None:
            path = self.ports.datasets.prepare(plan.dataset, rows=plan.train.max_rows, seed=plan.train.seed)
            self.append(DataPrepared(path=str(path)))
        report = self.ports.checker.check(
            self._data(),
            model=base.model_copy(update={"id": tokenizer}),
            max_length=plan.train.max_length,
        )
        report = report.model_copy(update={"dataset": plan.dataset.id})
        self.append(DatasetChecked(report=report))
        return report

    def check_contamination(self) -> ContaminationReport | Refusal:
        """Compare the training rows with every benchmark problem; the plan may have such rows left out."""
        plan = self.state.plan
        refusal = data_rules.check_firewall(self.state)
        if refusal is not None:
            return self.refuse(refusal)
        data = self._data()
        report = self.ports.firewall.check(
            data,
            name=plan.dataset.id,
            benchmarks=(plan.search, plan.confirm, *plan.guards),
            max_rows=plan.train.max_rows,
        )
        self.append(ContaminationChecked(report=report))  # before the copy, which holds no evidence any more
        if data_rules.uncleaned(self.state):
            copy = self.ports.firewall.clean(data, report, max_rows=plan.train.max_rows)
            self.append(DataPrepared(path=copy.id, cleaned=True))
        return report

    def launch(self, run: RunSpec | Refusal) -> Refusal | JobSpec:
        """Start a run's job, if policy allows: intent on disk first, then the submit under the key."""
        if isinstance(run, Refusal):
            return self.refuse(run)
        refusal = policy.check_launch(self.state, run, self.now)
        if refusal is not None:
            return self.refuse(refusal)
        if run.repeat and self.state.search_ended is None:
            due = rules.next_move(self.state, self.now)
            if due is not None and not due.args.get("repeat"):
                return self.refuse(Refusal(what=f"launch {run.name}", why=f"the search is not over: {due.tool} is due"))
            over = rules.search_over(self.state, self.now)
            self.append(SearchEnded(reason=over or "what is kept is confirmed instead"))
        if run.kind in ("train", "smoke"):
            self._data()
        job = jobs.job_spec(self.state, run, self.now)
        self.start(run, job)
        return job

    def compare(self, run: str, problems: ProblemSet) -> Refusal | Verdict:
        """Compare a training run with the base model on the same problems; on the confirm set it is a counted look."""
        refusal = policy.check_compare(self.state, run, problems)
        if refusal is not None:
            return self.refuse(refusal)
        if problems == "search":
            return self._compare(run, None, problems, alpha=thresholds.ALPHA)
        plan = self.state.plan
        taken = next((look for look in self.state.looks if look.run == run), None)
        if taken is None:
            look = self.ports.looks.take(plan.model, plan.confirm, project=plan.label, candidate=run)
            taken = LookTaken(run=run, look=look.number, alpha=look.alpha)
            self.append(taken)
        return self._compare(run, None, problems, alpha=taken.alpha)

    def plan_run(self, why: str, lever: str | None = None, value: float | None = None) -> Refusal | Proposed:
        """Plan the next set of hyperparameters: a planner's own idea where a lever is named, else the search's.

        An idea passes the checks of any set.
        """
        refusal = policy.check_propose(self.state, self.now)
        if refusal is not None:
            return self.refuse(refusal)
        past = trials(self.state)
        if lever is None:
            try:
                fact: Proposed | Refusal = self.ports.searcher.propose(self.state.plan, past)
            except PlanRejected as error:
                fact = Refusal(what=SEARCH_EXHAUSTED, why=str(error))
        elif value is None:
            fact = Refusal(what=f"plan a run with another {lever}", why="its new value is not given")
        else:
            fact = hypotheses.enqueue(self.state.plan, past, {lever: value}, why)
        if isinstance(fact, Refusal):
            return self.refuse(fact)
        self.append(fact)
        return fact

    def decide(self, run: str) -> Refusal | Decision:
        """Decide about a training run by rule; the rule's numbers are recorded with it."""
        refusal = policy.check_decide(self.state, run, self.now)
        if refusal is not None:
            return self.refuse(refusal)
        broken = policy.cut_short(self.state, run, self.now)
        if broken is not None:
            self.append(Decided(about=run, decision=broken))
            return broken
        parent = self.state.runs[run].spec.parent
        both = parent is not None and all(self.state.scored(name, "search") for name in (run, parent))
        if both and not self.state.compared(run, str(parent), "search"):
            self._compare(run, parent, "search", alpha=thresholds.ALPHA)
        found = evidence(self.state, run, self.now)
        decision = decide(found).model_copy(update={"inputs": inputs(self.state, found)})
        self.append(Decided(about=run, decision=decision))
        return decision

    def ship(self, export: Export, *, since: datetime | None = None) -> Refusal | JobSpec | None:
        """Start the next job of the release, the cards of a push written first; None once all is done.

        `since` as in `shipping.next_run`.
        """
        run = shipping.next_run(self.state, export, self.now, since=since)
        if run is None:
            return None
        refusal = policy.check_launch(self.state, run, self.now)
        if refusal is not None:
            return self.refuse(refusal)
        if run.kind == "publish":
            for gguf in (False, True) if run.export and run.export.quantize else (False,):
                path = jobs.card_path(self.state, run, gguf=gguf)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(model_card(self.state, run, __version__, gguf=gguf), encoding="utf-8")
        return self.launch(run)

    def publish(self) -> Refusal | JobSpec:
        """The next job of what the plan asks for, to where a person said."""
        asked = self.state.plan.export
        if asked is None:
            return self.refuse(Refusal(what="publish", why="nobody asked for an export: a person names the repo"))
        return self.ship(asked) or self.refuse(Refusal(what="publish", why="all that was asked for is done"))

    def finish(self, outcome: str, reason: str) -> Refusal | None:
        """End the night, if nothing that the plan asks for is left."""
        refusal = rules.check_finish(self.state, self.now, outcome)
        if refusal is not None:
            return self.refuse(refusal)
        self._end(ProjectEnded.model_validate({"state": outcome, "reason": reason}))
        return None

    def note(self, text: str) -> Noted:
        """Keep a remark for the report."""
        fact = Noted(text=text)
        self.append(fact)
        return fact

    def refuse(self, refusal: Refusal) -> Refusal:
        """Record a refusal."""
        self.append(Refused(refusal=refusal))
        return refusal

    def heed(self, request: Request) -> Refusal | None:
        """Do what a person asks for; a request to stop is the loop's."""
        request = self._named(request)
        why = policy.check_heed(self.state, request)
        if why is not None:
            return self.refuse(Refusal(what=f"{request.ask} {request.run or ''}".strip(), why=why))
        name, text = str(request.run), request.text
        match request.ask:
            case "pause" if self.state.wishes.paused is None:
                self.append(Paused(why=f"paused by a person{f': {text}' if text else ''}"))
            case "resume" if self.state.wishes.paused is not None:
                self.append(Unpaused())
            case "approve":
                self.append(Approved(run=name))
            case "veto":
                self.append(Vetoed(run=name, why=text or "vetoed"))
                for attempt in self.state.open_attempts:
                    if attempt.job.run == name:
                        self.cancel(attempt, f"vetoed by a person: {text or 'no reason given'}")
            case "steer" if text:
                self.append(Noted(text=text, by="person"))
        return None

    def ask_approval(self) -> None:
        """Say once that a training run waits for a person."""
        name = rules.to_approve(self.state, self.now)
        if name is not None and name not in self.state.wishes.asked:
            self.append(ApprovalAsked(run=name))

    def stop(self, reason: str) -> None:
        """Cancel what runs and end the project as stopped; nothing that was only intended is started for it."""
        self.end_jobs(reason)
        self._end(ProjectEnded(state="stopped", reason=reason))

    # --- inside ------------------------------------------------------------------------------------------------------

    def _data(self) -> DatasetRef:
        """What is trained on; where the model made it, it is still what its job wrote.

        Raises:
            DatasetError: it is not.
        """
        data, sha256 = self.state.data, self.state.data_sha256
        if sha256 is not None:
            self.ports.datasets.verify(data.id, sha256=sha256)
        return data

    def _named(self, request: Request) -> Request:
        """The request with the run that it can only mean."""
        if request.run is not None or request.ask not in ("approve", "veto"):
            return request
        running = [a.job.run for a in self.state.open_attempts if a.job.kind == "train"]
        pending = self.state.pending
        planned = None if pending is None else root_name(self.state.plan.method, pending.number)
        waiting = rules.to_approve(self.state, self.now)
        meant = None if len(running) > 1 else next(iter(running), planned)
        name = waiting or (meant if request.ask == "veto" else None)
        return request.model_copy(update={"run": name})

    def _end(self, fact: ProjectEnded) -> None:
        self.settle()
        made = claim(self.state)
        if made != self.state.claim:  # a crash may have come between the two
            self.append(Claimed(claim=made))
        self.append(fact)

    def _compare(self, candidate: str, reference: str | None, problems: ProblemSet, *, alpha: float) -> Verdict:
        ours, theirs = self._score(candidate, problems), self._score(reference, problems)
        # An evaluation that was ended early has answered a part, by an order that knows nothing of the answers.
        both = ours.outcomes.keys() & theirs.outcomes.keys()
        verdict = compare(
            {problem: theirs.outcomes[problem] for problem in both},
            {problem: ours.outcomes[problem] for problem in both},
            alpha=alpha,
        )
        self.append(Compared(candidate=candidate, reference=reference, set=problems, verdict=verdict))
        return verdict

    def _score(self, subject: str | None, problems: ProblemSet) -> Score:
        run = self.state.scored(subject, problems)
        if run is None or run.score is None:
            raise EvaluationError(f"{subject or 'the base model'} has no score on the {problems} set")
        return run.score


def _vocab_size(model: Path) -> int | None:
    """By the configuration in the model's folder; None where there is none."""
    try:
        found = json.loads((model / "config.json").read_text(encoding="utf-8")).get("vocab_size")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, int) and found > 1 else None
