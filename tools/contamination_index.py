"""Benchmark problems made findable: looks at one training row at a time and says which problems are in it.

Four kinds of evidence, each against another disguise:

- words: runs of `NGRAM_WORDS` words of a problem's statement or of its solution, of code the body. One run is a figure
  of speech; a row is flagged where it holds `NGRAM_RUNS` of a text, or nearly all of a short one. Runs that many
  problems share are boilerplate.
- syntax trees: equal but for names, comments, docstrings and annotations. Tiny functions are equal by chance and need
  a second sign, e.g. the problem's example calls.
- shingles of those trees: a Jaccard similarity of `JACCARD`, proposed by MinHash and then computed exactly, for copies
  that were edited besides. Short functions differ by too few shingles to be told apart.
- `def` with the entry point's name: common by itself, evidence together with a second sign.
"""

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hfagent.agent import thresholds
from hfagent.agent.integrity import Layer
from hfagent.tools.code_signature import Function, functions
from hfagent.tools.contamination_text import calls, code_pieces, grams, words
from hfagent.tools.problem import CodeCheck, Problem

NUM_PERM = 64
"""Hash functions of a MinHash signature."""
PROPOSED = 0.65
"""Similarity that MinHash proposes from, below `JACCARD`, because it is an estimate."""
SHINGLE = 5
"""Tokens of a shingle."""
DISTINCTIVE_WORDS = 3
"""A function's name of so many words, together with the same parameters, is no chance."""
SHARED_CALLS = 2
"""Equal calls of the entry point, e.g. doctest lines, that make a second sign."""

Gram = tuple[str, ...]


class Finding(NamedTuple):
    """A problem found in a row."""

    problem: str
    layer: Layer
    text: str
    """What of the row it was found in."""


@dataclass
class Look:
    """What one row holds."""

    findings: list[Finding] = field(default_factory=list)
    weak: Counter[str] = field(default_factory=Counter)
    """Signs that do not count alone -> how often they did not."""


class _Known(NamedTuple):
    """A problem's reference function."""

    problem: str
    function: Function
    shingles: frozenset[Gram]
    calls: frozenset[str]


class ProblemIndex:
    """Holds the problems of all benchmarks of a night."""

    def __init__(self, problems: Sequence[Problem]):
        self._known = [known for problem in problems if (known := _known(problem))]
        self._by_digest = _grouped(self._known, lambda known: known.function.digest)
        self._by_name = _grouped(self._known, lambda known: known.function.name)
        answers = [(known.problem, known.function.body) for known in self._known]
        answers += [(problem.id, problem.solution) for problem in problems if not isinstance(problem.check, CodeCheck)]
        self._runs = _runs([*((problem.id, problem.prompt) for problem in problems), *answers])
        self._sizes = Counter(text for texts in self._runs.values() for text in texts)
        self._similar = _Similar([k for k in self._known if len(k.shingles) >= thresholds.MINHASH_MIN_SHINGLES])

    def look(self, texts: Sequence[str]) -> Look:
        """Search a row's texts for the problems."""
        look = Look()
        self._look_at_words(texts, look)
        if any("def" in text for text in texts):
            found = {f"{f.name} {f.digest}": f for code in code_pieces(texts) for f in functions(code)}
            for function in found.values():
                self._look_at_function(function, texts, look)
        return look

    def _look_at_words(self, texts: Sequence[str], look: Look) -> None:
        seen: dict[tuple[str, int], set[Gram]] = defaultdict(set)
        first: dict[tuple[str, int], str] = {}
        for text in texts:
            for gram in grams(words(text), thresholds.NGRAM_WORDS):
                for where in self._runs.get(gram, ()):
                    seen[where].add(gram)
                    first.setdefault(where, text)
        for where, runs in seen.items():
            size = self._sizes[where]
            needed = min(thresholds.NGRAM_RUNS, thresholds.NGRAM_COVERAGE * size)
            if size >= thresholds.NGRAM_MIN_RUNS and len(runs) >= needed:
                look.findings.append(Finding(where[0], "ngram", first[where]))
            else:
                look.weak["too few shared runs of words"] += 1

    def _look_at_function(self, function: Function, texts: Sequence[str], look: Look) -> None:
        equal = self._by_digest.get(function.digest, [])
        for known in equal:
            if function.nodes >= thresholds.AST_MIN_NODES or _same_calls(known, function, texts):
                look.findings.append(Finding(known.problem, "ast", function.source))
            else:
                look.weak["an equal function that is tiny"] += 1
        for known in self._by_name.get(function.name, []):
            telling = function.parameters == known.function.parameters and _distinctive(function.name)
            if known in equal or telling or _same_calls(known, function, texts):
                look.findings.append(Finding(known.problem, "entry_point", function.source))
            else:
                look.weak["the name of an entry point"] += 1
        if not equal:
            found = self._similar.find(_shingles(function))
            look.findings += [Finding(known.problem, "minhash", function.source) for known in found]


