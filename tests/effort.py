"""How much the generated tests try: the one place that says it.

    LOGNOT_TEST_EFFORT=50 .venv/bin/pytest tests/unit/test_config_fuzz.py

tries fifty times as many examples; 0.1 a tenth.
"""

from __future__ import annotations

import os

from hypothesis import settings

EFFORT = float(os.environ.get("LOGNOT_TEST_EFFORT", "1"))


def examples(number: int) -> settings:
    """So many examples, times the effort."""
    return settings(max_examples=max(1, round(number * EFFORT)))
