"""What all measures share: where they work, how often, with whom, and who had to be left out."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from programs import Program, Unavailable

Result = TypeVar("Result")
Given = ParamSpec("Given")


@dataclass(slots=True)
class Session:
    """One run of the bench."""

    directory: Path
    rounds: int
    rules: list[int]
    programs: list[Program]
    quick: bool = False
    left_out: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def kept(self) -> Path:
        """Where made text is kept from run to run."""
        return self.directory

    def work(self, program: Program) -> Path:
        """Give a program's directory; not below /tmp, whose other files would wake who watches it."""
        return self.directory / "work" / program.name.replace(" ", "")

    def attempt(
        self,
        measure: str,
        program: Program,
        what: str,
        do: Callable[Given, Result],
        *args: Given.args,
        **named: Given.kwargs,
    ) -> Result | None:
        """Do one measurement. One that failed is not tried again in the next round; the report says why."""
        key = f"{program.name}{', ' + what if what else ''}"
        if key in self.left_out[measure]:
            return None
        say(f"  {measure}: {key}")
        try:
            return do(*args, **named)
        except (Unavailable, OSError, subprocess.SubprocessError) as error:
            self.left_out[measure][key] = str(error)
            say(f"    left out: {error}")
            return None

    def missing(self, measure: str) -> list[str]:
        """Who was left out of a measure, with the reason."""
        return [f"{who}: {why}" for who, why in self.left_out[measure].items()]


def say(text: str) -> None:
    """Tell who waits what is going on."""
    print(text, flush=True)
