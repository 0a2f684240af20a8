"""Mutants of a module: the operators of Cosmic Ray, and statements that are left out, which it lacks.

Of the many replacements that Cosmic Ray has for an operator of arithmetic or a comparison, a few are used: the inverse,
and the neighbour that differs in one case only. Left out are mutants that equal an earlier one, and those that differ
from the original in what has no effect on results: annotations, docstrings, the arguments `repr`, `frozen` and `strict`
of dataclasses and `zip`, and whether arguments may be given by position.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Mutant", "mutants_of"]

_REPLACED = {
    "Binary": "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_FloorDiv Pow_Mul BitOr_BitAnd BitAnd_BitOr",
    "Comparison": "Eq_NotEq NotEq_Eq Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Is_IsNot IsNot_Is",
}
_OTHERS = (
    *("AddNot", "NumberReplacer", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse"),
    *("ReplaceFalseWithTrue", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop"),
    *("ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_Invert", "ReplaceUnaryOperator_Delete_USub"),
    "RemoveDecorator",
)
OPERATORS = (
    *(f"Replace{kind}Operator_{pair}" for kind, pairs in _REPLACED.items() for pair in pairs.split()),
    *_OTHERS,
)
_NO_EFFECT = {"repr", "frozen", "strict"}
_LEFT_OUT = (ast.Expr, ast.If, ast.Raise, ast.AugAssign, ast.Delete)


@dataclass(frozen=True)
class Mutant:
    """A module with one thing changed.

    Attributes:
        line: the line that changed.
        operator: what was done to it.
        before: the line.
        after: what stands there now.
        source: the whole module.
    """

    line: int
    operator: str
    before: str
    after: str
    source: str = field(repr=False)


def mutants_of(source: str) -> list[Mutant]:
    """Return all mutants of a module, in the order of its lines."""
    seen, found = {_meaning(source)}, list[Mutant]()
    for operator, changed in (*_replaced(source), *_shortened(source)):
        meaning = _meaning(changed) if _is_python(changed) else None
        if meaning is not None and meaning not in seen:
            seen.add(meaning)
            found.append(_mutant(operator, source, changed))
    return sorted(found, key=lambda mutant: mutant.line)


def _replaced(source: str) -> Iterator[tuple[str, str]]:
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    for name in OPERATORS:
        operator, occurrence = get_operator(f"core/{name}")(), 0
        while (changed := mutate_code(source, operator, occurrence)) is not None:
            yield name, changed
            occurrence += 1


def _shortened(source: str) -> Iterator[tuple[str, str]]:
    """Leave out one statement after the other; of an `if`, all its branches."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _LEFT_OUT) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            end = node.end_lineno or node.lineno
            if not lines[node.lineno - 1].lstrip().startswith("elif "):
                left = [*lines[: node.lineno - 1], f"{' ' * node.col_offset}pass", *lines[end:]]
                yield "LeaveOut", "\n".join(left) + "\n"


def _is_python(source: str) -> bool:
    """Whether a mutant can be read: the `**` in front of a dictionary is no power that could be a product."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def _meaning(source: str) -> str:
    """The syntax tree as text, without what has no effect on results."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.arguments):
            node.args, node.posonlyargs, node.kwonlyargs = [*node.posonlyargs, *node.args, *node.kwonlyargs], [], []
            node.defaults, node.kw_defaults = [*node.defaults, *filter(None, node.kw_defaults)], []
        elif isinstance(node, ast.keyword) and node.arg in _NO_EFFECT:
            node.value = ast.Constant(0)
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(0)
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0] = ast.Pass()
    return ast.dump(tree)


def _mutant(operator: str, source: str, changed: str) -> Mutant:
    old, new = source.splitlines(), changed.splitlines()
    line = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)) - 1)
    return Mutant(line + 1, operator, old[line].strip(), new[line].strip(), changed)
