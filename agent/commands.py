"""The small sub-commands: `install`, `close`, `slots`, `health`, and the help for all. Standard library only."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

from agent import __version__
from agent.installation import NAME, install

CALL_SECONDS = 5.0
START_SECONDS = 20.0
"""How long `close` waits for an agent that is starting: a preStop hook may run before anybody listens."""
LOOK_AGAIN_SECONDS = 0.1
EXIT_FAILED = 1
UNAUTHORIZED = 401
NOT_READY = 503


def main(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Parse and run; returns the exit status."""
    options = _parser().parse_args(words)
    if options.command == "install":
        return _install(Path(options.folder))
    if options.command == "close":
        return close(environ)
    if options.command == "slots":
        return show_slots(environ)
    if options.command == "health":
        return health(environ)
    raise AssertionError(options.command)  # `serve` and `work` take no arguments and were handled before


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=NAME, description="The agent of a podslots Pod, and its workers.")
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="own this Pod's slots and serve their state; configured by PODSLOTS_* variables")
    commands.add_parser("work", help="run the commands of one slot, in its own container")
    commands.add_parser("close", help="have the local agent refuse new work: the Pod is being stopped")
    commands.add_parser("slots", help="print the local agent's slots")
    commands.add_parser("health", help="ask the local agent whether it is well, as an image's health check")
    installing = commands.add_parser("install", help=f"put a runnable {NAME} into a folder")
    installing.add_argument("folder", metavar="DIR")
    return parser


def _install(folder: Path) -> int:
    try:
        install(folder)
    except OSError as error:
        return _fail(f"can't install into {folder}: {error}")
    return 0


def close(environ: Mapping[str, str]) -> int:
    """Tell the agent beside this process that the Pod is being stopped; wait for one that is starting."""
    folder = environ.get("PODSLOTS_STATE_DIR")
    if not folder:
        return _fail("PODSLOTS_STATE_DIR is required")
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            token = (Path(folder) / "close-token").read_text().strip()
            status, body = _call(environ, "POST", "/close", {"Authorization": f"Bearer {token}"})
        except (OSError, HTTPException) as error:  # a certificate that does not match is a ValueError, too
            problem = f"can't reach the agent: {error}"
        except ValueError as error:
            return _fail(_unsendable(error))
        else:
            if status == 200:  # noqa: PLR2004 - HTTP's OK
                return 0
            problem = f"the agent answered {status}: {body.strip()}"
            if status != NOT_READY:
                return _fail(problem)
        if time.monotonic() >= until:
            return _fail(problem)
        time.sleep(LOOK_AGAIN_SECONDS)


def show_slots(environ: Mapping[str, str]) -> int:
    """Print the slots of the agent at PODSLOTS_URL, or on this machine."""
    headers = {"Accept": "text/plain"}
    try:
        status, body = _call(environ, "GET", "/slots", headers)
        if status == UNAUTHORIZED and (token := _reading_token(environ)):
            # Reads are locked here.
            status, body = _call(environ, "GET", "/slots", {**headers, "Authorization": f"Bearer {token}"})
    except (OSError, HTTPException) as error:
        return _fail(f"can't reach the agent: {error}")
    except ValueError as error:
        return _fail(_unsendable(error))
    if status != 200:  # noqa: PLR2004 - HTTP's OK
        return _fail(f"the agent answered {status}: {body.strip()}")
    sys.stdout.write(body)
    return 0


def health(environ: Mapping[str, str]) -> int:
    """Whether the agent at PODSLOTS_URL, or on this machine, is well. Silent if it is."""
    try:
        status, body = _call(environ, "GET", "/healthz", {})
    except (OSError, HTTPException) as error:
        return _fail(f"can't reach the agent: {error}")
    except ValueError as error:
        return _fail(_unsendable(error))
    return 0 if status == 200 else _fail(f"the agent answered {status}: {body.strip()}")  # noqa: PLR2004 - HTTP's OK


def _call(environ: Mapping[str, str], method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
    from agent.config import local_url  # noqa: PLC0415 - install does without

    address = urlsplit(local_url(environ))
    connection = _connection(environ, address.scheme, address.hostname or "127.0.0.1", address.port)
    try:
        connection.request(method, path, headers=dict(headers))
        response: HTTPResponse = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    finally:
        connection.close()


def _connection(environ: Mapping[str, str], scheme: str, host: str, port: int | None) -> HTTPConnection:
    """A connection to the agent of this Pod. It trusts the certificate that the agent puts beside each credential."""
    if scheme != "https":
        return HTTPConnection(host, port, timeout=CALL_SECONDS)
    from agent.worker.http.tls import PINNED, pinned_context  # noqa: PLC0415 - rarely needed

    # The mounted files come last: the agent may not have taken them, or not yet.
    folders = (("PODSLOTS_STATE_DIR", PINNED), ("PODSLOTS_CREDENTIAL_DIR", PINNED), ("PODSLOTS_TLS_DIR", "tls.crt"))
    given = [Path(environ[name]) / file for name, file in folders if environ.get(name)]
    if not given:
        raise OSError("PODSLOTS_TLS_DIR or PODSLOTS_CREDENTIAL_DIR must say where the agent's certificate is")
    file = next((file for file in given if file.exists()), given[-1])
    return HTTPSConnection(host, port, timeout=CALL_SECONDS, context=pinned_context(str(file)))


def _reading_token(environ: Mapping[str, str]) -> str | None:
    """A credential of this container's that is good for reading."""
    for name, file in (("PODSLOTS_STATE_DIR", "close-token"), ("PODSLOTS_CREDENTIAL_DIR", "token")):
        if environ.get(name):
            with suppress(OSError):
                return (Path(environ[name]) / file).read_text().strip()
    return None


def _unsendable(error: ValueError) -> str:
    """A UnicodeError is one: of a host's name, or of a credential that is no text. Its own words may quote that."""
    what = "a name or a credential is no text" if isinstance(error, UnicodeError) else str(error)
    return f"can't ask the agent, by PODSLOTS_URL or PODSLOTS_POD_IP and PODSLOTS_PORT: {what}"


def _fail(problem: str) -> int:
    sys.stderr.write(f"{NAME}: {problem}\n")
    return EXIT_FAILED
