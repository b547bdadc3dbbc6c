"""Options that several verbs have, each with one meaning."""

import click

from controller.cli.arguments import kinds
from controller.cli.arguments.types import Name

EVERYWHERE = click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="In all namespaces.")
OF_POOL = click.option("-p", "--pool", type=Name(kinds.POOLS), help="Only of this pool.")
