"""Coverage-guided fuzzing: every target for its share of the time. Needs atheris (libFuzzer for Python).

    run.py --minutes 5 --cache DIRECTORY [TARGET…]

The corpus of each target is kept below the cache, and with it what was found: a file `crash-…`, which is what
to give to `check` of the target. Exits with 1 when there is one.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "src"
TARGETS = tuple(sorted(path.stem.removeprefix("target_") for path in HERE.glob("target_*.py")))
LONGEST_BYTES = 4096
SLOWEST_S = 20  # for one input
MOST_MEMORY_MIB = 2048


def _fuzz(name: str, arguments: list[str]) -> None:
    """Be the fuzzer of one target; never returns."""
    import atheris

    with atheris.instrument_imports(include=["lognot"]):
        target = importlib.import_module(f"target_{name}")
    atheris.Setup([sys.argv[0], *arguments], target.check)
    atheris.Fuzz()


def _run(name: str, seconds: int, cache: Path) -> bool:
    """Fuzz one target in a process of its own; say what it came to, and whether nothing was found."""
    corpus, found = cache / "corpus" / name, cache / "found" / name
    for directory in (corpus, found):
        directory.mkdir(parents=True, exist_ok=True)
    sys.path[:0] = [str(HERE), str(SOURCE)]
    for number, seed in enumerate(importlib.import_module(f"target_{name}").SEEDS):
        (corpus / f"seed-{number}").write_bytes(seed)
    command = [sys.executable, __file__, "--fuzz", name, str(corpus), f"-artifact_prefix={found}/"]
    command += [f"-max_total_time={seconds}", f"-max_len={LONGEST_BYTES}", f"-timeout={SLOWEST_S}"]
    command += [f"-rss_limit_mb={MOST_MEMORY_MIB}", "-print_final_stats=1"]
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{HERE}"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    text = done.stdout.decode(errors="replace")
    (cache / f"{name}.log").write_text(text)
    executions = re.findall(r"stat::number_of_executed_units: (\d+)", text)
    coverage = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", text)
    edges, features, inputs = coverage[-1] if coverage else ("?", "?", "?")
    runs = executions[-1] if executions else "?"
    print(
        f"{name:12} {runs:>9} runs, {edges:>5} edges, {features:>6} features, {inputs:>5} inputs kept",
        flush=True,
    )
    if done.returncode:
        print(text[-4000:], f"\n{name}: FAILED, see {found}", sep="", flush=True)
    return done.returncode == 0


def main() -> int:
    """Fuzz what the command line says."""
    if sys.argv[1:2] == ["--fuzz"]:
        _fuzz(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=5, help="for all targets together")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    arguments = parser.parse_args()
    targets = arguments.targets or TARGETS
    seconds = max(1, int(arguments.minutes * 60 / len(targets)))
    results = [_run(name, seconds, arguments.cache.resolve()) for name in targets]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
