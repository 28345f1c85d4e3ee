"""All faults: each is written once, and happens on every topology that can have it."""

from collections.abc import Collection
from signal import SIGCONT, SIGSTOP
from typing import Final

from benchmarks.faults import server_steps as server
from benchmarks.faults import steps
from benchmarks.faults import topology_steps as topology
from benchmarks.faults.deployments import LOGIN, Setup
from benchmarks.faults.fault import EVERYWHERE, SECONDS, Fault
from benchmarks.faults.server_steps import command
from benchmarks.faults.steps import again_and_again, both, mode, stop_activity, wait

_NO_REPLICA: Final = {"single": "there is no replica"}
_CLUSTER_ALONE: Final = {"single": "there are no hash slots", "sentinel": "there are no hash slots"}
_SENTINELS_ALONE: Final = {"single": "there are no Sentinels", "cluster": "there are no Sentinels"}
_FAILS_OVER: Final = Setup(fails_over=True)
_WORKER: Final = LOGIN[0]


def _mode(name: str, called: str, share: float = 1.0, delay: float = 0.2, *, outage: bool = False) -> Fault:
    return Fault(called, mode(name, share, delay), mode("pass"), outage=outage)


def _clock(called: str, seconds: int, **more: Collection[str] | str) -> Fault:
    return Fault(called, server.clock(seconds), outage=False, setup=Setup(clocked=True), **more)  # type: ignore[arg-type]


NETWORK: Final = (
    Fault("no fault", outage=False),
    Fault("connections refused", steps.refuse, steps.accept),
    Fault("nothing passes, also on new connections (blackhole)", steps.stall, steps.flow),
    Fault("open connections fall silent for good (half-open)", steps.silence, outage=False),
    Fault(
        "connections refused and accepted, twice a second",
        again_and_again(steps.refuse, wait(0.25), steps.accept, wait(0.25)),
        both(stop_activity, steps.accept),
        outage=False,
    ),
    _mode("slow", "replies 200 ms late", outage=True),
    _mode("cut", "cut in the middle of every reply", outage=True),
    Fault(
        "cut in the middle of every reply, for 12 s",
        mode("cut"),
        mode("pass"),
        seconds=12.0,
    ),
    _mode("lost", "5 % of replies lost", 0.05),
    _mode("cut", "5 % of replies cut in the middle", 0.05),
    _mode("reset", "5 % of replies end in a reset (RST)", 0.05),
    _mode("twice", "5 % of replies come twice", 0.05),
    _mode("garbage", "5 % of replies are garbage", 0.05),
    _mode("bytes", "every fifth reply comes byte by byte", 0.2),
    _mode("late", "2 % of commands 300 ms late", 0.02, 0.3),
    Fault(
        "connections killed twice a second, connecting takes 150 ms",
        both(steps.connecting(0.15), again_and_again(command("CLIENT", "KILL", "TYPE", "normal"), wait(0.5))),
        both(stop_activity, steps.connecting(0.0)),
        outage=False,
    ),
    Fault("store 20 ms away", outage=False, setup=Setup(far=0.02)),
    Fault("store 40 ms away", outage=False, setup=Setup(far=0.04)),
    Fault(
        "TLS, stalls of 150 ms",
        again_and_again(steps.stall, wait(0.15), steps.flow, wait(0.25)),
        both(stop_activity, steps.flow),
        outage=False,
        setup=Setup(tls=True),
    ),
)

