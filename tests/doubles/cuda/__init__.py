"""Stands before NVIDIA's package of this name on `sys.path`: CUDA's runtime over host memory."""
