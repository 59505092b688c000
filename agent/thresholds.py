"""Every threshold by which code decides, with its source. All numbers are in one place so that a person can see and
argue with them; each decision records `VERSION`.
"""

import hashlib

# --- claims ----------------------------------------------------------------------------------------------------------

ALPHA = 0.05
"""Error rate of all looks at one confirm set together, one-sided."""

FILE_MARGIN = 0.05
"""Loss of score that a GGUF file may have; less can hardly be excluded by 200 problems. Engineering default."""

FILE_LIMIT_S = 3600.0
"""Longest evaluation of a GGUF file: llama.cpp computes on a processor, where a model of billions takes days."""

MAX_EPOCHS = 3
"""Harnesses of one problem set in a project; more means that something changes with each job."""

# --- looks and futility (sequential, looks) --------------------------------------------------------------------------

FUTILITY = 0.002
"""Predictive probability below which an evaluation ends. Of runs that are truly better by more than the noise 5 % are
lost with 0.02, 3 % with 0.01 and 2 % with 0.005, for the same hours (rehearsed: benchmarks/decisions.py)."""
FUTILITY_MIN_PROBLEMS = 50
"""Problems before the first look: looks at 25 add losses and find only what is far worse."""

# --- watching a training run (watch, remedy) -------------------------------------------------------------------------

ZERO_LOGS = 2
"""Losses of exactly 0.0 in a row that stand for NaN: transformers' default `logging_nan_inf_filter` logs it so."""
CONVERGED_LOSS = 0.01
"""A loss that came below may round to 0.0 by itself; engineering default."""
DEAD_GRADIENT_LOGS = 5
"""Infinite gradients in a row while the loss is finite; the loss scaling of fp16 skips a few such steps by design."""
DIVERGENCE_LOGS = 3
"""Logs in a row above the limit; engineering default, as are the next eight."""
DIVERGENCE_RATIO = 3.0
"""Times the floor of the loss."""
DIVERGENCE_NOISE = 8.0
"""Standard deviations of the noise of ln(loss) that the limit keeps from the floor at least: noise lowers the floor."""
DIVERGENCE_Z = 6.0
"""Robust standard deviations above the median of the last `DIVERGENCE_WINDOW` logs."""
DIVERGENCE_WINDOW = 50
DIVERGENCE_MIN_WINDOW = 20
"""Logs from which a median absolute deviation is trusted."""
DIVERGENCE_RISE = 0.5
"""Nats above the floor or the median, at least. Lower losses would be found earlier, and noise as well."""
FLOOR_LOGS = 5
"""Neighbours whose median counts for the floor."""
NOISE_LOGS = 200
"""Latest logs from which the noise between neighbours is taken."""
CHANCE_FACTOR = 2.0
"""Times ln(vocabulary), the loss of uniform guessing: no noise of a working run, one log is enough."""
CHANCE_LOGS = 2
"""Logs in a row above ln(vocabulary), in which a model that was trained before has no business; engineering default."""
HANG_S = 600.0
HANG_INTERVALS = 5.0
"""Times the median interval between two new steps, at least `HANG_S`; engineering default."""
START_DEADLINE_S = 900.0
"""For the first step, from the job's start; engineering default."""
OVERFIT_PATIENCE = 3
"""Evaluations in a row above the lowest; Prechelt (1998), with `MAX_GENERALIZATION_LOSS` for the last of them."""
PLATEAU_DOUBLING = 0.01
"""Relative fall of the evaluation loss by a doubling of the steps below which it lies flat; `MIN_GAIN`'s size."""
PACE_SIGHTINGS = 6
"""Times a new step was seen from which the pace is trusted; the first two, with compilation and caches, not counted."""
TIMEOUT_RESERVE_S = 900.0
TIMEOUT_RESERVE_SHARE = 0.2
"""For saving and merging: the larger of 15 minutes and 20 % of the run, at most 20 % of the timeout, so that short jobs
keep short reserves; engineering default.
"""
DEAD_REWARD_LOGS = 10
DEAD_REWARD_WINDOW = 12
"""Logs of the last so many without any difference of reward in a group, so without a gradient in GRPO."""
LOWER_RATE = 0.3
"""Factor for the learning rate after NaN or divergence; engineering default."""
MAX_RESTARTS = 2
"""Of one configuration at a lower learning rate."""
CHECKPOINT_MARGIN_LOGS = 2
"""Logs before the first bad one that count as bad too: the weights broke before the loss showed it."""

# --- extending a run (decide, trend) ---------------------------------------------------------------------------------

MIN_GAIN = 0.01
"""Relative fall of the loss that an extension must promise."""
MAX_GENERALIZATION_LOSS = 5.0
"""Percent; Prechelt (1998), the value for noisy evaluation losses."""
HEADROOM_SCORE = 0.98
"""From here on more training has next to nothing left to win."""

# --- searching (search, space) ---------------------------------------------------------------------------------------

