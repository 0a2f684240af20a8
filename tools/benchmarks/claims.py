"""What was asked for, what was measured, and whether that holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tools.benchmarks.runs import table

__all__ = ["Claim", "asked_and_held"]


@dataclass(frozen=True)
class Claim:
    """A ratio that must be at most, or at least, a limit; `whole` is the same ratio of whole calls, if it has one."""

    text: str
    limit: float
    measured: float
    whole: float | None = None
    at_least: bool = False

    @property
    def asked(self) -> str:
        """The limit in words."""
        return f"at {'least' if self.at_least else 'most'} {self.limit:.2f}"

    @property
    def held(self) -> str:
        """Yes, no, or for which of the two numbers."""
        once = self._holds(self.measured)
        if self.whole is None or once == self._holds(self.whole):
            return "yes" if once else "no"
        return "per image" if once else "whole call"

    def _holds(self, number: float) -> bool:
        return number >= self.limit if self.at_least else number <= self.limit


def asked_and_held(claims: Sequence[Claim]) -> list[str]:
    """The heading and the table, or nothing."""
    rows = [
        (
            claim.text,
            claim.asked,
            f"{claim.measured:.2f}",
            "" if claim.whole is None else f"{claim.whole:.2f}",
            claim.held,
        )
        for claim in claims
    ]
    header = ("", "asked", "measured", "whole calls", "held")
    return ["### Asked and held", table(header, rows)] if rows else []
