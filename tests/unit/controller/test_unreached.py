"""What people read where a connection failed: the system's words, and nothing of Python's objects."""

import asyncio
import socket
import ssl

import aiohttp
import pytest

from controller.unreached import why_unreached


async def failure(url: str) -> Exception:
    async with aiohttp.ClientSession() as session:
        try:
            await session.get(url)
        except (aiohttp.ClientError, OSError) as error:
            return error
    raise AssertionError("it answered")


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def test_a_closed_port() -> None:
    port = closed_port()
    found = why_unreached(await failure(f"http://127.0.0.1:{port}/"))
    assert found == f"can't connect to 127.0.0.1:{port}: Connection refused"


async def test_a_name_that_is_unknown() -> None:
    found = why_unreached(await failure("http://nobody.invalid:80/"))
    assert found.startswith("can't connect to nobody.invalid:80: ")
    assert "[" not in found


async def test_a_server_without_tls() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = why_unreached(await failure(f"https://127.0.0.1:{port}/"))
    assert found.startswith(f"can't connect to 127.0.0.1:{port}: TLS: ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "no answer in time"),
        (ConnectionResetError(104, "whatever"), "Connection reset by peer"),
        (ssl.SSLError(1, "[SSL: UNKNOWN] (_ssl.c:997)"), "TLS: failed"),
        (OSError(), "OSError"),
    ],
    ids=str,
)
def test_others(error: Exception, said: str) -> None:
    assert why_unreached(error) == said
