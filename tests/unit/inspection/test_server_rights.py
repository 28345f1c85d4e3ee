"""The rights of a login: what a server refuses is named; `test_server_checks.py` asks a real one."""

from typing import Any

from ratelimit import StoreError
from ratelimit.inspection.server_rights import DENIED, refused_commands


async def test_refused_commands_are_named_with_the_servers_words() -> None:
    """Those that are sent by themselves, and those of a script."""

    async def run(command: str, *arguments: Any) -> Any:
        if command == "HSCAN":
            raise StoreError("NOPERM no")
        return [b"ZADD: NOPERM no"] if command == "EVAL" and len(arguments) == 3 and "try" in arguments[0] else 1

    assert [each.partition(":")[0] for each in await refused_commands(run, "k")] == ["HSCAN", "ZADD"]


async def test_without_scripts_nothing_more_is_known() -> None:
    """The right to run them is what is missing."""

    async def run(command: str, *arguments: Any) -> Any:
        if command == "EVAL":
            raise StoreError("The user executing the script can't run this command")
        return 1

    (refused,) = await refused_commands(run, "k")
    assert refused.startswith("EVAL: ")
    assert DENIED.search(refused)
