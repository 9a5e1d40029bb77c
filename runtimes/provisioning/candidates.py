"""Which engines of the store a request could use: the current ones first, then finished drafts, then older ones."""

from __future__ import annotations

from collections.abc import Iterator

from messages.errors import EngineDeserializeError, EngineStoreError
from runtimes.inference_runtime import EngineCacheEntry, HostTuple
from runtimes.provisioning.decision import Candidate, Compile, Decision, EngineRequest, decide
from runtimes.store.engine_artifact import verify_artifact
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.staged_generation import StagedGeneration


class StoredEngines:
    """What lies in the store while its lock is held. One thread uses it."""

    def __init__(self, store: EngineStore, staged: StagedGeneration) -> None:
        self._store = store
        self._current = staged.former
        self._current_damage = staged.former_damage
        self._drafts = staged.drafts()
        self._older: list[Generation] | None = None

    def decide(self, request: EngineRequest, host: HostTuple, runtime_label: str) -> Decision:
        """The decision on what really lies in the store: an engine is used again only after all of it was hashed.

        Older generations are looked at where neither the current one nor a draft will do.
        """
        candidates: list[Candidate] = []
        damage = self._damage_of(request.model)
        for group in (self._near, self._further):
            candidates += group(request.model)
            while True:
                decision = decide(request, candidates, host, runtime_label, damage)
                if isinstance(decision, Compile):
                    break
                try:
                    verify_artifact(decision.entry)
                except EngineDeserializeError as error:
                    candidates = [each for each in candidates if each.entry != decision.entry]
                    damage = damage or str(error)
                else:
                    return decision
        return decision

    def of_model(self, model: str) -> Iterator[EngineCacheEntry]:
        """All engines of a model, the nearest first, whatever they were built from; none is verified."""
        for group in (self._near, self._further):
            for candidate in group(model):
                yield candidate.entry

    def _damage_of(self, model: str) -> str:
        return self._current_damage if self._current is None else self._current.damaged.get(model, "")

    def _near(self, model: str) -> list[Candidate]:
        current = None if self._current is None else self._current.entries.get(model)
        near = [] if current is None else [Candidate(current, "unchanged")]
        return near + [Candidate(entry, "finished by an interrupted run") for entry in self._drafts.get(model, [])]

    def _further(self, model: str) -> list[Candidate]:
        if self._older is None:
            self._older = list(self._read_older())
        return [
            Candidate(older.entries[model], f"unchanged since generation {older.number}")
            for older in self._older
            if model in older.entries
        ]

    def _read_older(self) -> Iterator[Generation]:
        for number in reversed(self._store.numbers()):
            if self._current is not None and number == self._current.number:
                continue
            try:
                yield self._store.generation(number)
            except EngineStoreError:
                continue  # a damaged one offers nothing; `c7 engines verify` says what is wrong with it
