"""Reading `flight.toml`: every refusal names the file, the table and the key, and says what was expected and found."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args, get_origin

import msgspec

from messages.errors import ConfigError
from runtimes.config import C7InferenceConfig, TensorrtSection
from runtimes.flight_plan import (
    ConsumerSection,
    FlightPlan,
    FlightSection,
    FramesSection,
    ModelSection,
    ProfileSection,
    ThermalSection,
)
from runtimes.inference_factory import check_named_device, check_runtime_config, is_calibrated
from runtimes.path_text import decode_path
from runtimes.store.engine_filename import check_model_name
from runtimes.store.regular_file import read_regular_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FLIGHT_PLAN_MAX_BYTES = 1024 * 1024

SectionT = TypeVar("SectionT", bound=msgspec.Struct)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_AT = re.compile(r"(?P<what>.*?)(?: - at (?:`key` in )?`\$\.?(?P<path>.*)`)?", re.DOTALL)


def read_flight_plan(path: Path) -> FlightPlan:
    """Read and check a whole flight plan. Relative paths in it become absolute, from the plan's own folder.

    Whether sources and traces exist is not looked at here. Raises ConfigError.
    """
    return _Plan(path).read(_parse(path))


def _parse(path: Path) -> dict[str, object]:
    try:
        data = read_regular_file(path, max_bytes=FLIGHT_PLAN_MAX_BYTES, follow_links=True)
        document: dict[str, object] = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: the flight plan cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected UTF-8 text, found byte {error.object[error.start]:#04x}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error or 'nested too deeply'}") from error
    return document


class _Plan:
    """One plan file while it is read: knows its name for the errors and its folder for the paths."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._folder = path.absolute().parent

    def read(self, document: dict[str, object]) -> FlightPlan:
        known = {"flight", "runtime", "models", "thermal", "frames", "consumers"}
        for table in document:
            if table not in known:
                raise ConfigError(
                    f"{self._name}: [{_quoted(table)}]: unknown table or key; expected {', '.join(sorted(known))}"
                )
        flight, runtime, models = self._flight(document), self._runtime(document), self._models(document)
        plan = FlightPlan(
            flight=flight,
            runtime=runtime,
            models=models,
            thermal=self._thermal(document),
            frames=self._section("frames", FramesSection, document["frames"]) if "frames" in document else None,
            consumers={
                name: self._consumer(name, value, models)
                for name, value in self._table("consumers", document.get("consumers", {})).items()
            },
        )
        self._check_names(plan)
        self._check_bounds(plan)
        return plan

    def _flight(self, document: Mapping[str, object]) -> FlightSection:
        flight = self._section("flight", FlightSection, self._required(document, "flight"))
        return msgspec.structs.replace(
            flight,
            store=self._folder / flight.store,
            state=self._folder / flight.state,
            recordings=self._folder / flight.recordings,
            public_key=self._resolve(flight.public_key),
        )

    def _runtime(self, document: Mapping[str, object]) -> C7InferenceConfig:
        fields = self._table("runtime", self._required(document, "runtime"))
        if "tensorrt" in fields:
            self._section("runtime.tensorrt", TensorrtSection, fields["tensorrt"])
        config = self._section("runtime", C7InferenceConfig, fields)
        try:
            check_runtime_config(config)
            if "device" in fields:
                check_named_device(config)
        except ConfigError as error:
            raise self._refusal("runtime", str(error)) from error
        for key in ("engine_dir", "storage_room_bytes", "timing_cache_dir"):
            if getattr(config, key) is not None:
                raise self._refusal("runtime", f"{key}: expected none; a flight's engines lie in [flight] store")
        return config

    def _thermal(self, document: Mapping[str, object]) -> ThermalSection:
        thermal = self._section("thermal", ThermalSection, document.get("thermal", {}))
        if thermal.source == "replay" and thermal.trace is None:
            raise self._refusal("thermal", 'trace: missing; source = "replay" plays this file')
        if thermal.source != "replay" and thermal.trace is not None:
            raise self._refusal("thermal", f'trace: expected none with source = "{thermal.source}"; "replay" plays it')
        return msgspec.structs.replace(thermal, trace=self._resolve(thermal.trace))

    def _models(self, document: Mapping[str, object]) -> dict[str, ModelSection]:
        models = self._table("models", self._required(document, "models"))
        if not models:
            raise self._refusal("models", "expected at least one model, as [models.NAME], found none")
        return {name: self._model(name, value) for name, value in models.items()}

    def _model(self, name: str, value: object) -> ModelSection:
        table = f"models.{_quoted(name)}"
        fields = self._table(table, value)
        for tensor, shapes in self._table(f"{table}.profiles", fields.get("profiles", {})).items():
            place = f"{table}.profiles.{_quoted(tensor)}"
            self._check_profile(place, self._section(place, ProfileSection, shapes))
        model = self._section(table, ModelSection, fields)
        try:
            check_model_name(name)
        except ConfigError as error:
            raise self._refusal(table, str(error)) from error
        if model.precision == "int8" and model.calibration_dataset is None:
            raise self._refusal(table, 'calibration_dataset: missing; precision = "int8" is calibrated on it')
        return msgspec.structs.replace(
            model,
            source=self._folder / model.source,
            calibration_dataset=self._resolve(model.calibration_dataset),
            samples=self._resolve(model.samples),
        )

    def _check_profile(self, place: str, profile: ProfileSection) -> None:
        ranks = {len(profile.min), len(profile.opt), len(profile.max)}
        if len(ranks) != 1 or not all(
            low <= usual <= high for low, usual, high in zip(profile.min, profile.opt, profile.max, strict=True)
        ):
            raise self._refusal(
                place,
                "expected shapes of one rank with min <= opt <= max in every dimension, got"
                f" min {list(profile.min)}, opt {list(profile.opt)}, max {list(profile.max)}",
            )

    def _consumer(self, name: str, value: object, models: Mapping[str, ModelSection]) -> ConsumerSection:
        table = f"consumers.{_quoted(name)}"
        fields = self._table(table, value)
        for option, model in self._table(f"{table}.engines", fields.get("engines", {})).items():
            if not isinstance(model, str) or model not in models:
                raise self._refusal(table, f"engines.{_quoted(option)}: {_expected_model(models, model)}")
            if option in self._options(table, fields):
                raise self._refusal(table, f"{_quoted(option)}: expected in engines or in options, found in both")
        if ("class" in fields) == ("strategy" in fields):
            found = "both" if "class" in fields else "neither"
            raise self._refusal(
                table, f'expected either class = "module:Class" or strategy = "NAME" of a registered one, found {found}'
            )
        return self._section(table, ConsumerSection, fields)

    def _check_names(self, plan: FlightPlan) -> None:
        lightglue = plan.flight.lightglue
        if lightglue is not None and lightglue not in plan.models:
            raise self._refusal("flight", f"lightglue: {_expected_model(plan.models, lightglue)}")
        for name, model in plan.models.items():
            if model.calibration_dataset is not None and not is_calibrated(model.precision, plan.runtime.runtime):
                raise self._refusal(
                    f"models.{_quoted(name)}",
                    f"calibration_dataset: expected none, because {plan.runtime.runtime} calibrates nothing for"
                    f' precision = "{model.precision}"; leave it out, or give the precision that is calibrated on it',
                )
            for consumer in model.consumers:
                if consumer not in plan.consumers:
                    known = ", ".join(plan.consumers) or "none"
                    raise self._refusal(
                        f"models.{_quoted(name)}",
                        f"consumers: expected names of [consumers] ({known}), got {consumer!r}",
                    )
        for named in plan.runtime.tensorrt.cuda_graphs:
            if named not in plan.models:
                raise self._refusal("runtime.tensorrt", f"cuda_graphs: {_expected_model(plan.models, named)}")

    def _check_bounds(self, plan: FlightPlan) -> None:
        """The limits of `FlightPlan` itself: how many models and consumers, how long their names, what runs at once."""
        if plan.runtime.tensorrt.share_activation_memory and plan.flight.runs_at_once > 1:
            raise self._refusal(
                "runtime.tensorrt",
                "share_activation_memory: engines that share it run one at a time; expected [flight] runs_at_once = 1,"
                f" got {plan.flight.runs_at_once}",
            )
        for table, names in (("models", plan.models), ("consumers", plan.consumers)):
            if len(names) > 64:
                raise self._refusal(table, f"expected at most 64, found {len(names)}")
            for name in names:
                if not 1 <= len(name) <= 128:
                    raise self._refusal(f"{table}.{_quoted(name)}", "expected a name of 1 to 128 characters")

    def _resolve(self, path: Path | None) -> Path | None:
        return None if path is None else self._folder / path

    def _required(self, document: Mapping[str, object], table: str) -> object:
        if table not in document:
            raise self._refusal(table, "missing table")
        return document[table]

    def _table(self, table: str, value: object) -> dict[str, object]:
        if not isinstance(value, dict):
            raise self._refusal(table, f"expected a table, got {value!r:.80}")
        return cast("dict[str, object]", value)

    def _section(self, table: str, kind: type[SectionT], value: object) -> SectionT:
        fields = self._table(table, value)
        declared = msgspec.structs.fields(kind)
        known = [field.encode_name for field in declared]
        for key in fields:
            if key not in known:
                raise self._refusal(table, f"{_quoted(key)}: unknown key; expected {', '.join(known)}")
        for field in declared:
            if field.required and field.encode_name not in fields:
                raise self._refusal(table, f"{field.encode_name}: missing key")
        for key, option in self._options(table, fields).items():
            if not isinstance(option, str | int | float):
                raise self._refusal(
                    table, f"options.{_quoted(key)}: expected a text, number or boolean, got {option!r:.80}"
                )
        try:
            return msgspec.convert(fields, kind, dec_hook=decode_path)
        except msgspec.ValidationError as error:
            raise self._refusal(table, _explain(error, fields, kind)) from error

    def _options(self, table: str, fields: Mapping[str, object]) -> dict[str, object]:
        # Key by key: in a dictionary msgspec does not say at which key a value is wrong.
        return self._table(f"{table}.options", fields["options"]) if "options" in fields else {}

    def _refusal(self, table: str, text: str) -> ConfigError:
        return ConfigError(f"{self._name}: [{table}] {text}")


