"""The commands about the store of engines: `c7 engines`."""

from __future__ import annotations

import click


@click.group()
def engines() -> None:
    """Look at the engines that are stored, sign them, verify them."""
