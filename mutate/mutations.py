"""Mutations: small changes of a module's source, each like a common mistake."""

import ast
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

#: Operators and their replacements.
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
}  # fmt: skip
_EXTREMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
#: Strings that are keys, modes and kinds, not sentences.
_WORD = re.compile(r"[A-Za-z0-9_-]+")
#: Assignments without an effect on what the code does.
_DECLARATIONS = {"__all__", "__slots__"}


@dataclass(frozen=True, slots=True, order=True)
class Mutation:
    """A change of one piece of a module's source.

    ``line`` and ``end_line`` count from 1, ``column`` and ``end_column`` are bytes of UTF-8 from 0,
    as in ``ast``; ``text`` is the replacement.  ``before`` and ``after`` are for reports.
    """

    line: int
    column: int
    end_line: int
    end_column: int
    kind: str
    before: str
    after: str
    text: str

    def __str__(self) -> str:
        pairs = zip(self.before, self.after, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        before, after = (_short(text, same) for text in (self.before, self.after))
        return f"{self.kind}: {before} -> {after}"

    def apply(self, source: str) -> str:
        """Return the source with this change."""
        lines = source.encode().splitlines(keepends=True)
        first, last = lines[self.line - 1], lines[self.end_line - 1]
        changed = first[: self.column] + self.text.encode() + last[self.end_column :]
        return b"".join([*lines[: self.line - 1], changed, *lines[self.end_line :]]).decode()


def _short(text: str, same: int) -> str:
    """Return ``text`` in some 70 characters; its first ``same`` ones are less important."""
    if len(text) > 70 and same > 30:
        text = "..." + text[same - 20 :]
    return text if len(text) <= 70 else text[:67] + "..."


def find_mutations(source: str) -> list[Mutation]:
    """Return all mutations of a module's source, in the order of the lines.

    Some of the results may not compile: see ``compiles``.  Raises SyntaxError for the source itself.
    """
    found = set()
    for node, kind, new in _changes(ast.parse(source), frozenset()):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        text = ast.unparse(new)
        # Outside its place in the tree an expression may be parsed differently.
        bare = isinstance(new, ast.stmt | ast.Constant | ast.Name)
        place = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
        found.add(Mutation(*place, kind, ast.unparse(node), text, text if bare else f"({text})"))
    return sorted(found)


def compiles(source: str) -> bool:
    """Return whether a mutated source is still Python."""
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


_Node = ast.expr | ast.stmt
_Change = tuple[_Node, str, _Node]


def _changes(tree: ast.AST, bound: frozenset[str]) -> Iterator[_Change]:
    """Yield all changes in ``tree``: the node, the kind, and what replaces the node.

    ``bound``: names that have a value in the function before; another assignment may be deleted.
    """
    if isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef):
        bound = _parameters(tree.args)
    if isinstance(tree, ast.stmt):
        yield from _of_statement(tree, bound)
    elif isinstance(tree, ast.expr):
        yield from _of_expression(tree)
    for child in _children(tree):
        yield from _changes(child, bound)
        bound |= _binds(child)


def _parameters(arguments: ast.arguments) -> frozenset[str]:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return frozenset(argument.arg for argument in every)


def _binds(tree: ast.AST) -> frozenset[str]:
    """Return the names that are assigned anywhere in ``tree``."""
    return frozenset(
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )


