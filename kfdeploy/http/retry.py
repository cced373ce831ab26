"""Decide how long to wait before a request is sent again."""

from __future__ import annotations

import email.utils
import random
import time
from typing import Final

from kfdeploy.http.pool import HttpResponse

_FIRST_SECONDS: Final = 0.4
_LONGEST_SECONDS: Final = 20.0


def retry_delay(tries: int) -> float:
    """Return the seconds to wait after ``tries`` failures.

    They double each time. Half of them are random, so that workers spread.
    """
    return random.uniform(0.5, 1.0) * min(_FIRST_SECONDS * 2.0**tries, _LONGEST_SECONDS)


def parse_retry_after(response: HttpResponse, default: float) -> float:
    """Return the seconds that a response's Retry-After names, but at least ``default``.

    The header holds seconds or a date (RFC 9110, section 10.2.3).
    """
    value = response.headers.get("retry-after", "").strip()
    if value.isdigit():
        return max(float(value), default)
    when = email.utils.parsedate_tz(value) if value else None
    if when is None:
        return default
    return max(email.utils.mktime_tz(when) - time.time(), default)
