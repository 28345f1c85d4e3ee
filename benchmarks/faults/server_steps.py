"""How faults of a server begin and end: they strike the struck server."""

import asyncio

import redis

from benchmarks.faults.deployments import run
from benchmarks.faults.steps import Stage, Step


async def hang(stage: Stage) -> None:
    """Stop the server's process (SIGSTOP)."""
    stage.store.struck.server.pause()


async def resume(stage: Stage) -> None:
    """Let the server's process go on (SIGCONT)."""
    stage.store.struck.server.go_on()


async def kill(stage: Stage) -> None:
    """Kill the server (SIGKILL)."""
    stage.store.struck.server.stop()


async def restart(stage: Stage) -> None:
    """Start the server."""
    await asyncio.to_thread(stage.store.struck.server.start)


async def lose_data(stage: Stage) -> None:
    """Delete what the server would load."""
    stage.store.struck.lose_data()


def command(*words: object) -> Step:
    """Return a step that runs a command on the struck server, on one connection until the end of the fault."""

    async def execute(stage: Stage) -> None:
        if stage.admin is None:
            stage.admin = stage.store.struck.server.client()
        await asyncio.to_thread(stage.admin.execute_command, *words)  # type: ignore[arg-type, unused-ignore]

    return execute


async def fill_the_disk(stage: Stage) -> None:
    """Let the server's snapshot fail, as on a full disk."""
    (stage.store.struck.folder / "blocked.rdb" / "not empty").mkdir(parents=True)
    for words in (("CONFIG", "SET", "dbfilename", "blocked.rdb"), ("CONFIG", "SET", "save", "3600 1"), ("BGSAVE",)):
        await command(*words)(stage)
    assert stage.admin is not None
    while (await asyncio.to_thread(stage.admin.info, "persistence"))["rdb_last_bgsave_status"] == "ok":  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def flood(stage: Stage) -> None:
    """Write a hundred keys of 4 kB each, ten times a second."""
    assert stage.admin is not None
    with stage.admin.pipeline(transaction=False) as pipeline:
        for number in range(100):
            pipeline.set(f"{{acme}}:stranger:{asyncio.get_running_loop().time()}:{number}", b"x" * 4096)
        await asyncio.to_thread(pipeline.execute)
    await asyncio.sleep(0.1)


async def limit_memory(stage: Stage) -> None:
    """Let the server evict keys beyond 2 MB more than it has now."""
    await command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")(stage)
    assert stage.admin is not None
    used = (await asyncio.to_thread(stage.admin.info, "memory"))["used_memory"]
    await command("CONFIG", "SET", "maxmemory", used + 2_000_000)(stage)


async def run_endless_script(stage: Stage) -> None:
    """Run a script that never ends, on a stranger's connection."""
    await command("CONFIG", "SET", "lua-time-limit", 200)(stage)

    def run_it() -> None:
        try:
            run(stage.store.struck.server, "EVAL", "while true do end", 0)
        except redis.RedisError:
            return  # It was killed.

    stage.activity = asyncio.create_task(asyncio.to_thread(run_it))
    await asyncio.sleep(0)


def clock(seconds: int) -> Step:
    """Return a step that shifts the server's wall clock."""

    async def change(stage: Stage) -> None:
        stage.store.struck.set_clock(seconds)

    return change
