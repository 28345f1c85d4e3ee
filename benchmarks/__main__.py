"""Run every benchmark, draw its picture, and rewrite the table in `benchmarks/README.md`."""

import json
import re
import sys
from pathlib import Path

from benchmarks import (
    accuracy,
    full_stack,
    hot_keys,
    longest_call,
    middleware_memory,
    middleware_redis,
    pacing,
    redis_concurrency,
    redis_cpu,
    redis_latency,
    redis_throughput,
    scaling,
    state_size,
)
from benchmarks.report import draw

HERE = Path(__file__).parent
BENCHMARKS = [
    redis_throughput,
    redis_concurrency,
    full_stack,
    redis_latency,
    redis_cpu,
    middleware_memory,
    middleware_redis,
    longest_call,
    scaling,
    hot_keys,
    state_size,
    accuracy,
    pacing,
]


def main() -> None:
    """Run all, or those that are named, and leave JSON, PNG and the table behind."""
    wanted = sys.argv[1:]
    for benchmark in BENCHMARKS:
        if wanted and benchmark.__name__.rpartition(".")[2] not in wanted:
            continue
        print(f"{benchmark.__name__.rpartition('.')[2]}: {(benchmark.__doc__ or '').partition(chr(10))[0]}", flush=True)
        result = benchmark.run()
        (HERE / "results" / f"{result.name}.json").write_text(json.dumps(result.as_dict(), indent=2) + "\n")
        draw(result, HERE / "results" / f"{result.name}.png")
    _rewrite_table()


def _rewrite_table() -> None:
    rows = ["| question | goal | measured | |", "| --- | --- | --- | --- |"]
    for benchmark in BENCHMARKS:
        file = HERE / "results" / f"{benchmark.__name__.rpartition('.')[2]}.json"
        if file.exists():
            told = json.loads(file.read_text())
            picture = f"[picture](results/{file.stem}.png)"
            rows.append(f"| {told['question']} | {told['goal']} | {told['measured']} | {picture} |")
    readme = HERE / "README.md"
    table = "<!-- table -->\n" + "\n".join(rows) + "\n<!-- end -->"
    readme.write_text(re.sub(r"<!-- table -->.*<!-- end -->", lambda _: table, readme.read_text(), flags=re.DOTALL))
    print(f"wrote {readme.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
