"""What operators change while the app runs: overrides, blocks, allowed callers, fleet switches, counters; and the trail of it."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import click

from ratelimit._utils.texts import key_text
from ratelimit.cli.hints import hint_at_missing_org
from ratelimit.cli.options import caller_options, json_option, reason_options, run, settings_options, until_option
from ratelimit.cli.output import console, ending, instant_text, print_json, print_table
from ratelimit.cli.target import Target
from ratelimit.controls.blocks import Blocks
from ratelimit.errors import ConfigurationError
from ratelimit.inspection.explanation import rate_text
from ratelimit.limiter import Limiter
from ratelimit.model.identity import Identity
from ratelimit.resolver.labels import label_of

Change = Callable[[Limiter], Awaitable[str]]
"""Makes a change, and returns what to say of it."""

_dry_run = click.option("--dry-run", is_flag=True, help="Check everything, say what would be done, and do nothing.")
_policy = click.option("--policy", metavar="NAME", help="One policy; without it, all of them.")


def _key_options(command: Callable[..., Any]) -> Callable[..., Any]:
    text = "A value that names the callers, such as org=acme, token=… or ip=192.0.2.0/24; several must all fit."
    return click.option("--key", "pairs", multiple=True, metavar="NAME=VALUE", help=text)(command)


def _key(pairs: tuple[str, ...]) -> dict[str, str]:
    found = [pair.partition("=") for pair in pairs]
    for name, separator, value in found:
        if not (name and separator and value):
            raise ConfigurationError(f"--key: {name}{separator}{value} is not NAME=VALUE [RL801]")
    return {name: value for name, _, value in found}


async def _change(target: Target, change: Change) -> int:
    async with target.limiter() as limiter:
        console().print(await change(limiter), markup=False)
    return 0


@click.group()
def override() -> None:
    """Rates of single callers, of plans or of everybody, while the app runs."""


def _whom_options(command: Callable[..., Any]) -> Callable[..., Any]:
    plan = click.option("--plan", help="All callers of this plan.")
    everybody = click.option("--everybody", is_flag=True, help="All callers.")
    return click.option("--policy", required=True, metavar="NAME")(_key_options(plan(everybody(command))))


def _whom(pairs: tuple[str, ...], plan: str | None, *, everybody: bool) -> dict[str, Any]:
    if bool(pairs) + (plan is not None) + everybody != 1:
        raise ConfigurationError("say whom: --key NAME=VALUE, --plan NAME or --everybody [RL801]")
    return {"key": _key(pairs) if plan is None else None, "plan": plan}


def _whom_text(whom: Mapping[str, Any]) -> str:
    if whom["plan"] is not None:
        return f"plan {whom['plan']}"
    return " ".join(_hidden(f"{name}={value}") for name, value in whom["key"].items()) or "everybody"


@override.command("set")
@_whom_options
@click.option("--rate", required=True, help="A rate, such as 600/minute; a number; or unlimited.")
@until_option()
@reason_options
@_dry_run
@settings_options
def set_override(
    *,
    target: Target,
    policy: str,
    pairs: tuple[str, ...],
    plan: str | None,
    everybody: bool,
    rate: str,
    until: datetime | None,
    why: str | None,
    by: str | None,
    dry_run: bool,
) -> None:
    """Let another rate hold; it is felt by all workers within 2 seconds."""

    async def change(limiter: Limiter) -> str:
        whom = _whom(pairs, plan, everybody=everybody)
        given: str | int = int(rate) if rate.isascii() and rate.isdigit() else rate
        options = {**whom, "policy": policy, "rate": given, "until": until, "why": why, "by": by}
        old = await limiter.overrides.set(**options, dry_run=dry_run)
        done = "would be" if dry_run else "is"
        before = "" if old is None else f" (it was {rate_text(old.rate)}{_until_text(old.until)})"
        return f"{policy} {done} {rate} for {_whom_text(whom)}{_until_text(until)}{before}"

    run(_change(target, change))


@override.command("list")
@settings_options
@json_option
def list_overrides(*, target: Target, as_json: bool) -> None:
    """Print the overrides that hold."""
    run(_list_overrides(target, as_json=as_json))


async def _list_overrides(target: Target, *, as_json: bool) -> int:
    async with target.limiter() as limiter:
        found = await limiter.overrides.list()
    rows: list[dict[str, Any]] = [
        {"policy": each.policy, "key": dict(each.key), "plan": each.plan, "rate": rate_text(each.rate), **ending(each)}
        for each in found
    ]
    if as_json:
        print_json({"overrides": rows})
        return 0
    ends = [instant_text(each.until) for each in found]
    shown = [
        [row["policy"], _holder(row), row["rate"], end, row["by"], row["why"]]
        for row, end in zip(rows, ends, strict=True)
    ]
    print_table(["POLICY", "FOR", "RATE", "UNTIL", "BY", "WHY"], shown, none="no override holds")
    return 0


@override.command("delete")
@_whom_options
@reason_options
@settings_options
def delete_override(
    *,
    target: Target,
    policy: str,
    pairs: tuple[str, ...],
    plan: str | None,
    everybody: bool,
    why: str | None,
    by: str | None,
) -> None:
    """Remove an override."""

    async def change(limiter: Limiter) -> str:
        whom = _whom(pairs, plan, everybody=everybody)
        existed = await limiter.overrides.delete(policy=policy, **whom, why=why, by=by)
        return f"the override of {policy} for {_whom_text(whom)} is removed" if existed else "there was none"

    run(_change(target, change))


Entries = Callable[[Limiter], Blocks]
"""Returns a list of callers of a limiter: those that are blocked, or allowed."""


def _list_group(name: str, text: str, effect: str, entries_of: Entries) -> click.Group:
    """Return the group of commands of a list of callers; `effect` is what an entry does."""

    @click.group(name, help=text)
    def group() -> None:
        """Do nothing by itself."""

    _add_set(group, effect, entries_of)
    _add_list_and_delete(group, entries_of)
    return group


def _add_set(group: click.Group, effect: str, entries_of: Entries) -> None:
    @group.command("set", help=f"Callers with these values are {effect}, in all workers within 2 seconds.")
    @_key_options
    @until_option()
    @reason_options
    @_dry_run
    @settings_options
    def set_entry(
        *,
        target: Target,
        pairs: tuple[str, ...],
        until: datetime | None,
        why: str | None,
        by: str | None,
        dry_run: bool,
    ) -> None:
        async def change(limiter: Limiter) -> str:
            await entries_of(limiter).set(_key(pairs), until=until, why=why, by=by, dry_run=dry_run)
            state = f"would be {effect}" if dry_run else effect
            return f"{' '.join(map(_hidden, pairs))}: {state}{_until_text(until)}"

        run(_change(target, change))


def _add_list_and_delete(group: click.Group, entries_of: Entries) -> None:
    @group.command("list", help="Print the entries that hold.")
    @settings_options
    @json_option
    def list_entries(*, target: Target, as_json: bool) -> None:
        run(_list_entries(target, entries_of, as_json=as_json))

    @group.command("delete", help="Remove an entry.")
    @_key_options
    @reason_options
    @settings_options
    def delete_entry(*, target: Target, pairs: tuple[str, ...], why: str | None, by: str | None) -> None:
        async def change(limiter: Limiter) -> str:
            existed = await entries_of(limiter).delete(_key(pairs), why=why, by=by)
            return "removed" if existed else "there was none"

        run(_change(target, change))


async def _list_entries(target: Target, entries_of: Entries, *, as_json: bool) -> int:
    async with target.limiter() as limiter:
        found = await entries_of(limiter).list()
    rows = [{"key": dict(each.key), **ending(each)} for each in found]
    if as_json:
        print_json({"callers": rows})
        return 0
    shown = [[key_text(each.key), instant_text(each.until), each.by, each.why] for each in found]
    print_table(["CALLERS", "UNTIL", "BY", "WHY"], shown, none="there is none")
    return 0


@click.command()
@click.option("--policy", metavar="NAME", help="One policy; without it, all windows and calendar quotas.")
@caller_options
@reason_options
@_dry_run
@settings_options
def reset(
    *, target: Target, identity: Identity, policy: str | None, why: str | None, by: str | None, dry_run: bool
) -> None:
    """Empty what a caller has used."""

    async def change(limiter: Limiter) -> str:
        if identity == Identity():
            raise ConfigurationError("say whom: --token, --org, --ip or --dimension [RL801]")
        hint_at_missing_org(limiter, identity)
        label = label_of(identity, limiter.resolver.named)
        if dry_run:
            keys, quotas = limiter.resolver.counters(identity, limiter.clock(), policy)
            return f"would empty up to {len(keys) + len(quotas)} counters of {label}"
        emptied = await limiter.reset(identity, policy, why=why, by=by)
        return f"emptied {emptied} counters of {label}"

    run(_change(target, change))


def _hidden(pair: str) -> str:
    """Return a pair of `--key` without a credential."""
    name = pair.partition("=")[0]
    return f"{name}=…" if name == "token" else pair


def _until_text(until: datetime | None) -> str:
    return "" if until is None else f" until {until:%Y-%m-%d %H:%M:%S %Z}".rstrip()


def _holder(row: Mapping[str, Any]) -> str:
    return f"plan {row['plan']}" if row["plan"] else key_text(row["key"]) or "everybody"


block = _list_group("block", "Callers that are refused with 403.", "blocked", lambda limiter: limiter.blocks)
allow = _list_group(
    "allow", "Callers that are neither charged nor refused.", "allowed", lambda limiter: limiter.allowed
)
COMMANDS = (override, block, allow, reset)
