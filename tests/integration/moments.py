"""Moments at which something happens to lognot: drawn anew each time, and known afterwards."""

from __future__ import annotations

import os
import random
import time


class Moments(random.Random):
    """Draws moments; says how to draw the same ones again."""

    def __init__(self) -> None:
        chosen = int(os.environ.get("LOGNOT_TEST_SEED") or random.randrange(2**32))
        super().__init__(chosen)
        print(f"seed {chosen} (LOGNOT_TEST_SEED={chosen} draws the same)")

    def any(self, longest_s: float = 0.02) -> None:
        """Let a moment pass, so that what is done next is done at any point of what goes on."""
        time.sleep(self.uniform(0, longest_s))  # it is the moment itself that is wanted
