"""One execution context with memory for its tensors: TensorRT is told shapes and addresses only where they change."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from messages import C7Error, EngineDeserializeError, InferenceError, InvalidInputError
from runtimes.cuda.port import Cuda, Stream
from runtimes.cuda.release import release_all
from runtimes.tensorrt.bindings import Context
from runtimes.tensorrt.inference.engine import LoadedEngine
from runtimes.tensorrt.inference.io_tensors import shape_of
from runtimes.tensorrt.inference.output_memory import OutputMemory, make_output_allocator, raise_remembered
from runtimes.tensorrt.inference.tensor_memory import TensorMemory
from runtimes.tensorrt.library import version_numbers

Shapes = Mapping[str, tuple[int, ...]]

_INFER_SHAPES_SAFE = (10, 16)
"""Older bindings raise in `infer_shapes` without the interpreter's lock, which can end the process
(python/src/infer/pyCore.cpp, infer_shapes, tag v10.3.0). There every output's shape is asked for, which raises nothing.
"""


class EngineContext:
    """Used by one thread at a time, inside `reports.listening()`.

    `tensors` is where its inputs and outputs lie. `outputs` holds the outputs whose shape depends on what the inputs
    hold; they are found out as shapes are set.
    """

    def __init__(self, trt: ModuleType, cuda: Cuda, loaded: LoadedEngine) -> None:
        """Raises EngineDeserializeError, OutOfMemoryError or what says that the device is lost."""
        self._trt = trt
        self._cuda = cuda
        self._reports = loaded.reports
        self._inputs = [tensor for tensor in loaded.io if tensor.is_input]
        self._outputs = [tensor for tensor in loaded.io if not tensor.is_input]
        self.tensors = {
            tensor.name: TensorMemory(cuda, tensor.name, tensor.spec, on_host=tensor.on_host) for tensor in loaded.io
        }
        self._infers_shapes = version_numbers(str(trt.__version__)) >= _INFER_SHAPES_SAFE
        self._allocators: dict[str, object] = {}
        self.outputs: dict[str, OutputMemory] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._good_shapes: Shapes = {}
        self._output_shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch: tuple[int, int] | None = None
        made = loaded.engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if made is None:
            raise self._reports.error_of_load()
        self._context: Context | None = made

    def set_shapes(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        """The shape of every output at these shapes of all inputs, without those whose shape depends on values.

        Memory for the inputs, and what host inputs hold, must be there already. Raises InvalidInputError for shapes
        that do not go together, else InferenceError.
        """
        if self._context is None:
            raise self._put_away()
        values_count = any(tensor.on_host for tensor in self._inputs)
        if self._shapes == shapes and not values_count:
            return self._output_shapes
        self._shapes, self._output_shapes = {}, {}
        for tensor in self._inputs:
            self._set_address(tensor.name)
            self._reports.require(
                self._open.set_input_shape(tensor.name, shapes[tensor.name]),
                f"set_input_shape({tensor.name}, {list(shapes[tensor.name])})",
            )
        found: dict[str, tuple[int, ...]] = {}
        for tensor in self._outputs:
            shape = shape_of(self._open.get_tensor_shape(tensor.name))
            if shape is None:
                raise self._error_of_shapes(f"get_tensor_shape({tensor.name})", shapes)
            if -1 not in shape and tensor.name not in self.outputs:
                found[tensor.name] = shape
            else:
                self._give_allocator(tensor.name, on_host=tensor.on_host)
        if self._infers_shapes:
            self._infer_shapes(shapes)
        self._shapes, self._output_shapes = dict(shapes), found
        self._good_shapes = self._shapes
        return found

    def set_addresses(self) -> None:
        """Tell TensorRT where every tensor lies, as far as it does not know."""
        for tensor in (*self._inputs, *self._outputs):
            if tensor.name not in self.outputs:
                self._set_address(tensor.name)

    def set_scratch(self, address: int, size_bytes: int) -> None:
        """Raises what TensorRT says: a context that kept a former block would run in memory that is another's."""
        if self._scratch != (address, size_bytes):
            self._open.set_device_memory(address, size_bytes)  # it returns nothing
            self._reports.require_silence("set_device_memory")
            self._scratch = (address, size_bytes)

    def enqueue(self, stream: Stream) -> None:
        """Put the run on the stream. Raises what TensorRT says, and what a callback met."""
        outputs = list(self.outputs.values())
        for output in outputs:
            output.begin()
        succeeded = self._open.execute_async_v3(stream.handle)
        raise_remembered(outputs)
        self._reports.require(succeeded, "execute_async_v3")

    def settle(self) -> None:
        """After the stream was synchronised: give back what outputs have outgrown."""
        release_all(output.settle for output in self.outputs.values())

    def close(self) -> None:
        """Idempotent. Nothing may be under way."""
        self._context = None
        release_all(
            [*(output.free for output in self.outputs.values()), *(memory.free for memory in self.tensors.values())]
        )

    def shape_that_came_out(self, name: str) -> tuple[int, ...]:
        """Of an output in `outputs`, after `enqueue`."""
        shape = self.outputs[name].shape
        if shape is None or min(shape, default=0) < 0:
            raise InferenceError(f"{self._reports.subject}: TensorRT gave no shape for output {name}, found {shape}")
        return shape

    @property
    def _open(self) -> Context:
        if self._context is None:
            raise self._put_away()
        return self._context

    def _put_away(self) -> InferenceError:
        return InferenceError(f"{self._reports.subject}: the engine was put away while it was to run")

    def _infer_shapes(self, shapes: Shapes) -> None:
        try:
            lacking = self._open.infer_shapes()
        except RuntimeError as error:  # the bindings' word for -1
            raise self._error_of_shapes("infer_shapes", shapes) from error
        self._reports.require(not lacking, f"infer_shapes, which lacks {', '.join(lacking)},")

    def _error_of_shapes(self, what: str, shapes: Shapes) -> C7Error:
        """Each shape was taken, and together they give none: the request's fault, where other shapes still do.

        TensorRT's words and codes do not tell that from a fault of its own, so it is tried: the last good shapes have
        to work, and these have to fail once more.
        """
        error = self._reports.error_of_run(what)
        words = self._reports.words()
        if type(error) is not InferenceError or not self._fit(self._good_shapes) or self._fit(shapes):
            return error
        found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        return InvalidInputError(
            f"{self._reports.subject}: expected inputs whose shapes go together, found {found}: {words}"
        )

    def _fit(self, shapes: Shapes) -> bool:
        return bool(shapes) and (
            all(self._open.set_input_shape(tensor.name, shapes[tensor.name]) for tensor in self._inputs)
            and all(shape_of(self._open.get_tensor_shape(tensor.name)) is not None for tensor in self._outputs)
        )

    def _set_address(self, name: str) -> None:
        address = self.tensors[name].address
        if self._addresses.get(name) != address:
            self._reports.require(
                self._open.set_tensor_address(name, address), f"set_tensor_address({name}, {address:#x})"
            )
            self._addresses[name] = address

    def _give_allocator(self, name: str, *, on_host: bool) -> None:
        if name in self.outputs:
            return
        if on_host:
            raise EngineDeserializeError(
                f"{self._reports.subject}: output {name} is a shape's values, of a number that only the run decides;"
                " export the model without this output"
            )
        memory = OutputMemory(self._cuda, name)
        allocator = make_output_allocator(self._trt, memory)
        self._reports.require(self._open.set_output_allocator(name, allocator), f"set_output_allocator({name})")
        self.outputs[name] = memory
        self._allocators[name] = allocator
