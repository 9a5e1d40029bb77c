// TensorRT's callback interfaces as a vtable knows them: each virtual function in its place, with its arguments. The
// bindings' objects are called through these, as TensorRT itself calls them. No header of NVIDIA's is included; the
// places are those of tag v10.3.0, and v10.16 has the same.
#pragma once

#include <cstddef>
#include <cstdint>

namespace interfaces
{

// NvInferRuntimeBase.h, line 364: returned by value.
struct InterfaceInfo
{
    char const* kind;
    int32_t major;
    int32_t minor;
};

// NvInferRuntimeBase.h, line 201.
struct Dims
{
    int32_t count;
    int64_t extents[8];
};

// NvInferRuntimeBase.h, line 399. Every interface but the logger has these first.
class Versioned
{
public:
    virtual int32_t getAPILanguage() const = 0;
    virtual InterfaceInfo getInterfaceInfo() const = 0;
    virtual ~Versioned() = default;
};

// NvInferRuntimeBase.h, line 682: it has `log` before its destructor. The severity is an enum over int32_t.
class Logger
{
public:
    virtual void log(int32_t severity, char const* message) = 0;
    virtual ~Logger() = default;
};

// NvInferRuntimeBase.h, line 856. The error code is an enum over int32_t.
class ErrorRecorder : public Versioned
{
public:
    virtual int32_t getNbErrors() const = 0;
    virtual int32_t getErrorCode(int32_t index) const = 0;
    virtual char const* getErrorDesc(int32_t index) const = 0;
    virtual bool hasOverflowed() const = 0;
    virtual void clear() = 0;
    virtual bool reportError(int32_t code, char const* description) = 0;
    virtual int32_t incRefCount() = 0;
    virtual int32_t decRefCount() = 0;
};

// NvInfer.h, line 8670.
class ProgressMonitor : public Versioned
{
public:
    virtual void phaseStart(char const* phase, char const* parent, int32_t steps) = 0;
    virtual bool stepComplete(char const* phase, int32_t step) = 0;
    virtual void phaseFinish(char const* phase) = 0;
};

// NvInfer.h, line 7670, IInt8Calibrator. The algorithm is an enum over int32_t.
class Calibrator : public Versioned
{
public:
    virtual int32_t getBatchSize() const = 0;
    virtual bool getBatch(void* addresses[], char const* names[], int32_t count) = 0;
    virtual void const* readCalibrationCache(std::size_t& size) = 0;
    virtual void writeCalibrationCache(void const* cache, std::size_t size) = 0;
    virtual int32_t getAlgorithm() = 0;
};

// NvInferRuntime.h, line 3429. The stream is a pointer.
class OutputAllocator : public Versioned
{
public:
    virtual void* reallocateOutput(char const* tensor, void* memory, uint64_t size, uint64_t alignment) = 0;
    virtual void* reallocateOutputAsync(
        char const* tensor, void* memory, uint64_t size, uint64_t alignment, void* stream)
        = 0;
    virtual void notifyShape(char const* tensor, Dims const& dims) = 0;
};

} // namespace interfaces
