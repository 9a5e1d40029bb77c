// Stands for libnvinfer.so.10: the five functions that NVIDIA's bindings link. There is nothing of TensorRT in it and it
// makes nothing: every factory says through its logger what a test has put down, and returns a null pointer. Only a test
// that asks for it gets a runtime, which loads nothing.
#include "interfaces.hpp"
#include "runtime.hpp"

#include <mutex>
#include <string>
#include <thread>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace
{

struct Words
{
    int32_t severity;
    std::string text;
    bool fromThread;
};

std::mutex mutex;
std::vector<Words> told;
std::vector<std::thread> speakers;
void* lastLogger = nullptr;
bool makesRuntime = false;

void* speak(void* logger)
{
    std::lock_guard<std::mutex> const held{mutex};
    lastLogger = logger;
    for (Words const& words : told)
    {
        auto const say = [logger, words] {
            static_cast<interfaces::Logger*>(logger)->log(words.severity, words.text.c_str());
        };
        if (words.fromThread)
        {
            speakers.emplace_back(say); // it waits for the interpreter's lock, which the factory's caller has
        }
        else
        {
            say();
        }
    }
    told.clear();
    return nullptr;
}

} // namespace

// NvInfer.h, line 9897, and NvInferRuntime.h, lines 4599 to 4610, of tag v10.3.0.
EXPORT void* createInferBuilder_INTERNAL(void* logger, int32_t /*version*/)
{
    return speak(logger);
}

EXPORT void* createInferRuntime_INTERNAL(void* logger, int32_t /*version*/)
{
    speak(logger);
    return makesRuntime ? new stub::Runtime : nullptr; // the bindings delete it
}

EXPORT void* createInferRefitter_INTERNAL(void* /*engine*/, void* logger, int32_t /*version*/)
{
    return speak(logger);
}

EXPORT void* getPluginRegistry()
{
    return nullptr;
}

EXPORT void* getBuilderPluginRegistry(int32_t /*capability*/)
{
    return nullptr;
}

// What the next factory says.
EXPORT void stub_will_say(int32_t severity, char const* text, bool fromThread)
{
    std::lock_guard<std::mutex> const held{mutex};
    told.push_back({severity, text, fromThread});
}

// Waits for all threads that speak. Called without the interpreter's lock.
EXPORT void stub_hear_out()
{
    std::vector<std::thread> waiting;
    {
        std::lock_guard<std::mutex> const held{mutex};
        waiting.swap(speakers);
    }
    for (std::thread& speaker : waiting)
    {
        speaker.join();
    }
}

EXPORT void* stub_last_logger()
{
    std::lock_guard<std::mutex> const held{mutex};
    return lastLogger;
}

// Whether factories make runtimes from here on, and whether these run host code of engines.
EXPORT void stub_makes_runtime(bool makes, bool hostCodeAllowed)
{
    makesRuntime = makes;
    stub::runtimeState().hostCodeAllowed = hostCodeAllowed;
}

// What the next load reports to the error recorder that it was given.
EXPORT void stub_will_report(int32_t code, char const* text, bool fromThread)
{
    stub::runtimeState().reports.push_back({code, text, fromThread});
}

EXPORT char const* stub_plan(std::size_t* size)
{
    *size = stub::runtimeState().plan.size();
    return stub::runtimeState().plan.data();
}

EXPORT void* stub_recorder()
{
    return stub::runtimeState().recorder;
}

EXPORT int32_t stub_runtimes_alive()
{
    return stub::runtimeState().alive;
}