class _Similar:
    """Functions by the similarity of their shingles."""

    def __init__(self, known: Sequence[_Known]):
        from datasketch import MinHashLSH

        self._known = {str(place): one for place, one in enumerate(known)}
        self._shingles = {shingle for one in known for shingle in one.shingles}
        self._lsh = MinHashLSH(threshold=PROPOSED, num_perm=NUM_PERM)
        for key, one in self._known.items():
            self._lsh.insert(key, _signature(one.shingles))

    def find(self, shingles: frozenset[Gram]) -> list[_Known]:
        """Those at least `JACCARD` similar."""
        if len(shingles) * thresholds.JACCARD > len(shingles & self._shingles):
            return []  # no single problem can share enough either
        proposed = [self._known[key] for key in self._lsh.query(_signature(shingles))]
        return [one for one in proposed if _jaccard(one.shingles, shingles) >= thresholds.JACCARD]


def _known(problem: Problem) -> _Known | None:
    check = problem.check
    if not isinstance(check, CodeCheck):
        return None
    own = [function for function in functions(problem.solution) if function.name == check.entry_point]
    if not own:
        return None
    text = f"{problem.prompt}\n{check.tests}"
    called = calls(text, check.entry_point) | calls(text, "candidate")
    return _Known(problem.id, own[-1], _shingles(own[-1]), called)


def _same_calls(known: _Known, function: Function, texts: Sequence[str]) -> bool:
    """Whether a row calls its function with the problem's own examples."""
    names = {function.name, known.function.name}
    called = {call for text in texts for name in names for call in calls(text, name)}
    return len(called & known.calls) >= SHARED_CALLS


def _runs(texts: Sequence[tuple[str, str]]) -> dict[Gram, list[tuple[str, int]]]:
    """Run of words -> the texts it is in, as (problem, place); without boilerplate."""
    found: dict[Gram, list[tuple[str, int]]] = defaultdict(list)
    for place, (problem, text) in enumerate(texts):
        for gram in set(grams(words(text), thresholds.NGRAM_WORDS)):
            found[gram].append((problem, place))
    return {gram: where for gram, where in found.items() if len({p for p, _ in where}) < thresholds.NGRAM_BOILERPLATE}


def _shingles(function: Function) -> frozenset[Gram]:
    """Without the numbers of identifiers, which one more identifier would shift."""
    return frozenset(grams([token if token[0] != "$" else "$" for token in function.tokens], SHINGLE))


def _signature(shingles: frozenset[Gram]) -> Any:
    from datasketch import MinHash

    signature = MinHash(num_perm=NUM_PERM, hashfunc=zlib.crc32)
    signature.update_batch(["\0".join(shingle).encode(errors="surrogatepass") for shingle in shingles])
    return signature


def _jaccard(one: frozenset[Gram], other: frozenset[Gram]) -> float:
    return len(one & other) / len(one | other)


def _distinctive(name: str) -> bool:
    return len([word for word in name.split("_") if word]) >= DISTINCTIVE_WORDS


def _grouped(known: Sequence[_Known], key: Callable[[_Known], str]) -> dict[str, list[_Known]]:
    groups: dict[str, list[_Known]] = defaultdict(list)
    for one in known:
        groups[key(one)].append(one)
    return dict(groups)
