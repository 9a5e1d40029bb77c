// A runtime that loads nothing: what the bindings' `Runtime` is made around, so that our loading goes as far as TensorRT's
// answer. It keeps the bytes that it is given, says what a test has put down, and gives no engine.
#pragma once

#include "interfaces.hpp"

#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace stub
{

struct Report
{
    int32_t code;
    std::string text;
    bool fromThread;
};

// What a test reads of the last runtime, and says to it.
struct RuntimeState
{
    bool hostCodeAllowed = false;
    std::vector<Report> reports;
    std::vector<char> plan;
    void* recorder = nullptr;
    int32_t alive = 0;
};

inline RuntimeState& runtimeState()
{
    static RuntimeState state;
    return state;
}

// NvInferImpl.h, line 236, of tag v10.3.0: VRuntime, which v10.16 has longer at its end. All but six are never called.
class RuntimeImpl
{
public:
    virtual ~RuntimeImpl() = default;
    virtual void* getPImpl()
    {
        return nullptr;
    }
    virtual void* deserializeCudaEngine(void const* blob, std::size_t size)
    {
        RuntimeState& state = runtimeState();
        state.plan.assign(static_cast<char const*>(blob), static_cast<char const*>(blob) + size);
        for (Report const& report : state.reports)
        {
            auto const say = [&] {
                static_cast<interfaces::ErrorRecorder*>(state.recorder)->reportError(report.code, report.text.c_str());
            };
            if (report.fromThread)
            {
                std::thread{say}.join(); // ends only where the caller has given the interpreter's lock away
            }
            else
            {
                say();
            }
        }
        state.reports.clear();
        return nullptr;
    }
    virtual void* deserializeFromStream(void* /*reader*/)
    {
        return nullptr;
    }
    virtual void setDLACore(int32_t /*core*/) {}
    virtual int32_t getDLACore() const
    {
        return 0;
    }
    virtual int32_t getNbDLACores() const
    {
        return 0;
    }
    virtual void setGpuAllocator(void* /*allocator*/) {}
    virtual void setErrorRecorder(void* recorder)
    {
        runtimeState().recorder = recorder;
    }
    virtual void* getErrorRecorder() const
    {
        return runtimeState().recorder;
    }
    virtual void* getLogger() const
    {
        return nullptr;
    }
    virtual bool setMaxThreads(int32_t /*count*/)
    {
        return false;
    }
    virtual int32_t getMaxThreads() const
    {
        return 1;
    }
    virtual void setTemporaryDirectory(char const* /*path*/) {}
    virtual char const* getTemporaryDirectory() const
    {
        return nullptr;
    }
    virtual void setTempfileControlFlags(uint32_t /*flags*/) {}
    virtual uint32_t getTempfileControlFlags() const
    {
        return 0;
    }
    virtual void* getPluginRegistry()
    {
        return nullptr;
    }
    virtual void setPluginRegistryParent(void* /*parent*/) {}
    virtual void* loadRuntime(char const* /*path*/)
    {
        return nullptr;
    }
    virtual void setEngineHostCodeAllowed(bool allowed)
    {
        runtimeState().hostCodeAllowed = allowed;
    }
    virtual bool getEngineHostCodeAllowed() const
    {
        return runtimeState().hostCodeAllowed;
    }
};

// NvInferRuntime.h, lines 47 and 1385: IRuntime is a virtual destructor and a pointer to the above. Its other functions
// are inline, so they are in the bindings.
class Runtime
{
public:
    Runtime()
        : mImpl{&mOwn}
    {
        ++runtimeState().alive;
    }
    virtual ~Runtime()
    {
        --runtimeState().alive;
    }

protected:
    RuntimeImpl* mImpl;

private:
    RuntimeImpl mOwn;
};

} // namespace stub
