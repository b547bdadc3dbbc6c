"""The examination as a whole."""

from controller import names
from controller.cli.doctor import trials
from controller.cli.doctor.checks import CHECKS, controller_user
from controller.cli.doctor.facts import gather
from controller.cli.doctor.findings import Finding
from controller.cli.session import Connection


async def examine(connection: Connection, *, controller_namespace: str | None) -> list[Finding]:
    """All findings, in the order in which things rest on each other."""
    facts = await gather(connection, controller_namespace=controller_namespace)
    found = [finding for check in CHECKS for finding in check(facts)]
    found += await trials.bites(connection, facts)
    user = controller_user(facts) or names.CONTROLLER_USER
    return [*found, await trials.controller_rights(connection, user)]
