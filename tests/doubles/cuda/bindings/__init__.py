"""The part of NVIDIA's `cuda.bindings` that the CUDA port uses."""

__version__ = "12.9.10"
