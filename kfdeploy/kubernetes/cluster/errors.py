"""The two ways in which a request to an API server fails."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Any, Final

from kfdeploy.errors import UserError
from kfdeploy.kubernetes.accessors import Body, list_mappings

_TRANSIENT_STATUSES: Final = frozenset((429, 500, 502, 503, 504))
_MESSAGE_MAX: Final = 2000
_WEBHOOK_DOWN: Final = "failed calling webhook"


class ApiError(UserError):
    """The API server refused a request.

    Attributes:
        status: the HTTP status.
        reason: ``NotFound``, ``Conflict``, ``Invalid``, ``Forbidden`` ... of the server's Status.
        said: the message of the server's Status.
        causes: field, reason and message of each mistake, of the server's Status.
        retry_after: seconds that the server asks a client to wait.
    """

    def __init__(self, purpose: str, status: int, body: Any, retry_after: float = 0.0) -> None:
        answer: Body = body if isinstance(body, Mapping) else {"message": str(body)}
        self.status = status
        self.reason = str(answer.get("reason") or http.client.responses.get(status, ""))
        self.said = str(answer.get("message") or self.reason).strip()[:_MESSAGE_MAX]
        self.causes: tuple[Body, ...] = tuple(list_mappings(answer, "details", "causes"))
        self.retry_after = retry_after
        super().__init__(f"{purpose}: the API server answered {status} {self.reason}: {self.said}")

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed a moment later.

        A webhook that is down causes a 500 too, and stays down until somebody starts it.
        """
        return self.status in _TRANSIENT_STATUSES and _WEBHOOK_DOWN not in self.said


class ClusterUnreachable(UserError):
    """No API server answers.

    Attributes:
        retry_after: seconds that whoever answered in its place asks a client to wait.
    """

    retry_after: float = 0.0
