"""Run every benchmark, draw its picture, and rewrite the table in `benchmarks/README.md`."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from benchmarks import console, rehearsal
from benchmarks.asgi import full_stack, middleware_memory, middleware_redis
from benchmarks.outbound import pacing
from benchmarks.report import draw
from benchmarks.stores import (
    accuracy,
    cluster,
    cpu_per_decision,
    hot_keys,
    in_memory,
    longest_call,
    memory_size,
    periods,
    redis_concurrency,
    redis_cpu,
    redis_latency,
    redis_throughput,
    scaling,
    state_size,
)

HERE: Final = Path(__file__).parent
BENCHMARKS: Final = (
    redis_throughput,
    redis_concurrency,
    full_stack,
    redis_latency,
    redis_cpu,
    cpu_per_decision,
    periods,
    cluster,
    middleware_memory,
    middleware_redis,
    in_memory,
    rehearsal,
    console,
    longest_call,
    scaling,
    hot_keys,
    state_size,
    memory_size,
    accuracy,
    pacing,
)


def main() -> None:
    """Run all benchmarks, or those that are named, and write their JSON, their PNG and the table."""
    wanted = sys.argv[1:]
    for benchmark in BENCHMARKS:
        name = _name(benchmark)
        if wanted and name not in wanted:
            continue
        print(f"{name}: {(benchmark.__doc__ or '').partition(chr(10))[0]}", flush=True)
        result = benchmark.run()
        (HERE / "results" / f"{result.name}.json").write_text(json.dumps(result.as_dict(), indent=2) + "\n")
        draw(result, HERE / "results" / f"{result.name}.png")
    _rewrite_table()


def _name(benchmark: ModuleType) -> str:
    return benchmark.__name__.rpartition(".")[2]


def _rewrite_table() -> None:
    rows = ["| question | goal | measured | |", "| --- | --- | --- | --- |"]
    for benchmark in BENCHMARKS:
        file = HERE / "results" / f"{_name(benchmark)}.json"
        if file.exists():
            figures = json.loads(file.read_text())
            picture = f"[picture](results/{file.stem}.png)"
            rows.append(f"| {figures['question']} | {figures['goal']} | {figures['measured']} | {picture} |")
    readme = HERE / "README.md"
    table = "<!-- table -->\n" + "\n".join(rows) + "\n<!-- end -->"
    readme.write_text(re.sub(r"<!-- table -->.*<!-- end -->", lambda _: table, readme.read_text(), flags=re.DOTALL))
    print(f"wrote {readme.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
