"""`make models`: explores the protocol in larger configurations than the tests do, and shows what each fault leads to."""

import sys
from dataclasses import replace
from typing import get_args

from tests.models.explorer import Exploration, Explorer
from tests.models.protocol import Protocol
from tests.models.protocol_state import Configuration, Fault

LARGE = [
    Configuration(requests=2, cancels=True, limit=1),
    Configuration(requests=2, crashes=1),
    Configuration(requests=2, limit=4, others=2, refunds=True),
    Configuration(requests=3, threshold=1),
    Configuration(requests=3),
    Configuration(requests=3, limit=1, cancels=True),
]


def explore(configuration: Configuration) -> Exploration:
    """Visit every state of the protocol in this configuration."""
    protocol = Protocol(configuration)
    return Explorer(protocol.steps, protocol.canonical, protocol.broken, protocol.is_quiescent).run(protocol.initial())


def main() -> int:
    """Print what is found; return how many configurations break a rule, or faults break none."""
    failed = 0
    for configuration in LARGE:
        found = explore(configuration)
        print(f"{_words(configuration)}\n  {found}", flush=True)
        failed += not found.is_sound
    for fault in get_args(Fault):
        found = explore(replace(Configuration(cancels=fault.startswith("refusal"), limit=1, requests=2), fault=fault))
        if fault == "worker enforces the whole limit":
            found = explore(Configuration(requests=2, fault=fault))
        print(f"planted: {fault}\n  {found}", flush=True)
        failed += found.is_sound
    return failed


def _words(configuration: Configuration) -> str:
    differ = [f"{name} {value}" for name, value in vars(configuration).items() if value not in (None, False, -1, 0)]
    return ", ".join(differ)


if __name__ == "__main__":
    sys.exit(main())
