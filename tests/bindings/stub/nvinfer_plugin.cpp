// Stands for libnvinfer_plugin.so.10: no plugin is registered, and a test decides what is said of that. Beside it stands what calls Python's callbacks as TensorRT
// does, in `call_`s that ctypes calls without the interpreter's lock, on this thread or on one of their own.
//
// The address of what is called comes from the bindings themselves: they hand a `void*` of this function's first argument
// the C++ object of whatever Python object they are given (NvInferPlugin.h, line 38, of tag v10.3.0; pybind11's caster of
// void pointers). So nothing here has to know how pybind11 lays out its objects.
#include "interfaces.hpp"

#include <cstdio>
#include <cstring>
#include <thread>
#include <typeinfo>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace
{

void* given = nullptr;
bool registers = false;

template <typename Call>
void run(bool onThread, Call const& call)
{
    if (onThread)
    {
        std::thread{call}.join();
    }
    else
    {
        call();
    }
}

template <typename Interface>
Interface& as(void* object)
{
    return *static_cast<Interface*>(object);
}

using interfaces::Calibrator;
using interfaces::ErrorRecorder;
using interfaces::Logger;
using interfaces::OutputAllocator;
using interfaces::ProgressMonitor;
using interfaces::Versioned;

} // namespace

EXPORT bool initLibNvInferPlugins(void* object, char const* /*libNamespace*/)
{
    given = object;
    return registers;
}

EXPORT void stub_registers_plugins(bool answer)
{
    registers = answer;
}

EXPORT void* stub_given()
{
    return given;
}

// The name of the C++ class as the compiler mangles it.
EXPORT char const* call_class_name(void* object)
{
    return typeid(as<Versioned>(object)).name();
}

EXPORT int32_t call_interface_version(void* object, char* kind, std::size_t room)
{
    interfaces::InterfaceInfo const info = as<Versioned>(object).getInterfaceInfo();
    std::snprintf(kind, room, "%s", info.kind);
    return info.major;
}

EXPORT void call_log(bool onThread, void* logger, int32_t severity, char const* text)
{
    run(onThread, [&] { as<Logger>(logger).log(severity, text); });
}

EXPORT int32_t call_error_count(bool onThread, void* recorder)
{
    int32_t count = 0;
    run(onThread, [&] { count = as<ErrorRecorder>(recorder).getNbErrors(); });
    return count;
}

EXPORT int32_t call_error_code(bool onThread, void* recorder, int32_t index)
{
    int32_t code = 0;
    run(onThread, [&] { code = as<ErrorRecorder>(recorder).getErrorCode(index); });
    return code;
}

// The text belongs to the recorder until its next call: it is copied at once.
EXPORT void call_error_text(bool onThread, void* recorder, int32_t index, char* text, std::size_t room)
{
    run(onThread, [&] {
        char const* found = as<ErrorRecorder>(recorder).getErrorDesc(index);
        std::snprintf(text, room, "%s", found == nullptr ? "(null)" : found);
    });
}

EXPORT bool call_overflowed(bool onThread, void* recorder)
{
    bool answer = false;
    run(onThread, [&] { answer = as<ErrorRecorder>(recorder).hasOverflowed(); });
    return answer;
}

EXPORT void call_clear(bool onThread, void* recorder)
{
    run(onThread, [&] { as<ErrorRecorder>(recorder).clear(); });
}

EXPORT bool call_report_error(bool onThread, void* recorder, int32_t code, char const* text)
{
    bool answer = false;
    run(onThread, [&] { answer = as<ErrorRecorder>(recorder).reportError(code, text); });
    return answer;
}

EXPORT int32_t call_references(void* recorder, int32_t step)
{
    return step > 0 ? as<ErrorRecorder>(recorder).incRefCount() : as<ErrorRecorder>(recorder).decRefCount();
}

EXPORT void call_phase_start(bool onThread, void* monitor, char const* phase, char const* parent, int32_t steps)
{
    run(onThread, [&] { as<ProgressMonitor>(monitor).phaseStart(phase, parent, steps); });
}

EXPORT bool call_step_complete(bool onThread, void* monitor, char const* phase, int32_t step)
{
    bool answer = false;
    run(onThread, [&] { answer = as<ProgressMonitor>(monitor).stepComplete(phase, step); });
    return answer;
}

EXPORT void call_phase_finish(bool onThread, void* monitor, char const* phase)
{
    run(onThread, [&] { as<ProgressMonitor>(monitor).phaseFinish(phase); });
}

EXPORT int32_t call_batch_size(bool onThread, void* calibrator)
{
    int32_t size = 0;
    run(onThread, [&] { size = as<Calibrator>(calibrator).getBatchSize(); });
    return size;
}

EXPORT bool call_batch(bool onThread, void* calibrator, void* addresses[], char const* names[], int32_t count)
{
    bool answer = false;
    run(onThread, [&] { answer = as<Calibrator>(calibrator).getBatch(addresses, names, count); });
    return answer;
}

EXPORT void const* call_read_cache(bool onThread, void* calibrator, std::size_t* size)
{
    void const* cache = nullptr;
    run(onThread, [&] { cache = as<Calibrator>(calibrator).readCalibrationCache(*size); });
    return cache;
}

// TensorRT's memory ends with the call: here it is overwritten as soon as the callback has returned.
EXPORT void call_write_cache(bool onThread, void* calibrator, char* cache, std::size_t size)
{
    run(onThread, [&] { as<Calibrator>(calibrator).writeCalibrationCache(cache, size); });
    std::memset(cache, 'x', size);
}

EXPORT int32_t call_algorithm(bool onThread, void* calibrator)
{
    int32_t algorithm = 0;
    run(onThread, [&] { algorithm = as<Calibrator>(calibrator).getAlgorithm(); });
    return algorithm;
}

EXPORT void* call_reallocate(
    bool onThread, void* allocator, char const* tensor, void* memory, uint64_t size, uint64_t alignment)
{
    void* answer = nullptr;
    run(onThread, [&] { answer = as<OutputAllocator>(allocator).reallocateOutput(tensor, memory, size, alignment); });
    return answer;
}

EXPORT void* call_reallocate_async(
    bool onThread, void* allocator, char const* tensor, void* memory, uint64_t size, uint64_t alignment, void* stream)
{
    void* answer = nullptr;
    run(onThread, [&] {
        answer = as<OutputAllocator>(allocator).reallocateOutputAsync(tensor, memory, size, alignment, stream);
    });
    return answer;
}

// A count of -1 is a shape that TensorRT does not know.
EXPORT void call_notify_shape(bool onThread, void* allocator, char const* tensor, int32_t count, int64_t const* extents)
{
    interfaces::Dims dims{count, {}};
    for (int32_t axis = 0; axis < count; ++axis)
    {
        dims.extents[axis] = extents[axis];
    }
    run(onThread, [&] { as<OutputAllocator>(allocator).notifyShape(tensor, dims); });
}
