"""The demo's models and a plan for them in a folder that can be copied elsewhere: what `make engines` provisions.

    python -m actors.demo.engines FOLDER [--runtime R] [--provider P]

A second run writes the same bytes, so that what was provisioned from them stays up to date.
"""

from __future__ import annotations

from pathlib import Path

import click

from actors.demo.model_files import write_models
from actors.demo.networks import DEMO_RUNTIMES, DemoRuntime
from actors.demo.plan import write_flight_plan
from messages import C7Error
from runtimes.config import Provider

FLIGHT_S = 24.0
"""Of the flight that the plan's thermal trace is made for: the demonstration's own."""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--runtime", type=click.Choice(DEMO_RUNTIMES), default="onnx_trt_ep", show_default=True)
@click.option("--provider", type=click.Choice(["cpu", "cuda", "tensorrt"]), help="Of onnx_trt_ep; by default cpu.")
def main(folder: Path, runtime: DemoRuntime, provider: Provider | None) -> None:
    """Write the demo's models and flight plan into FOLDER and print the plan's path."""
    if provider is not None and runtime != "onnx_trt_ep":
        raise click.UsageError(f"--provider belongs to onnx_trt_ep, and the runtime is {runtime}")
    try:
        models = write_models(folder / "models", runtime)
        plan = write_flight_plan(folder, runtime=runtime, models=models, flight_s=FLIGHT_S, provider=provider or "cpu")
    except C7Error as error:
        raise click.ClickException(str(error)) from error
    click.echo(plan)


if __name__ == "__main__":
    main()
