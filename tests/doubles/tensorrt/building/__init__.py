"""Building: Builder, network, parser, configuration, timing cache, and the callbacks that these take."""

__all__: list[str] = []
