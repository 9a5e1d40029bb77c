"""What only the demo needs: packages of the extra `demo`, looked for before they are used."""

from __future__ import annotations

from importlib.util import find_spec

from messages import ConfigError

PACKAGES = {"onnx": "onnx", "PIL": "pillow", "sklearn": "scikit-learn", "torch": "torch"}
"""Module -> the distribution that holds it."""


def require_packages(*modules: str) -> None:
    """Raise ConfigError naming each package that is not installed, without importing any."""
    missing = [PACKAGES[module] for module in modules if find_spec(module) is None]
    if missing:
        raise ConfigError(
            f"the demo needs {' and '.join(missing)}, found not installed: install the extra demo"
            + (" and the extra torch" if "torch" in missing else "")
        )
