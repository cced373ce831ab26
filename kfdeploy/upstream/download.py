"""Fetching one file by HTTP."""

from __future__ import annotations

from typing import Final

from kfdeploy.errors import UserError
from kfdeploy.redact import redact_url

MAX_BYTES: Final = 256 * 1024 * 1024
_TIMEOUT: Final = 60.0


def download_file(url: str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The file's bytes; redirects and the environment's proxies are followed.

    Args:
        max_bytes: the answer may not be larger.

    Raises:
        UserError: no connection, an answer other than 200, or too much of it.
    """
    import httpx

    shown = redact_url(url)
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=_TIMEOUT) as answer:
            if answer.status_code != 200:
                raise UserError(f"can't fetch {shown}: the server answers {answer.status_code}")
            data = bytearray()
            for chunk in answer.iter_bytes():
                data += chunk
                if len(data) > max_bytes:
                    raise UserError(f"can't fetch {shown}: larger than {max_bytes >> 20} MiB")
            return bytes(data)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(
            f"can't fetch {shown}: {str(error).replace(url, shown) or type(error).__name__}",
            hint="name a folder or a mirror that has it in `upstream.remotes`",
        ) from error
