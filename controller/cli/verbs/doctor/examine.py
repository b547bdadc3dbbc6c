"""`podslots doctor`: the examination as a whole."""

import click

from controller import names
from controller.cli.arguments.verb import Verb, pass_session
from controller.cli.cluster.session import Connection, Session
from controller.cli.show import colours
from controller.cli.show.documents import as_text
from controller.cli.verbs.doctor import trials
from controller.cli.verbs.doctor.checks import CHECKS
from controller.cli.verbs.doctor.facts import gather
from controller.cli.verbs.doctor.findings import Finding, State, documents, table
from controller.cli.verbs.doctor.installation import controller_user


def examine(connection: Connection, *, controller_namespace: str | None) -> list[Finding]:
    """All findings, in the order in which things rest on each other."""
    facts = gather(connection, controller_namespace=controller_namespace)
    found = [finding for check in CHECKS for finding in check(facts)]
    found += trials.refusals(connection, facts)
    user = controller_user(facts) or names.CONTROLLER_USER
    return [*found, trials.controller_rights(connection, user)]


@click.command(cls=Verb)
@click.option("--controller-namespace", help=f"Where it runs (default: {names.CONTROLLER_NAMESPACE}, or this one).")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table")
@click.pass_context
@pass_session
def doctor(session: Session, ctx: click.Context, *, controller_namespace: str | None, output: str) -> None:
    """Check an installation, and say what to do. Changes nothing.

    Exit code 1 if something fails. What you may not look at is "unseen": an administrator sees all.
    """
    found = session.run(lambda connection: examine(connection, controller_namespace=controller_namespace))
    click.echo(table(found, coloured=colours.wanted()) if output == "table" else as_text(documents(found), output))
    if any(finding.state is State.FAILS for finding in found):
        ctx.exit(1)
