"""Python functions in a form in which renamed, reformatted, re-documented and re-annotated copies are equal."""

import ast
import builtins
import hashlib
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

_BUILTINS = frozenset(dir(builtins))
_DROPPED = frozenset(
    {"ctx", "annotation", "returns", "type_comment", "decorator_list", "type_params", "kind", "simple"}
)
_SILENT = frozenset({"Name", "Constant", "Expr", "arguments", "arg"})
"""Nodes that a token of their own would only repeat for each identifier or value."""
_NAMES = frozenset(
    {("FunctionDef", "name"), ("AsyncFunctionDef", "name"), ("ClassDef", "name"), ("ExceptHandler", "name")}
    | {("arg", "arg"), ("alias", "asname"), ("MatchAs", "name"), ("MatchStar", "name"), ("MatchMapping", "rest")}
)
"""Fields that hold identifiers outside of `Name` nodes."""
_HEAD = re.compile(r"^([ \t]*)(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(", re.MULTILINE)


@dataclass(frozen=True)
class Function:
    """A function as it stands in some code."""

    node: FunctionNode
    code: str
    """The text that the node's line numbers refer to."""

    @property
    def name(self) -> str:
        """The function's name."""
        return self.node.name

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of its parameters, in order."""
        return tuple(arg.arg for arg in _arguments(self.node))

    @property
    def source(self) -> str:
        """Its text."""
        return ast.get_source_segment(self.code, self.node) or ""

    @property
    def body(self) -> str:
        """Its text without the head and the docstring; empty where nothing else is there."""
        statements = _without_docstring(self.node.body)
        if not statements:
            return ""
        return "\n".join(self.code.split("\n")[statements[0].lineno - 1 : self.node.end_lineno])

    @property
    def nodes(self) -> int:
        """Size: nodes of the syntax tree below the docstring, identifiers and values included, contexts left out."""
        return sum(
            not isinstance(node, ast.expr_context)
            for statement in _without_docstring(self.node.body)
            for node in ast.walk(statement)
        )

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The syntax tree in pre-order without docstrings, annotations and decorators.

        Identifiers are numbered in order of appearance, but for builtins, attributes and keywords of calls. The end of
        each block is a token, so that functions with the same tokens have the same tree but for odd exceptions.
        """
        return tuple(_Writer(self.node).tokens)

    @cached_property
    def digest(self) -> str:
        """Hash of the tokens: equal for copies that differ only in names, comments, docstrings and annotations."""
        return hashlib.sha256("\0".join(self.tokens).encode(errors="surrogatepass")).hexdigest()


def functions(code: str) -> list[Function]:
    """All functions in a piece of code, nested ones and methods included.

    Left out is what does not parse, or nests hundreds of levels deep.

    Where the whole does not parse, e.g. since prose stands around it, each `def` is tried with what is indented
    below it.
    """
    tree = _parse(code)
    if tree is not None:
        return _functions(tree, code)
    found = []
    for block in _blocks(code):
        tree = _parse(block)
        if tree is not None:
            found += _functions(tree, block)
    return found


def _parse(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in foreign code
            return ast.parse(textwrap.dedent(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _functions(tree: ast.Module, code: str) -> list[Function]:
    dedented = textwrap.dedent(code)
    found = [Function(node, dedented) for node in ast.walk(tree) if isinstance(node, FunctionNode)]
    return [function for function in found if _writable(function)]


def _writable(function: Function) -> bool:
    try:
        return bool(function.tokens)
    except RecursionError:  # a sum of hundreds of terms
        return False


def _blocks(code: str) -> Iterator[str]:
    lines = code.split("\n")
    starts = {code.count("\n", 0, match.end()): len(match[1]) for match in _HEAD.finditer(code)}
    for start, indent in starts.items():
        end = start + 1
        while end < len(lines) and (
            not lines[end].strip() or _indent(lines[end]) > indent or lines[end].lstrip().startswith((")", "]", "}"))
        ):
            end += 1
        yield "\n".join(lines[start:end])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _arguments(node: FunctionNode) -> list[ast.arg]:
    spec = node.args
    rest = [arg for arg in (spec.vararg, spec.kwarg) if arg is not None]
    return [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *rest]


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest]:
            return rest
    return body


class _Writer:
    """Writes the tokens of one function."""

    def __init__(self, function: FunctionNode):
        self.tokens: list[str] = []
        self._numbers: dict[str, str] = {}
        self._bound = {
            node.arg if isinstance(node, ast.arg) else node.id
            for node in ast.walk(function)
            if isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        }
        self._node(function)

    def _node(self, node: ast.AST) -> None:
        kind = type(node).__name__
        if kind not in _SILENT and not isinstance(node, ast.AnnAssign):
            self.tokens.append(kind)
        match node:
            case ast.AnnAssign(target=target, value=value):
                if value is not None:  # without a value it is an annotation alone
                    self._node(ast.Assign([target], value))
            case ast.Name(id=name):
                self.tokens.append(self._named(name))
            case ast.Constant(value=value):
                self.tokens.append(repr(value))
            case _:
                self._fields(node)

    def _fields(self, node: ast.AST) -> None:
        for field, value in ast.iter_fields(node):
            if field in _DROPPED or value is None:
                continue
            if field == "body" and isinstance(node, FunctionNode | ast.ClassDef):
                value = _without_docstring(value)
            if isinstance(value, list):
                self._list(value)
            elif isinstance(value, ast.AST):
                self._node(value)
            elif (type(node).__name__, field) in _NAMES:
                self.tokens.append(self._named(str(value)))
            else:
                self.tokens.append(str(value))

    def _list(self, values: list[ast.AST | str | None]) -> None:
        for value in values:
            if isinstance(value, ast.AST):
                self._node(value)
            else:  # names of `global` and `nonlocal`, a dictionary's key None
                self.tokens.append(self._named(value) if isinstance(value, str) else repr(value))
        self.tokens.append(";")

    def _named(self, name: str) -> str:
        if name in _BUILTINS and name not in self._bound:
            return name
        return self._numbers.setdefault(name, f"${len(self._numbers)}")
