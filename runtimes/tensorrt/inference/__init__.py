"""From a verified plan to results: engines loaded, ready and run."""
