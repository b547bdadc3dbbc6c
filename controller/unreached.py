"""Why somebody could not be reached, in the system's words, without Python's text around them."""

import errno
import os
import ssl


def why_unreached(error: BaseException) -> str:
    """What went wrong with a connection; of aiohttp's errors also to whom.

    aiohttp's own text has the addresses of Python's objects in it. It is known by what its errors have, so that the
    command line need not load it.
    """
    if (cause := getattr(error, "certificate_error", None) or getattr(error, "os_error", None)) is not None:
        return f"can't connect to {error.host}:{error.port}: {why_unreached(cause)}"  # type: ignore[attr-defined]
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(getattr(error, 'reason', None) or 'failed').replace('_', ' ').lower()}"
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        # The resolver's own errors have numbers below zero.
        return os.strerror(error.errno) if error.errno in errno.errorcode else error.strerror
    return str(error) or type(error).__name__