def _children(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of ``tree`` in which a change changes what the code does.

    Excluded are annotations, decorators, base classes, docstrings, f-strings (whose parts have no
    positions before Python 3.12), and code for type checkers only.
    """
    match tree:
        case ast.Import() | ast.ImportFrom() | ast.JoinedStr():
            return
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            arguments = tree.args
            yield from (*arguments.defaults, *filter(None, arguments.kw_defaults))
            yield from _body(tree.body) if isinstance(tree.body, list) else [tree.body]
        case ast.ClassDef():
            yield from _body(tree.body)
        case ast.Module():
            yield from _body(tree.body)
        case ast.AnnAssign():
            if tree.value is not None:
                yield tree.value
        case ast.Assign(targets=[ast.Name(id=name)]) if name in _DECLARATIONS:
            return
        case ast.Call(func=ast.Name(id="TypeVar" | "cast" | "NewType" | "ParamSpec")):
            yield from tree.args[1:] if _called(tree) == "cast" else []
        case ast.Subscript(value=ast.Name(id="Literal")):
            return
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            yield from tree.orelse
        case _:
            yield from ast.iter_child_nodes(tree)


def _body(statements: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements that are not docstrings."""
    return [statement for statement in statements if not _is_text(statement)]


def _is_text(statement: ast.stmt) -> bool:
    """Return whether a statement is a literal, such as a docstring or ``...``, and does nothing."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _of_statement(statement: ast.stmt, bound: frozenset[str]) -> Iterator[_Change]:
    match statement:
        case ast.Expr(value=ast.Constant()):
            return
        case ast.Expr() | ast.Raise() | ast.Return() | ast.Continue() | ast.Break() | ast.Delete():
            yield statement, "statement deleted", ast.Pass()
        case ast.Assign(targets=targets) if all(_bound(target, bound) for target in targets):
            yield statement, "statement deleted", ast.Pass()
        case ast.AugAssign(op=operator):
            yield statement, "statement deleted", ast.Pass()
            if type(operator) in _ARITHMETIC:
                new = copy.deepcopy(statement)
                new.op = _ARITHMETIC[type(operator)]()
                yield statement, "operator", new
    if isinstance(statement, ast.If | ast.While):
        yield from _negated(statement.test)


def _bound(target: ast.expr, bound: frozenset[str]) -> bool:
    """Return whether ``target`` has a value without this assignment, as far as can be determined."""
    match target:
        case ast.Name(id=name):
            return name in bound
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return all(_bound(element, bound) for element in elements)
    return True


def _negated(test: ast.expr) -> Iterator[_Change]:
    match test:
        case ast.UnaryOp(op=ast.Not()):
            return
        case ast.Compare(ops=[ast.Eq() | ast.NotEq() | ast.Is() | ast.IsNot() | ast.In()]):
            return
    yield test, "condition negated", ast.UnaryOp(ast.Not(), test)


def _of_expression(expression: ast.expr) -> Iterator[_Change]:
    match expression:
        case ast.Compare(ops=operators):
            for place, operator in enumerate(operators):
                compared = copy.deepcopy(expression)
                compared.ops[place] = _COMPARISONS[type(operator)]()
                yield expression, "comparison", compared
        case ast.BoolOp(op=joined, values=values):
            other = ast.Or() if isinstance(joined, ast.And) else ast.And()
            yield expression, "and/or", ast.BoolOp(other, values)
            for place in range(len(values)):
                rest = values[:place] + values[place + 1 :]
                left = rest[0] if len(rest) == 1 else ast.BoolOp(joined, rest)
                yield expression, "operand dropped", left
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield expression, "not dropped", operand
        case ast.BinOp(op=operator) if type(operator) in _ARITHMETIC and not _formats(expression):
            computed = copy.deepcopy(expression)
            computed.op = _ARITHMETIC[type(operator)]()
            yield expression, "operator", computed
        case ast.IfExp(test=test):
            yield from _negated(test)
        case ast.Constant(value=value):
            for changed in _constants(value):
                yield expression, "constant", ast.Constant(changed)
        case ast.Call():
            yield from _of_call(expression)


def _formats(expression: ast.BinOp) -> bool:
    """Return whether the operator formats a string."""
    return any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and type(side.value) is str)
        for side in (expression.left, expression.right)
    )


def _constants(value: object) -> Iterator[bool | int | str | bytes]:
    match value:
        case bool():
            yield not value
        case int():
            yield value + 1
            yield value - 1
        case str() if _WORD.fullmatch(value):
            yield value + "x"
        case bytes() if value:
            yield value[:-1] + bytes([value[-1] ^ 1])


def _of_call(call: ast.Call) -> Iterator[_Change]:
    if _called(call) in _EXTREMES:
        new = copy.deepcopy(call)
        new.func = ast.Name(_EXTREMES[_called(call)], ast.Load())
        yield call, "call", new
    least_or_most = _called(call) in ("min", "max") and not call.keywords
    if least_or_most and len(call.args) == 2:
        for argument in call.args:
            yield call, "call", argument
    for place in range(0 if least_or_most else len(call.args) - 1):
        one, other = call.args[place : place + 2]
        starred = isinstance(one, ast.Starred) or isinstance(other, ast.Starred)
        if not starred and ast.dump(one) != ast.dump(other):
            new = copy.deepcopy(call)
            new.args[place : place + 2] = [other, one]
            yield call, "arguments swapped", new
    for place, keyword in enumerate(call.keywords):
        if keyword.arg is not None:
            new = copy.deepcopy(call)
            del new.keywords[place]
            yield call, f"argument {keyword.arg} dropped", new
