"""Loading and running: Runtime, engines, contexts, and the callbacks that these take."""

__all__: list[str] = []
