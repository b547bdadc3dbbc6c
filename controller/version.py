"""The version of this podslots, as it was installed."""

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """As `0.1.0`; `unknown` where nothing was installed and a source tree runs by itself."""
    try:
        return version("podslots")
    except PackageNotFoundError:
        return "unknown"