FULL_LEARNING_RATE = {"sft": 5e-5, "dpo": 5e-7, "kto": 1e-6, "grpo": 1e-6, "reward": 1e-5, "distillation": 1e-5}
"""Learning rates of full fine-tuning: tinker-cookbook's base rate (SFT), those of TRL's examples and defaults;
for distillation a tenth of what tinker-cookbook's recipe takes with LoRA, 1e-4 (it says 5e-5 for full fine-tuning)."""
LORA_RATE_FACTOR = 10.0
"""LoRA's best learning rate over that of full fine-tuning (Schulman et al. 2025, "LoRA Without Regret")."""
RATE_HIDDEN_SIZE = 2000
"""Hidden size at which the SFT rate needs no correction (tinker-cookbook)."""
RATE_EXPONENT = {"llama": 0.781, "smollm": 0.781, "qwen": 0.0775}
"""The SFT rate goes as (RATE_HIDDEN_SIZE / hidden size) ** exponent: tinker-cookbook's fits for Llama, whose
architecture SmolLM has, and for Qwen. Any other family gets the smaller one."""
HIDDEN_SIZE_DIVISOR = 21.0
"""hidden size = sqrt(parameters) / this: within 25 % for Llama, Qwen and SmolLM from 135M to 8B."""
RATE_SPAN = 4.0
"""Learning rates are searched from 1/4 to 4 times the prior (assumed), and always as far as the plan's own."""
RATE_STEPS = 24
"""Learning rates tried in a decade, 10 % apart: finer differences drown in the noise of a score."""
EPOCHS = (1.0, 2.0, 3.0)
"""Up to four passes repeated data is nearly worth new data (Muennighoff et al. 2023); the rest is for extensions."""
RANKS = (8, 16, 32, 64)
"""The usual ones of peft's and TRL's examples."""
BATCH_FACTORS = (0.5, 1, 2, 4)
"""Effective batch sizes, times the plan's (assumed); LoRA bears large ones less well (Schulman et al. 2025)."""
RATE_LENGTH, OTHER_LENGTH = 3.2, 10.0
"""Ratio of two values of a lever whose scores correlate by exp(-1/2): half a decade of learning rates (assumed;
0.7 to 1.5 times these lengths do as well, simulated)."""
SEARCH_NOISE = 0.02
"""Standard deviation of a score on the search set: 200 problems, one answer in five changed, some seed noise. From a
half to one and a half of it the search loses nothing (simulated)."""
SURROGATE_AMPLITUDE = 2.0
"""Standard deviation of the true scores of configurations, in units of the noise; 1 to 3 do as well (simulated)."""
SURROGATE_OPTIMISM = 2.0
"""Standard deviations above the mean at which a configuration is valued; 1 to 3 do as well (simulated)."""
TRUST_IN_PLAN = 0.5
"""By how many noise units the expected score falls one length away from the plan; from there by the square. Early
trials lose a fifth less than without it, and as good a one is found in the end (simulated)."""
WORST_NOISE_UNITS = 6.0
"""A score further below the best than so many units of the noise counts as that far: how bad a bad one is says
nothing about the good ones."""
RUNG_ETA = 3
"""Of the runs that reach a rung one in three goes on (Li et al. 2020, asynchronous successive halving)."""
MIN_AT_RUNG = 3
"""Runs at a rung, this one included, before any is stopped."""

# --- contamination (tools/contamination) -----------------------------------------------------------------------------

NGRAM_WORDS = 13
"""Length of a run of words: the overlap check of GPT-3 (Brown et al., 2020, appendix C)."""
NGRAM_RUNS = 15
"""Shared runs that are a copy, 27 words in a row. Tasks of one template, procedural_python's, share up to 9 runs."""
NGRAM_COVERAGE = 0.8
"""Share of a shorter text's runs that is a copy. Tasks of one template share up to 0.73."""
NGRAM_MIN_RUNS = 6
"""A text of fewer runs, under 18 words, says too little."""
NGRAM_BOILERPLATE = 10
"""A run in so many problems belongs to none of them."""
AST_MIN_NODES = 10
"""Smaller functions, `return x + 1`, are written by chance: from 10 on none of the 16,407 functions of Python's
standard library equals one of HumanEval's."""
JACCARD = 0.8
"""Similarity of near-duplicates; The Stack (Kocetkov et al., 2022) takes 0.85, filters after it 0.7."""
MINHASH_MIN_SHINGLES = 60
"""One other token changes 5 shingles: below 45 no two functions would be as similar, and up to 60 too many."""

# --- guards (guards) -------------------------------------------------------------------------------------------------

GUARD_MARGIN = 0.05
"""Loss on a guard task that is to be excluded. With 500 problems, one answer in five changed, it is excluded in four of
five nights without any loss (2.5 standard errors); for 2 points that would take 3,100 problems."""

# --- ending the night (rules) ----------------------------------------------------------------------------------------

MAX_STAGNATION = 12
"""Sets of hyperparameters in a row without a new best before the search ends: with 8 the simulated gain is 0.4 points
lower for a fifth less time."""
MAX_ATTEMPTS = 2
"""Jobs for one run whose machine was lost; a script that failed by itself would fail the same way again."""
CONFIRMATION_SLACK = 1.3
"""Time kept free for the confirmation, as a multiple of its estimate, which is one measurement; engineering default."""
MAX_FAILED_EVALUATIONS = 2
"""Evaluations in a row that ended with an error of their own: what is trained next would not be scored either."""
MAX_INFRASTRUCTURE_FAILURES = 3
"""Jobs in a row that the machine failed, not the script."""

_NUMBERS = sorted((name, value) for name, value in globals().items() if name.isupper())
VERSION = hashlib.sha256(repr(_NUMBERS).encode()).hexdigest()[:8]
"""Of the numbers above: another one where any of them is another."""
