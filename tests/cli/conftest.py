"""What tests of commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.support.live import LiveCluster
from tests.support.places import Place, make_place


@pytest.fixture
def place(
    tmp_path: Path, live: LiveCluster, kfdeploy: Runner, request: pytest.FixtureRequest
) -> Place:
    """A workspace, and namespaces of its own, on the shared cluster."""
    return make_place(tmp_path / "ws", live, kfdeploy, request.node.name)
