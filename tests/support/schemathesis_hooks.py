"""Loaded by schemathesis: keeps it from asking for the answers that have no end."""

from typing import Any

import schemathesis

ENDLESS = ("watch", "follow")
YES = {"true", "1", ""}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Ask for the state once, and for the log as it is."""
    del context, kwargs
    for name in ENDLESS:
        if case.query and str(case.query.get(name, "no")).lower() in YES:
            case.query[name] = "false"
