"""Which lines a test must execute to notice a change elsewhere.

For code in a function these are the lines of the changed statement.  Code that runs once in a process, on
import or in a function whose results are cached, is executed by whichever test comes first; a change of
it is noticed where what it defines is used: in functions that mention a name that it binds, or that other
such code binds with it; and by tests that look at what was defined.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from mutate.mutations import Mutation

#: Lines of modules, by the module's path in the tree.
Lines = dict[Path, set[int]]

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_CACHES = {"cache", "lru_cache", "cached_property"}


@dataclass(slots=True)
class _Once:
    """A statement that runs once in a process: the names that it binds, and that it mentions."""

    bound: set[str]
    mentioned: set[str]


@dataclass(slots=True)
class _Module:
    once: list[_Once] = field(default_factory=list)
    #: The lines of other functions that mention a name.
    lines: dict[str, set[int]] = field(default_factory=dict)


def lines_to_reach(sources: dict[Path, str], module: Path, mutation: Mutation) -> Lines:
    """Return the lines at which a mutation of ``module`` may have an effect.

    ``sources``: the texts of all modules.  Where nothing mentions what was changed, these are all lines
    of ``module``.
    """
    above = list(_around(ast.parse(sources[module]), mutation))
    if _runs_often(above):
        return {module: set(range(above[-1].lineno, mutation.end_line + 1))}
    names = {name for statement in above for name in _bound(statement)}
    modules = {path: _survey(text) for path, text in sources.items()}
    every = [once for each in modules.values() for once in each.once]
    while new := set().union(*(once.bound for once in every if once.mentioned & names)) - names:
        names |= new
    found = {
        path: lines
        for path, each in modules.items()
        if (lines := set().union(*(each.lines.get(name, set()) for name in names)))
    }
    return found or {module: set(range(1, len(sources[module].splitlines()) + 1))}


def runs_once(source: str, mutation: Mutation) -> bool:
    """Return whether the code that is changed runs once in a process, as definitions do."""
    return not _runs_often(list(_around(ast.parse(source), mutation)))


def _around(tree: ast.Module, mutation: Mutation) -> Iterator[ast.stmt]:
    """Yield the statements in which a mutation is, the innermost last."""
    for node in ast.walk(tree):  # breadth first
        if isinstance(node, ast.stmt):
            assert node.end_lineno is not None
            if node.lineno <= mutation.line and mutation.end_line <= node.end_lineno:
                yield node


def _runs_often(above: list[ast.stmt]) -> bool:
    """Return whether the innermost of these statements runs each time when a function is called."""
    functions = [node for node in above[:-1] if isinstance(node, _Function)]
    return bool(functions) and not any(_is_cached(function) for function in functions)


def _is_cached(function: _Function) -> bool:
    called = (each.func if isinstance(each, ast.Call) else each for each in function.decorator_list)
    return any(isinstance(each, ast.Name) and each.id in _CACHES for each in called)


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement binds, but for special methods."""
    if isinstance(statement, _Function | ast.ClassDef):
        return set() if statement.name.startswith("__") else {statement.name}
    return {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(statement)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store)
    }


@cache
def _survey(source: str) -> _Module:
    found = _Module()
    for statement in ast.parse(source).body:
        once = _Once(_bound(statement), set())
        _collect(statement, once, found)
        found.once.append(once)
    return found


def _collect(tree: ast.AST, once: _Once, found: _Module) -> None:
    """Note the names that are mentioned in ``tree``, a part of the statement ``once``."""
    if isinstance(tree, _Function) and not _is_cached(tree):
        for name, line in (each for part in tree.body for each in _mentions(part)):
            found.lines.setdefault(name, set()).add(line)
        for default in (*tree.args.defaults, *filter(None, tree.args.kw_defaults)):
            once.mentioned.update(name for name, _ in _mentions(default))
        return
    if isinstance(tree, ast.Import | ast.ImportFrom):
        return
    once.mentioned.update(name for name, _ in _mentions(tree, deep=False))
    for child in ast.iter_child_nodes(tree):
        _collect(child, once, found)


def _mentions(tree: ast.AST, *, deep: bool = True) -> Iterator[tuple[str, int]]:
    """Yield the names that are used in ``tree``, or by this node alone, each with its line."""
    for node in ast.walk(tree) if deep else [tree]:
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield name, node.lineno
