// Stands for libnvonnxparser.so.10: the three functions that NVIDIA's bindings link. No parser is made.
#include <cstdint>

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void* createNvOnnxParser_INTERNAL(void* /*network*/, void* /*logger*/, int32_t /*version*/)
{
    return nullptr;
}

EXPORT void* createNvOnnxParserRefitter_INTERNAL(void* /*refitter*/, void* /*logger*/, int32_t /*version*/)
{
    return nullptr;
}

EXPORT int32_t getNvOnnxParserVersion()
{
    return 0;
}
