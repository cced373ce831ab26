"""Remove secrets from text that is shown or written."""

from __future__ import annotations

import re


def redact_url(url: str) -> str:
    """Return the URL without its password.

    On the web the user name goes too, as it may be a token.
    """
    return re.sub(
        r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<user>[^/@\s:]*)(?::[^/@\s]*)?@",
        lambda m: (
            f"{m['scheme']}{m['user']}@" if m["scheme"].lower() == "ssh://" else f"{m['scheme']}"
        ),
        url,
    )
