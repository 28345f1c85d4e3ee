"""What was measured so far, in a file: a row is kept as soon as it is there, so that a run that is cut loses nothing."""

import fcntl
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.faults.measures import FaultResult

FILE: Final = Path(__file__).parent.parent / "results" / "faults.json"


class Records:
    """The rows that were measured, and the sentence about 100,000 checks; a line of the file is a row.

    Several runs may measure at a time: what one adds is there for all.
    """

    def __init__(self, path: Path = FILE) -> None:
        self._path = path
        self.checks = ""
        self._rows: dict[tuple[str, str], FaultResult] = {}
        self._read()

    def find(self, topology: str, name: str) -> FaultResult | None:
        """Return a row, or `None` where it was not measured."""
        return self._rows.get((topology, name))

    def add(self, row: FaultResult) -> None:
        """Keep a row."""
        with self._locked():
            self._rows[row.topology, row.name] = row
            self._write()

    def add_checks(self, sentence: str) -> None:
        """Keep the sentence."""
        with self._locked():
            self.checks = sentence
            self._write()

    def keep(self, names: Collection[tuple[str, str]]) -> None:
        """Forget all rows but those of these topologies and names."""
        with self._locked():
            self._rows = {key: row for key, row in self._rows.items() if key in names}
            self._write()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self._read()
            yield
        finally:
            os.close(folder)

    def _read(self) -> None:
        if self._path.exists():
            known: dict[str, Any] = json.loads(self._path.read_text())
            self.checks = known["checks"]
            self._rows = {(each["topology"], each["name"]): FaultResult(**each) for each in known["rows"]}

    def _write(self) -> None:
        """Write the file, whole or not at all."""
        rows = ",\n".join(json.dumps(asdict(self._rows[key])) for key in sorted(self._rows))
        new = self._path.with_suffix(".new")
        new.write_text(f'{{"checks": {json.dumps(self.checks)},\n"rows": [\n{rows}\n]}}\n')
        new.replace(self._path)
