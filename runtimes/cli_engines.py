"""The commands about the store of engines: `c7 engines`; here `sign` and `verify`."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from messages.errors import ConfigError, printable
from runtimes.flight_plan_file import read_flight_plan
from runtimes.store.engine_store import CURRENT_NAME, EngineStore
from runtimes.store.manifest import MANIFEST_NAME
from runtimes.store.signature import SIGNATURE_NAME, VERSION_MAX
from runtimes.store.signed_generation import sign_generation
from runtimes.store.signing_key import read_private_key, read_public_key
from runtimes.store.store_check import GenerationCheck, SignatureState, StoreCheck, check_store
from runtimes.store_view import StoreView, store_console

FAILED = 1
PLAN_NAME = "flight.toml"
"""What a flight plan is mostly called."""


def _named(_context: click.Context, _argument: click.Parameter, value: str) -> Path:
    """An empty PLACE is a shell variable that is not set, not the folder that one happens to be in."""
    if not value:
        raise click.BadParameter("expected a FLIGHT.toml or the folder of a store, got an empty text")
    return Path(value)


PLACE = click.argument("place", metavar="PLACE", type=str, callback=_named)
"""A flight plan, or the folder of a store."""
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")

_SIGNED: dict[SignatureState, str] = {
    "none": "unsigned",
    "verified": "version {version}, by the key",
    "other_key": "version {version}, by another key {key}",
    "not_compared": "version {version}, by key {key}, compared with none",
    "damaged": "damaged",
}


class Place(msgspec.Struct, frozen=True):
    """What PLACE leads to; `public_key` is what the plan names, None for a bare folder."""

    store: EngineStore
    public_key: Path | None


def find_place(place: Path) -> Place:
    """The store that a flight plan or a folder stands for. Raises ConfigError."""
    if (place / MANIFEST_NAME).exists():
        raise ConfigError(
            f"{place}: expected a FLIGHT.toml or the folder of a store, found one of its generations; try"
            f" {place.absolute().parent}"
        )
    if place.is_dir():
        plan = place / PLAN_NAME
        if plan.is_file() and not (place / CURRENT_NAME).exists():
            raise ConfigError(
                f"{place}: expected a FLIGHT.toml or the folder of a store, found a folder with a plan; try {plan}"
            )
        return Place(EngineStore(place), None)
    flight = read_flight_plan(place).flight
    return Place(EngineStore(flight.store), flight.public_key)


@click.group()
def engines() -> None:
    """Look at the engines that are stored, sign them, verify them. PLACE is a FLIGHT.toml or a store's folder."""


@engines.command()
@PLACE
@click.option(
    "--key", "key_path", required=True, type=click.Path(path_type=Path), help="PEM file, an Ed25519 private key."
)
@click.option("--generation", "number", type=click.IntRange(1, 999_999), help="Which one; else the current one.")
@click.option(
    "--version", type=click.IntRange(1, VERSION_MAX), help="Else one above the highest that was signed in the store."
)
@click.option("--manifest-only", is_flag=True, help="Sign without hashing the engines, where they are not at hand.")
@JSON
def sign(
    place: Path, key_path: Path, number: int | None, version: int | None, manifest_only: bool, as_json: bool
) -> None:
    """Sign a generation's manifest, so that aircraft that ask for this key take it."""
    store = find_place(place).store
    private_key = read_private_key(key_path, store.root)
    with StoreView(as_json=as_json) as view:
        signed = sign_generation(
            store,
            private_key,
            number=number,
            version=version,
            manifest_only=manifest_only,
            waiting=view.wait,
            hashing=view.hash,
        )
    if as_json:
        click.echo(msgspec.json.encode(signed).decode())
        return
    looked_at = "the engines were not looked at" if manifest_only else "every file of it was hashed and is whole"
    click.echo(f"generation {signed.generation} is signed: version {signed.version}; {looked_at}")
    click.echo(f"by the key {signed.key}")
    click.echo(signed.path)


@engines.command()
@PLACE
@click.option(
    "--key", "key_path", type=click.Path(path_type=Path), help="PEM file, an Ed25519 public key; else the plan's."
)
@JSON
def verify(place: Path, key_path: Path | None, as_json: bool) -> int:
    """Hash every file of every generation, and check the signatures."""
    found = find_place(place)
    key_path = key_path or found.public_key
    public_key = None if key_path is None else read_public_key(key_path, found.store.root)
    with StoreView(as_json=as_json) as view:
        checked = check_store(found.store, public_key, hashing=view.hash)
    if as_json:
        click.echo(msgspec.json.encode(checked).decode())
    else:
        _print_check(checked)
    return 0 if checked.ok else FAILED


def _print_check(checked: StoreCheck) -> None:
    console = store_console()
    table = Table("generation", "", "files", "signature", box=None)
    for each in checked.generations:
        damaged = sum(not file.endswith(SIGNATURE_NAME) for file in each.problems)
        table.add_row(
            str(each.number),
            "current" if each.current else "",
            f"damaged: {damaged}" if damaged else "whole",
            _describe_signature(each),
        )
    console.print(table)
    for text in checked.problems.values():
        _print_problem(console, "DAMAGED", text)
    for each in checked.generations:
        for file, text in each.problems.items():
            is_whole = file.endswith(SIGNATURE_NAME) and each.signature != "damaged"
            _print_problem(console, "REFUSED" if is_whole else "DAMAGED", text)
    console.print("the store is whole" if checked.ok else "the store is not as it should be", highlight=False)


def _print_problem(console: Console, word: str, text: str) -> None:
    console.print(f"{word}  {printable(text)}", markup=False, highlight=False, soft_wrap=True, style="red")


def _describe_signature(each: GenerationCheck) -> str:
    key = "" if each.key is None else f"{each.key[:16]}…"
    return _SIGNED[each.signature].format(version=each.version, key=key)
