"""One CUDA device behind a small port: memory, streams, events and graphs."""
