"""What can go wrong in a worker."""


class WorkerError(Exception):
    """Base of all that follows."""


class ConfigError(WorkerError):
    """The environment is wrong: the Pod's template has to be repaired."""


class StepRefusedError(WorkerError):
    """A step can't be started, and never will be. The text is for the task's owner."""


class LinkError(WorkerError):
    """A call to the agent got no usable answer. It may or may not have taken effect."""