def _explain(error: msgspec.ValidationError, fields: Mapping[str, object], kind: type[msgspec.Struct]) -> str:
    """msgspec's text with the key first and the value last: `deadline_ms: expected float > 0.0, got -1`."""
    match = _AT.fullmatch(str(error))
    if match is None or match["path"] is None:
        return str(error)
    what = match["what"].replace("`", "")
    key = re.split(r"[.\[]", match["path"], maxsplit=1)[0]
    choices = [
        choice for field in msgspec.structs.fields(kind) if field.encode_name == key for choice in _choices(field.type)
    ]
    if choices and what.startswith("Invalid enum value"):
        what = f"expected {', '.join(choices)}"
    text = f"{match['path']}: {what[:1].lower()}{what[1:]}"
    return text if ", got " in text else f"{text}, got {fields.get(key)!r:.80}"


def _choices(annotation: object) -> list[str]:
    """The words of a Literal, also inside `X | None`."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _expected_model(models: Mapping[str, ModelSection], found: object) -> str:
    return f"expected the name of a model of [models] ({', '.join(map(_quoted, models))}), got {found!r:.80}"


def _quoted(key: str) -> str:
    """A key as TOML writes it, bounded, on one line."""
    return key if _BARE_KEY.fullmatch(key) and len(key) <= 128 else json.dumps(key[:128])
