"""Requests that kill: one consumer's inputs of one signature on which an engine dies that does well on others."""

from __future__ import annotations

from typing import NamedTuple

from messages import NS_PER_S, Infer, TensorSpec, specs_of

DEATHS = 2
"""A first death may be anybody's. A second one on the same inputs, none of which went well, is theirs where the engine
had proven itself in between: it gave its known answers, or ran somebody else's inputs. An engine that has done neither
may die of itself.
"""
HOLD_NS = 10 * NS_PER_S
"""How long poison is refused; then such inputs are tried again, and each further death doubles it. So poison that stays
costs four restarts in its first minute, one less than the engine has."""
HOLD_MAX_NS = 8 * HOLD_NS
SUSPECTS_MAX = 64
"""Per engine. A flood of signatures drops the oldest suspicion, never grows the list."""


class Suspect(NamedTuple):
    """Whose inputs: the consumer, and name and description of each input, in order of their names."""

    consumer: str
    signature: tuple[tuple[str, TensorSpec], ...]

    def __str__(self) -> str:
        return f"{self.consumer}'s inputs ({', '.join(f'{name} {spec}' for name, spec in self.signature)})"


def suspect_of(request: Infer) -> Suspect:
    """Raises what a tensor raises that cannot describe itself."""
    return Suspect(request.consumer, tuple(sorted(specs_of(request.inputs).items(), key=lambda item: item[0])))


class _Suspicion(NamedTuple):
    deaths: int
    last_ns: int


_NONE = _Suspicion(0, 0)


class PoisonWatch:
    """The suspects of one engine, through all its generations. Used by one engine's thread at a time."""

    def __init__(self) -> None:
        self._suspicions: dict[Suspect, _Suspicion] = {}

    def __bool__(self) -> bool:
        """Whether anybody is suspected: nothing has to be looked up for every request otherwise."""
        return bool(self._suspicions)

    def blame(self, suspect: Suspect, now_ns: int, *, proven: bool) -> bool:
        """The engine died on these inputs. True where that makes them poison.

        `proven` where this start of the engine has done well on something else.
        """
        self._forget(now_ns)
        deaths = max(1, self._suspicions.pop(suspect, _NONE).deaths + proven)
        if len(self._suspicions) >= SUSPECTS_MAX:
            del self._suspicions[next(iter(self._suspicions))]
        self._suspicions[suspect] = _Suspicion(deaths, now_ns)
        return deaths >= DEATHS

    def absolve(self, suspect: Suspect) -> None:
        """A run on these inputs went well."""
        self._suspicions.pop(suspect, None)

    def is_poison(self, suspect: Suspect, now_ns: int) -> bool:
        """Whether such inputs are refused now."""
        self._forget(now_ns)
        suspicion = self._suspicions.get(suspect, _NONE)
        return suspicion.deaths >= DEATHS and now_ns - suspicion.last_ns <= hold_ns(suspicion.deaths)

    def _forget(self, now_ns: int) -> None:
        """Who has not been heard of for twice the longest hold."""
        held = {each: what for each, what in self._suspicions.items() if now_ns - what.last_ns <= 2 * HOLD_MAX_NS}
        self._suspicions = held


def hold_ns(deaths: int) -> int:
    """How long inputs are refused on which an engine has died so often, twice at least."""
    return min(HOLD_NS << deaths - DEATHS, HOLD_MAX_NS)
