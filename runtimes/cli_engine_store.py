"""The commands about generations: `c7 engines list` and `rollback`."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.markup import escape
from rich.table import Column, Table

from messages.errors import printable
from runtimes.cli_engines import JSON, PLACE, Place, find_place
from runtimes.store.inventory import StoredGeneration, StoreInventory, take_inventory
from runtimes.store.rollback import RolledBack, roll_back
from runtimes.store_view import StoreView, describe_bytes, store_console


@click.command("list")
@PLACE
@JSON
def list_generations(place: Path, as_json: bool) -> None:
    """Show the generations of a store, which one is current, and what is damaged. Engines are not hashed here."""
    store = find_place(place).store
    inventory = take_inventory(store)
    if as_json:
        click.echo(msgspec.json.encode(inventory).decode())
    else:
        _print_inventory(inventory)


def _print_inventory(inventory: StoreInventory) -> None:
    console = store_console()
    if inventory.generations:
        table = Table(Column("generation", no_wrap=True), Column("model", overflow="fold", min_width=10), box=None)
        table.add_column("precision", no_wrap=True)
        table.add_column("size", justify="right", no_wrap=True)
        table.add_column("accuracy", justify="right", no_wrap=True)
        for generation in inventory.generations:
            _add_rows(table, generation)
        console.print(table)
    else:
        console.print("the store holds no engines yet; run c7 provision FLIGHT.toml", highlight=False)
    for problem in _problems(inventory):
        console.print(f"DAMAGED  {printable(problem)}", markup=False, highlight=False, soft_wrap=True, style="red")
    counted = "its size is not known" if inventory.size_bytes is None else describe_bytes(inventory.size_bytes)
    size = f", {counted}" if inventory.generations else ""
    console.print(f"{inventory.store}{size}", markup=False, highlight=False, soft_wrap=True)


def _add_rows(table: Table, generation: StoredGeneration) -> None:
    first = f"{generation.number} current" if generation.current else str(generation.number)
    for engine in generation.engines:
        accuracy = "-" if engine.accuracy is None else f"{engine.accuracy:.1e}"
        table.add_row(first, escape(engine.model), engine.precision, describe_bytes(engine.size_bytes), accuracy)
        first = ""
    for model in generation.damaged:
        table.add_row(first, escape(model), "damaged", "", "")
        first = ""
    if generation.problem:
        table.add_row(first, "", "damaged", "", "")


def _problems(inventory: StoreInventory) -> list[str]:
    found = [inventory.problem]
    for generation in inventory.generations:
        found += [generation.problem, *generation.damaged.values()]
    return list(dict.fromkeys(problem for problem in found if problem))


@click.command()
@PLACE
@click.option("--generation", "number", type=click.IntRange(1, 999_999), help="Else the next lower one that is whole.")
@JSON
def rollback(place: Path, number: int | None, as_json: bool) -> None:
    """Go back to a former generation, once every file of it was hashed."""
    found = find_place(place)
    with StoreView(as_json=as_json) as view:
        done = roll_back(found.store, number, waiting=view.wait, hashing=view.hash)
    if as_json:
        click.echo(msgspec.json.encode(done).decode())
        return
    _print_rollback(done, found)


def _print_rollback(done: RolledBack, place: Place) -> None:
    console = store_console()
    for number, problem in done.skipped.items():
        text = f"DAMAGED  generation {number} was passed over: {printable(problem)}"
        console.print(text, markup=False, highlight=False, soft_wrap=True, style="red")
    if done.former == done.generation:
        console.print(f"generation {done.generation} is current already, and whole", highlight=False)
        return
    former = "unreadable" if done.former is None else str(done.former)
    console.print(f"generation {done.generation} is current, and whole; it was {former}", highlight=False)
    if place.public_key is not None:
        console.print(
            "an aircraft that has flown a higher version refuses it: sign it again, c7 engines sign", highlight=False
        )
