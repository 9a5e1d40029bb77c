"""The production runtime's room: how TensorRT builds an engine, loads it and runs it."""
