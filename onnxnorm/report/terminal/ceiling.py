"""What a ceiling reached, in a few lines for the terminal."""

from __future__ import annotations

from onnxnorm.display import counted
from onnxnorm.rewriting.ceiling import AboveCeiling, Ceiling

__all__ = ["ceiling_lines"]

_REASONS = 5
_NAMES = 3


def ceiling_lines(found: Ceiling) -> list[str]:
    """How many values were and are above a ceiling, what keeps them there, and what else there is to know."""
    lines = [str(found)]
    by_reason: dict[str, list[AboveCeiling]] = {}
    for item in found.above:
        by_reason.setdefault(item.reason, []).append(item)
    order = sorted(by_reason.items(), key=lambda entry: -len(entry[1]))
    for reason, items in order[:_REASONS]:
        lines.append(f"above it: {len(items):,}, such as {items[0].value} ({items[0].after:.4g}); {reason}")
    if len(order) > _REASONS:
        rest = sum(len(items) for _, items in order[_REASONS:])
        lines.append(f"above it: {rest:,} more, for {len(order) - _REASONS} other reasons (--json names all)")
    lines += [f"--allow {level} would leave {count:,} above it" for level, count in found.higher.items()]
    if found.lost:
        more = f" and {len(found.lost) - _NAMES} more" if len(found.lost) > _NAMES else ""
        lines.append(
            f"epsilons that become 0 in float16, without which values would stay above it: "
            f"{', '.join(found.lost[:_NAMES])}{more}; where the variance is 0 too, float16 divides by 0"
        )
    if found.infinite:
        lines.append(f"not counted: {counted(found.infinite, 'value')} with infinity, as masks have it, or NaN")
    if not found.proven:
        lines.append("it is not proven that no other scales move fewer filters, or bring more values below it")
    return lines
