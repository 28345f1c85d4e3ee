"""Run every benchmark, draw its picture, and rewrite the table in `benchmarks/README.md`."""

import json
import re
from pathlib import Path

from benchmarks import middleware_memory
from benchmarks.report import Result, draw

HERE = Path(__file__).parent
BENCHMARKS = [middleware_memory]


def main() -> None:
    """Run all and leave JSON, PNG and the table behind."""
    results = []
    for benchmark in BENCHMARKS:
        print(f"{benchmark.__name__.rpartition('.')[2]}: {(benchmark.__doc__ or '').partition(chr(10))[0]}", flush=True)
        result = benchmark.run()
        (HERE / "results" / f"{result.name}.json").write_text(json.dumps(result.as_dict(), indent=2) + "\n")
        draw(result, HERE / "results" / f"{result.name}.png")
        results.append(result)
    _rewrite_table(results)


def _rewrite_table(results: list[Result]) -> None:
    rows = ["| question | goal | measured |", "| --- | --- | --- |"]
    rows += [f"| {r.question} | {r.goal} | {r.measured} |" for r in results]
    readme = HERE / "README.md"
    table = "<!-- table -->\n" + "\n".join(rows) + "\n<!-- end -->"
    readme.write_text(re.sub(r"<!-- table -->.*<!-- end -->", lambda _: table, readme.read_text(), flags=re.DOTALL))
    print(f"wrote {readme.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
