"""Which of Helm's and kubectl's words are worth another try."""

from __future__ import annotations

import pytest

from kfdeploy.apply.transient import is_transient, is_wait_timeout

_GET = 'Get "https://10.0.0.1:6443/api/v1/namespaces/a/secrets"'
_HOOK = 'failed calling webhook "w.test": failed to call webhook: Post "https://w.a.svc:443/x?timeout=10s"'

PASSING = (
    f"Error: Kubernetes cluster unreachable: {_GET}: connect: connection refused",
    f"Error: query: failed to query with labels: {_GET}: read: connection reset by peer",
    f"Error: {_GET}: EOF",
    f"Error: {_GET}: net/http: TLS handshake timeout",
    "Error: the server has received too many requests and has asked us to try again later",
    "Error: the server is currently unable to handle the request (get secrets)",
    'an error on the server ("<html>") has prevented the request from succeeding',
    "Error: etcdserver: leader changed",
    "Error from server (InternalError): Internal error occurred: etcdserver: request timed out",
    'Operation cannot be fulfilled on deployments.apps "d": the object has been modified',
    f"Internal error occurred: {_HOOK}: dial tcp 10.1.2.3:443: connect: connection refused",
    f'Internal error occurred: {_HOOK}: no endpoints available for service "w"',
)
LASTING = (
    'Error: ConfigMap "Not_A_Name" is invalid: metadata.name: Invalid value',
    'deployments.apps "d" is forbidden: User "x" cannot patch resource "deployments"',
    'admission webhook "w.test" denied the request: connection refused is no good name',
    f"Internal error occurred: {_HOOK}: x509: certificate signed by unknown authority",
    "Error: UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress",
    "resource Deployment/a/d not ready. status: InProgress, message: 0/1 ready",
    "context deadline exceeded",
    "error: timed out waiting for the condition on deployments/d",
    'unable to recognize "": no matches for kind "Thing" in version "a.test/v1"',
)


@pytest.mark.parametrize("text", PASSING)
def test_what_passes_by_itself_is_tried_again(text: str) -> None:
    assert is_transient(text)


@pytest.mark.parametrize("text", LASTING)
def test_what_does_not_is_not(text: str) -> None:
    assert not is_transient(text)


def test_waits_that_ran_out_are_told() -> None:
    assert [text for text in LASTING if is_wait_timeout(text)] == [
        "context deadline exceeded",
        "error: timed out waiting for the condition on deployments/d",
    ]
