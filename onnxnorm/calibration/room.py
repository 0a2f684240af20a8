"""How many samples memory has room for, as far as it is known from the runs that failed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from threading import Condition, Lock, RLock
from typing import Any

from onnxnorm.errors import MemoryWarning

__all__ = ["Room"]


@dataclass
class Room:
    """How many samples of a batch memory has room for. Once it was short, there is one run at a time.

    Attributes:
        most: the most samples that are still tried at once; None if memory was never short.
        opening: held while the session is replaced.
    """

    most: int | None = None
    opening: AbstractContextManager[Any] = field(default_factory=RLock, repr=False)
    _turn: AbstractContextManager[Any] = field(default_factory=Lock, repr=False)
    _ended: Condition = field(default_factory=Condition, repr=False)
    _running: int = field(default=0, repr=False)

    def allows(self, samples: int) -> bool:
        """Whether that many samples may be tried at once."""
        return self.most is None or samples <= self.most

    @contextmanager
    def run(self) -> Iterator[None]:
        """Context of a run among others, as long as memory was never short."""
        with self._ended:
            self._running += 1
        try:
            yield
        finally:
            with self._ended:
                self._running -= 1
                self._ended.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Context in which no other run is going on, so that what they took is free."""
        with self._turn:
            with self._ended:
                self._ended.wait_for(lambda: self._running == 0)
            yield

    def shrink(self, failed: int, *, splits: bool) -> None:
        """Remember that this many samples were too many beside other runs, and warn if fewer are tried from now on."""
        most = failed - failed // 2 if splits else failed
        if self.allows(most) and self.most != most:
            self.most = most
            if splits:
                message = f"a batch of {failed} samples does not fit into memory; batches of at most {most} are tried"
                warnings.warn(MemoryWarning(message), stacklevel=3)