SERVER: Final = (
    Fault("server hung (SIGSTOP)", server.hang, server.resume),
    Fault(
        "server gets no processor for 60 ms, again and again",
        again_and_again(server.hang, wait(0.06), server.resume, wait(0.06)),
        both(stop_activity, server.resume),
        outage=False,
    ),
    Fault("killed and restarted, with its data", server.kill, server.restart),
    Fault(
        "killed and restarted, without its data",
        server.kill,
        both(server.lose_data, server.restart),
        loses=EVERYWHERE,
        why="the counters are gone",
    ),
    Fault("LOADING", mode("loading"), mode("pass")),
    Fault("FLUSHALL", command("FLUSHALL"), outage=False, loses=EVERYWHERE, why="the counters are gone"),
    Fault(
        "SCRIPT FLUSH every 20 ms", again_and_again(command("SCRIPT", "FLUSH"), wait(0.02)), stop_activity, outage=False
    ),
    Fault(
        "out of memory (noeviction)",
        command("CONFIG", "SET", "maxmemory", "1"),
        command("CONFIG", "SET", "maxmemory", "0"),
    ),
    Fault(
        "memory full, a stranger's keys evict (allkeys-lru)",
        both(server.limit_memory, again_and_again(server.flood)),
        both(stop_activity, command("CONFIG", "SET", "maxmemory", "0")),
        outage=False,
        loses=EVERYWHERE,
        why="the server evicts counters too, which `ratelimit doctor` warns of",
    ),
    Fault("disk full (MISCONF)", server.fill_the_disk, command("CONFIG", "SET", "save", "")),
    Fault(
        "too few replicas (NOREPLICAS)",
        command("CONFIG", "SET", "min-replicas-to-write", "5"),
        command("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
    Fault(
        "a password set (NOAUTH)",
        both(command("CONFIG", "SET", "requirepass", "secret"), command("CLIENT", "KILL", "TYPE", "normal")),
        command("CONFIG", "SET", "requirepass", ""),
    ),
    Fault(
        "the workers' password changed (WRONGPASS)",
        both(command("ACL", "SETUSER", _WORKER, "resetpass", ">other"), command("CLIENT", "KILL", "USER", _WORKER)),
        command("ACL", "SETUSER", _WORKER, f">{LOGIN[1]}"),
        setup=Setup(login=True),
    ),
    Fault(
        "the workers' rights withdrawn (NOPERM)",
        command("ACL", "SETUSER", _WORKER, "-@all"),
        command("ACL", "SETUSER", _WORKER, "+@all"),
        setup=Setup(login=True),
    ),
    Fault(
        "CLIENT KILL of all, ten times a second",
        again_and_again(command("CLIENT", "KILL", "TYPE", "normal"), wait(0.1)),
        stop_activity,
        outage=False,
    ),
    Fault("CLIENT PAUSE", command("CLIENT", "PAUSE", round(SECONDS * 1000))),
    Fault(
        "maxclients reached",
        both(command("CONFIG", "SET", "maxclients", "1"), command("CLIENT", "KILL", "TYPE", "normal")),
        command("CONFIG", "SET", "maxclients", "1000"),
    ),
    Fault("a stranger's endless script (BUSY)", server.run_endless_script, command("SCRIPT", "KILL")),
    Fault(
        "a stranger's command of 150 ms, again and again",
        again_and_again(command("DEBUG", "SLEEP", "0.15"), wait(0.25)),
        stop_activity,
        outage=False,
    ),
    Fault(
        "read only (demoted)",
        command("REPLICAOF", "127.0.0.1", "1"),
        command("REPLICAOF", "NO", "ONE"),
        missing={"cluster": "REPLICAOF is not allowed there; see “the replica takes over by command”"},
    ),
)

CLOCKS: Final = (
    _clock("the store's clock 30 s back", -30),
    _clock("the store's clock 1 h back", -3600),
    _clock("the store's clock 1 h ahead", 3600, exceeds=EVERYWHERE, why="the window has ended by the store's clock"),
    Fault(
        "the store's clock 1 s ahead and back, five times a second",
        again_and_again(server.clock(1), wait(0.1), server.clock(0), wait(0.1)),
        both(stop_activity, server.clock(0)),
        outage=False,
        setup=Setup(clocked=True),
        exceeds=EVERYWHERE,
        why="the window has ended by the store's clock",
    ),
    Fault("two workers' clocks ±1 h", outage=False, clock_shifts=("3600", "-3600", "0", "0")),
    Fault("the workers' clocks set back 10 min", outage=False, clock_shifts=("~-600",)),
)

WORKERS: Final = (
    Fault(
        "two loops, one of them stops in an outage",
        steps.refuse,
        steps.accept,
        variant="two loops",
        inexact=EVERYWHERE,
        why="the call that a loop has in flight when it stops may be counted, although its caller was never answered",
    ),
    Fault("workers forked from one process, outage", steps.refuse, steps.accept, variant="forked"),
    Fault(
        "a worker killed (SIGKILL) and replaced",
        steps.replace_worker,
        outage=False,
        inexact=EVERYWHERE,
        why="what the worker had charged and not answered yet stays counted",
    ),
    Fault("a worker hung (SIGSTOP)", steps.signal_worker(SIGSTOP), steps.signal_worker(SIGCONT), outage=False),
)

_NOT_REPLICATED: Final = "what the master had not replicated is lost"

SEVERAL: Final = (
    Fault(
        "the master killed, its replica takes over",
        server.kill,
        heals=True,
        setup=_FAILS_OVER,
        missing=_NO_REPLICA,
        loses=EVERYWHERE,
        why=_NOT_REPLICATED,
    ),
    Fault(
        "the replica takes over by command",
        topology.promote,
        heals=True,
        setup=_FAILS_OVER,
        missing=_NO_REPLICA,
        loses=("sentinel",),
        why="the old master serves until Sentinel has told it, and what it counts then is lost",
    ),
    Fault(
        "the master cut off from all servers",
        topology.partition,
        topology.unite,
        heals=True,
        setup=_FAILS_OVER,
        missing=_NO_REPLICA,
        loses=EVERYWHERE,
        why="what the old master counts until it stops or is told is lost",
    ),
    Fault(
        "the replica killed and restarted",
        topology.kill_nodes(topology.replica),
        topology.restart_nodes(topology.replica),
        outage=False,
        setup=_FAILS_OVER,
        missing=_NO_REPLICA,
    ),
    Fault(
        "all servers killed and restarted, with their data",
        topology.kill_nodes(topology.every),
        topology.restart_nodes(topology.every),
        missing={"single": "there is one server"},
    ),
    Fault(
        "the hash slot moves all the time",
        again_and_again(topology.reshard),
        stop_activity,
        outage=False,
        missing=_CLUSTER_ALONE,
    ),
    Fault(
        "the hash slot lies between two nodes (ASK)",
        topology.open_slot,
        topology.close_slot,
        outage=False,
        missing=_CLUSTER_ALONE,
    ),
    Fault(
        "another master killed and restarted",
        topology.kill_nodes(topology.another),
        topology.restart_nodes(topology.another),
        outage=False,
        missing={"single": "there is one server", "sentinel": "there is one master"},
    ),
    Fault(
        "all Sentinels killed and restarted",
        topology.kill_sentinels,
        topology.restart_sentinels,
        outage=False,
        missing=_SENTINELS_ALONE,
    ),
    Fault(
        "all Sentinels killed, all connections break",
        both(topology.kill_sentinels, command("CLIENT", "KILL", "TYPE", "normal")),
        topology.restart_sentinels,
        missing=_SENTINELS_ALONE,
    ),
    Fault(
        "two of three Sentinels hung, all connections break",
        both(topology.hang_sentinels, command("CLIENT", "KILL", "TYPE", "normal")),
        topology.resume_sentinels,
        outage=False,
        missing=_SENTINELS_ALONE,
    ),
)

FAULTS: Final = NETWORK + SERVER + CLOCKS + WORKERS + SEVERAL
