"""Which life of which flight a start is, and which engines it flies: decided before anything is loaded."""

from __future__ import annotations

import re

import msgspec
from loguru import logger

from actors.flight.accepted_manifest import read_accepted, record_accepted, why_refused
from actors.flight.journal import Journal
from actors.flight.recovery import ColdStart, Recovery, format_flight_id, plan_start, worth_keeping
from messages import ConfigError, TakeoffRefusedError
from runtimes import EngineCacheEntry, EngineStore, FlightPlan, Generation, outdated_models
from runtimes.store.engine_store import no_current
from runtimes.store.manifest import MANIFEST_NAME
from runtimes.store.signature import SignedVersion, signature_path, verify_signature
from runtimes.store.signing_key import read_public_key

FRAMES_PER_LIFE = 1_000_000
"""Frame ids of a new life begin at the next million: unique in a flight without asking how far the last life came."""


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """One start of the flight process. `recovery` is None at a takeoff."""

    flight_id: str
    number: int
    recovery: Recovery | None

    @property
    def name(self) -> str:
        """The stem of this life's files."""
        return f"{self.flight_id}-life{self.number:04d}"

    @property
    def first_frame_id(self) -> int:
        return (self.number - 1) * FRAMES_PER_LIFE


class FlightEngines(msgspec.Struct, frozen=True, kw_only=True):
    """What a life flies. `signed` is the version to accept once all of it is loaded, where the plan asks for one."""

    generation: Generation
    entries: dict[str, EngineCacheEntry]
    signed: SignedVersion | None = None


def begin_life(plan: FlightPlan, journal: Journal) -> Life:
    """Read the journal: a takeoff, or the next life of the flight that is in the air. Compacts what is long past."""
    start = plan_start(journal.records)
    journal.compact(worth_keeping(journal.records))
    if isinstance(start, ColdStart):
        # A new state folder, or a damaged journal that was moved away, counts on from the recordings that are there.
        sequence = max(start.flight_id_sequence, 1 + _last_recorded(plan))
        return Life(flight_id=format_flight_id(plan.flight.name, sequence), number=1, recovery=None)
    return Life(flight_id=start.flight_id, number=start.life, recovery=start)


def _last_recorded(plan: FlightPlan) -> int:
    """The highest number of a flight of this name in the recordings' folder; 0 where there is none."""
    named = re.compile(re.escape(plan.flight.name) + r"-(\d{6,12})-life\d{4,}\.mcap")
    try:
        found = [named.fullmatch(path.name) for path in plan.flight.recordings.iterdir()]
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise ConfigError(
            f"[flight] recordings: {plan.flight.recordings} cannot be listed: {error.strerror}"
        ) from error
    return max((int(match[1]) for match in found if match), default=0)


def engines_for(plan: FlightPlan, life: Life) -> FlightEngines:
    """The generation that this life flies and its engines; changes nothing.

    A recovery asks for no signature: the manifest is the very one that was accepted at takeoff, or nothing is loaded.
    Raises as `engines_for_takeoff` does.
    """
    return engines_for_takeoff(plan) if life.recovery is None else _engines_in_the_air(plan, life.recovery)


def accept_engines(plan: FlightPlan, engines: FlightEngines) -> None:
    """Record that this aircraft takes off with the signed version, so that no lower one will.

    To be called when every engine is loaded: a version that could not take off must not lock out the one before it.
    Raises TakeoffRefusedError.
    """
    if engines.signed is not None:
        record_accepted(plan.flight.state, engines.signed)


def engines_for_takeoff(plan: FlightPlan) -> FlightEngines:
    """The store's current generation and its engines for the plan's models; changes nothing.

    Raises TakeoffRefusedError where one is missing or was built from something else than the plan says, and for a
    version lower than this aircraft accepted before; ManifestSignatureError where the plan names a public key and the
    manifest is not signed with it; EngineStoreError; ConfigError for a key that is none.
    """
    store = EngineStore(plan.flight.store)
    generation = store.current()
    if generation is None:
        if store.numbers():
            raise TakeoffRefusedError(no_current(store.root))
        raise TakeoffRefusedError(f"{plan.flight.store} holds no engines; run `c7 provision` first")
    signed = _signed_version(plan, generation)
    outdated = outdated_models(plan, generation)
    if outdated:
        reasons = "; ".join(f"{model}: {reason}" for model, reason in outdated.items())
        raise TakeoffRefusedError(
            f"generation {generation.number} does not fit the plan: {reasons}; run `c7 provision` again"
        )
    entries = {model: generation.entries[model] for model in plan.models}
    return FlightEngines(generation=generation, entries=entries, signed=signed)


def _signed_version(plan: FlightPlan, generation: Generation) -> SignedVersion | None:
    """What is signed, if the plan asks for a signature and this aircraft takes the version."""
    if plan.flight.public_key is None:
        return None
    manifest = generation.path / MANIFEST_NAME
    public_key = read_public_key(plan.flight.public_key, plan.flight.store)
    signed = verify_signature(manifest, generation.manifest_sha256, public_key)
    accepted = read_accepted(plan.flight.state)
    reason = why_refused(signed, accepted)
    if reason:
        raise TakeoffRefusedError(f"{signature_path(manifest)}: {reason}")
    return signed


def _engines_in_the_air(plan: FlightPlan, recovery: Recovery) -> FlightEngines:
    """Exactly the generation that the flight took off with. What is missing from it stays down; the others fly on."""
    generation = EngineStore(plan.flight.store).generation(recovery.engine_generation)
    if generation.manifest_sha256 != recovery.manifest_sha256:
        raise TakeoffRefusedError(
            f"generation {generation.number} has manifest {generation.manifest_sha256[:12]}, but {recovery.flight_id} "
            f"took off with {recovery.manifest_sha256[:12]}"
        )
    for model in sorted(plan.models.keys() - generation.entries.keys()):
        logger.error("C7 engine missing from the generation in flight; backbone={}", model)
    entries = {model: generation.entries[model] for model in plan.models if model in generation.entries}
    return FlightEngines(generation=generation, entries=entries)
