"""What can go wrong in a build."""


class BuildError(Exception):
    """The binary can't be built here; the message says what to do."""
