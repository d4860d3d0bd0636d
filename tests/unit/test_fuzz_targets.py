"""The targets of `make fuzz` take their seeds, and what comes of those by small changes, without atheris."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path

import pytest

from unit.descriptors import no_collection

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
TARGETS = sorted(path.stem for path in FUZZ.glob("target_*.py"))
CHANGES = 20  # of each seed: so that a target does not rot; finding something is the fuzzer's work


def changed(seed: bytes, dice: random.Random) -> bytes:
    """Turn, leave out or double a piece."""
    begin = dice.randrange(len(seed) + 1)
    end = min(len(seed), begin + dice.randrange(1, 9))
    piece = dice.choice([dice.randbytes(end - begin), b"", seed[begin:end] * 2, b"\xff" * (end - begin)])
    return seed[:begin] + piece + seed[end:]


@pytest.mark.parametrize("name", TARGETS)
def test_a_target(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FUZZ))
    target = importlib.import_module(name)
    dice = random.Random(name)
    with no_collection():  # some look for descriptors that were left open
        for seed in target.SEEDS:
            target.check(seed)
            for _ in range(CHANGES if name != "target_supervisor" else 2):
                target.check(changed(seed, dice))
        target.check(b"")


def test_the_driver_knows_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FUZZ))
    assert [f"target_{name}" for name in importlib.import_module("run").TARGETS] == TARGETS
    for name in ("run", *TARGETS):
        sys.modules.pop(name, None)
