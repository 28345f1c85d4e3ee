"""`check` and `diff`: settings before they are used."""

from collections.abc import Sequence

import click
from rich.text import Text

from ratelimit.cli.options import ignore_option, json_option, run
from ratelimit.cli.output import FINDINGS, FINE, console, print_json, print_table, table
from ratelimit.cli.target import Target, load_target, without_middleware
from ratelimit.config.settings import RateLimitSettings
from ratelimit.errors import StoreError
from ratelimit.inspection.findings import Finding, Severity, worst
from ratelimit.inspection.server_checks import eviction_policy
from ratelimit.inspection.settings_check import check_file, check_settings, check_unlimited_app, level_problem
from ratelimit.inspection.settings_diff import PolicyChange, SettingsDiff, diff_settings
from ratelimit.limiter import Limiter
from ratelimit.model.override import Override

_STYLES: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "info": "dim"}


@click.command()
@click.argument("file", required=False, envvar="RATELIMIT_CONFIG")
@click.option("--app", envvar="RATELIMIT_APP", metavar="MODULE:APP", help="The app: its settings and its routes.")
@click.option("--store", metavar="URL", help="A server that is asked for its eviction policy.")
@ignore_option
@json_option
def check(*, file: str | None, app: str | None, store: str | None, ignore: tuple[str, ...], as_json: bool) -> None:
    """Check a settings file (or module:settings), and with --app the routes too.

    Exit code 1 where there are errors or warnings. Notes of `info` may well be meant.
    """
    run(_check(file, app, store, ignore, as_json=as_json))


async def _check(
    file: str | None, app: str | None, store: str | None, ignored: tuple[str, ...], *, as_json: bool
) -> int:
    findings, settings = _findings(file, app)
    failure: StoreError | None = None
    if store is not None and settings is not None:
        try:
            async with Target(settings=settings.model_copy(update={"store": store})).limiter(shared=False) as limiter:
                findings += level_problem(settings, await eviction_policy(limiter.store))
        except StoreError as error:  # What was found in the file is shown all the same.
            failure = error
    findings = [finding for finding in findings if finding.code not in ignored]
    if as_json:
        print_json({"problems": [finding.as_dict() for finding in findings]})
    else:
        _print_findings(findings)
    if failure is not None:
        raise failure
    return FINDINGS if worst(findings) in ("error", "warning") else FINE


def _findings(file: str | None, app: str | None) -> tuple[list[Finding], RateLimitSettings | None]:
    if app is not None and (bare := without_middleware(app)) is not None:
        return check_unlimited_app(bare), None
    if file is not None and ":" not in file:
        settings, findings = check_file(file)
        if settings is None:
            return findings, None
        target = Target(settings=settings, app=None, file=file)
        if app is not None:
            named = load_target(None, app, None)
            target = Target(settings=settings, app=named.app, file=file, has_own_identify=named.has_own_identify)
    else:
        target = load_target(file, app, None)
    found = check_settings(target.settings, file=target.file, app=target.app, has_own_identify=target.has_own_identify)
    return found, target.settings


def _print_findings(findings: Sequence[Finding]) -> None:
    out, shown = console(), table(["", "CODE", "FOUND"], [])
    for each in findings:
        style = _STYLES[each.severity]
        found = Text.assemble((f"{each.message}\n", style), (each.place, "dim"))
        shown.add_row(Text(each.severity, style=style), each.code, found)
    if findings:
        out.print(shown)
    counts = {severity: sum(each.severity == severity for each in findings) for severity in _STYLES}
    names = {
        severity: severity if number == 1 or severity == "info" else f"{severity}s"
        for severity, number in counts.items()
    }
    total = ", ".join(f"{number} {names[severity]}" for severity, number in counts.items() if number)
    out.print(Text(total or "no problems", style="bold"))


@click.command()
@click.argument("old")
@click.argument("new")
@click.option("--store", metavar="URL", help="The running app's store: the overrides that hold there are shown too.")
@json_option
def diff(*, old: str, new: str, store: str | None, as_json: bool) -> None:
    """Tell what changes from one settings file to another, and which counters go on.

    Exit code 1 where something changes.
    """
    run(_diff(old, new, store, as_json=as_json))


async def _diff(old: str, new: str, store: str | None, *, as_json: bool) -> int:
    before, after = load_target(old, None, store), load_target(new, None, store)
    found = diff_settings(before.settings, after.settings)
    overrides: list[Override] = []
    if store is not None:
        async with before.limiter() as limiter:
            overrides = await _relevant(limiter, found)
    if as_json:
        held = [
            {
                "policy": each.policy,
                "key": dict(each.key),
                "plan": each.plan,
                "rate": "unlimited" if each.rate is None else str(each.rate),
            }
            for each in overrides
        ]
        print_json({**found.as_dict(), "overrides": held})
    else:
        _print_diff(found, overrides)
    return FINE if found.is_empty else FINDINGS


async def _relevant(limiter: Limiter, found: SettingsDiff) -> list[Override]:
    changed = {each.policy for each in found.policies if each.change in ("changed", "removed")}
    return [override for override in await limiter.overrides.list() if override.policy in changed]


def _print_diff(found: SettingsDiff, overrides: Sequence[Override]) -> None:
    out = console()
    rows = [
        [each.policy, each.change, _fields_text(each), f"{each.counters}{': ' * bool(each.why)}{each.why}"]
        for each in found.policies
        if each.change != "unchanged" or each.counters != "go on"
    ]
    print_table(["POLICY", "CHANGE", "FIELDS", "COUNTERS"], rows, none="no policy changes")
    for name, (old, new) in found.fields.items():
        restart = "  (needs a restart)" if name in found.restart else ""
        out.print(Text(f"{name}: {old} → {new}{restart}"))
    for override in overrides:
        who = override.plan or ", ".join(f"{name}={value}" for name, value in override.key.items()) or "everybody"
        rate = "unlimited" if override.rate is None else str(override.rate)
        out.print(Text(f"an override of {override.policy} for {who} holds: {rate}", style="yellow"))


def _fields_text(each: PolicyChange) -> str:
    return "\n".join(f"{name}: {old} → {new}" for name, (old, new) in each.fields.items())


COMMANDS = (check, diff)
