"""The command about generations that has to know the flights: `c7 engines prune`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from actors.flight.flight_lock import FlightLock
from actors.flight.journal import JournalRecord, read_journal
from messages import EngineStoreError, FlightOpened
from runtimes import EngineStore, FlightPlan, read_flight_plan
from runtimes.store.disk import DISK, Disk
from runtimes.store.engine_store import no_current
from runtimes.store.inventory import take_inventory
from runtimes.store.retention import Retention, decide_retention, hide_generations, remove_hidden
from runtimes.store.storage_budget import stored_bytes
from runtimes.store.store_lock import OPERATOR_WAITS_S, store_lock
from runtimes.store_view import StoreView, describe_bytes, store_console

KEPT_BY_DEFAULT = 2


class PruneReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `c7 engines prune --json` prints. `kept` maps a generation to why; bytes are those of the whole store."""

    store: str
    kept: dict[int, str]
    pruned: tuple[int, ...]
    dry_run: bool
    bytes_before: int
    bytes_after: int


@click.command()
@click.argument("plan_path", metavar="FLIGHT.toml", type=click.Path(path_type=Path))
@click.option(
    "--keep", type=click.IntRange(min=1), default=KEPT_BY_DEFAULT, show_default=True, help="The newest that are whole."
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def prune(plan_path: Path, keep: int, dry_run: bool, as_json: bool) -> None:
    """Remove old generations; never the current one, nor one that a flight in the journal was opened with."""
    plan = read_flight_plan(plan_path)
    with StoreView(as_json=as_json) as view:
        report = prune_store(plan, keep=keep, dry_run=dry_run, view=view)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
        return
    console = store_console()
    for number, reason in report.kept.items():
        console.print(f"kept     generation {number}: {reason}", markup=False, highlight=False, soft_wrap=True)
    for number in report.pruned:
        console.print(f"{'would go' if dry_run else 'removed '} generation {number}", highlight=False)
    if report.pruned and not dry_run:
        freed = describe_bytes(report.bytes_before - report.bytes_after)
        console.print(f"{freed} freed, {describe_bytes(report.bytes_after)} in the store", highlight=False)
    elif not report.pruned:
        console.print("nothing to remove", highlight=False)


def prune_store(plan: FlightPlan, *, keep: int, dry_run: bool, view: StoreView, disk: Disk = DISK) -> PruneReport:
    """Remove what `decide_retention` does not keep, under the store's lock.

    Of another plan with the same store nothing is known. A flight process of this plan can neither be running nor
    start while it is decided and taken out of sight; the files go afterwards. Raises FlightProcessError where one
    runs, JournalError where the journal does not tell which generations are flown, EngineStoreError where the store
    has no engines, `current` cannot be read, or it cannot be written.
    """
    store = EngineStore(plan.flight.store, disk)
    if not store.numbers():
        raise EngineStoreError(f"{store.root}: expected generations of engines, found none; run c7 provision")
    with store_lock(store, timeout_s=OPERATOR_WAITS_S, waiting=view.wait):
        bytes_before = stored_bytes(store.root, store.disk)
        if not dry_run:
            remove_hidden(store)
        with _flights_at_rest(plan.flight.state) as records:
            retention = _decide(store, records, keep)
            if not dry_run:
                hide_generations(store, retention.pruned)
        if not dry_run:
            remove_hidden(store)
        return PruneReport(
            store=str(store.root),
            kept=retention.kept,
            pruned=retention.pruned,
            dry_run=dry_run,
            bytes_before=bytes_before,
            bytes_after=stored_bytes(store.root, store.disk),
        )


def generations_in(records: Sequence[JournalRecord]) -> dict[int, str]:
    """Pure. The generations that the journal names, each with the newest flight that was opened with it."""
    opened = (record.message for record in records)
    return {each.engine_generation: each.flight_id for each in opened if isinstance(each, FlightOpened)}


@contextmanager
def _flights_at_rest(state: Path) -> Iterator[Sequence[JournalRecord]]:
    """The journal, while no flight process can write it. A plan that never flew has no folder, and gets none."""
    if not state.is_dir():
        yield ()
        return
    with FlightLock(state):
        yield read_journal(state)


def _decide(store: EngineStore, records: Sequence[JournalRecord], keep: int) -> Retention:
    current = store.current()
    if current is None:
        raise EngineStoreError(f"nothing was removed; {no_current(store.root)}")
    inventory = take_inventory(store)
    return decide_retention(
        [generation.number for generation in inventory.generations],
        whole=[generation.number for generation in inventory.generations if generation.is_whole],
        current=current.number,
        in_flights=generations_in(records),
        keep=keep,
    )
