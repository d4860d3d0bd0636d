"""What the tests of leftovers stand on."""

from __future__ import annotations

import os

from integration.processes import marked


def test_marked_processes_are_found() -> None:
    assert os.environ.get("PATH")
    assert os.getpid() in marked(f"PATH={os.environ['PATH']}")
