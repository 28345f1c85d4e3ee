"""`explain`: why a request would be admitted or refused."""

import re
from typing import Final

import click
from rich.text import Text

from ratelimit._utils.texts import seconds_text
from ratelimit.cli.hints import hint, hint_at_missing_org, hint_at_unknown
from ratelimit.cli.options import caller_options, json_option, run, settings_options
from ratelimit.cli.output import Cell, console, print_json, print_table
from ratelimit.cli.target import Target
from ratelimit.errors import ConfigurationError
from ratelimit.inspection.explanation import Explanation, PolicyExplanation, explain
from ratelimit.limiter import Limiter
from ratelimit.model.identity import Identity
from ratelimit.resolver.endpoint import UNMATCHED
from ratelimit.resolver.labels import label_of

_METHOD: Final = re.compile(r"GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|TRACE|CONNECT|QUERY|[A-Z]+-[A-Z-]+")


@click.command("explain")
@click.argument("method")
@click.argument("path")
@click.option("--cost", type=click.IntRange(min=1), default=1, show_default=True, help="Requests at once.")
@caller_options
@settings_options
@json_option
def explain_command(*, method: str, path: str, cost: int, identity: Identity, target: Target, as_json: bool) -> None:
    """Tell what a request of a caller would be answered, and why.

    PATH is a path of the app (--app), or without an app a route template. Nothing is charged. The numbers are those of the
    store, so --store must be the running app's.
    """
    run(_explain(target, identity, method, path, cost, as_json=as_json))


async def _explain(target: Target, identity: Identity, method: str, path: str, cost: int, *, as_json: bool) -> int:
    async with target.limiter(shared=False) as limiter:
        check_request(limiter, method, path, identity)
        hint_at_missing_org(limiter, identity)
        hint_at_unknown(limiter, identity)
        place = target.place(limiter, method, path)
        if target.app is not None and place.template == UNMATCHED:
            hint(f"no route of the app matches {method.upper()} {path}: it is one of the unknown paths")
        found = await explain(limiter, identity, method=method, endpoint=place, cost=cost)
        if as_json:
            print_json(found.as_dict())
        else:
            _print(found, _whom(identity, label_of(identity, limiter.resolver.named)), target)
    return 0


def check_request(limiter: Limiter, method: str, path: str, identity: Identity) -> None:
    """Raise `ConfigurationError` for what cannot be a request: a method, a path or a dimension that there is not."""
    if not _METHOD.fullmatch(method.upper()):
        raise ConfigurationError(f"METHOD: {method!r:.50} is not an HTTP method [RL113]")
    if not path.startswith("/") and path != UNMATCHED:
        raise ConfigurationError(f"PATH: {path!r:.50} must begin with '/' [RL113]")
    known = {*limiter.settings.dimensions, *(each.policy.name for each in limiter.resolver.named.compiled())}
    for name in identity.dimensions:
        if name not in known:
            raise ConfigurationError(
                f"--dimension: {name!r:.50} is not one of {', '.join(sorted(known)) or 'none'} [RL109]"
            )


def _print(found: Explanation, label: str, target: Target) -> None:
    out = console()
    out.print(Text.assemble((f"{found.endpoint}", "bold"), f"  {label}"))
    out.print(_verdict(found))
    out.print()
    names = ["POLICY", "RATE", "USED", "LEFT", "WAIT", "WHY"]
    rows = [_row(each) for each in found.policies]
    print_table(names, rows, none="no policy is declared", numbers=names[2:5])
    if found.headers or found.body is not None:
        out.print()
    for name, value in found.headers:
        out.print(Text(f"{name}: {value}"), soft_wrap=True)
    if found.body is not None:
        out.print(Text(found.body.decode()), soft_wrap=True)
    if target.settings.store.startswith("memory:"):
        out.print(
            Text("\nmemory:// counts in each process alone: these numbers are not the running app's", style="yellow")
        )


def _whom(identity: Identity, label: str) -> str:
    """Return the caller as people know it: by its label, organization and plan."""
    org = f", org {identity.org}" if identity.org and not label.startswith("org:") else ""
    return f"{label}{org}{f', plan {identity.plan}' if identity.plan else ''}"


def _verdict(found: Explanation) -> Text:
    decision, binding = found.decision, found.decision.binding
    if decision.is_blocked:
        return Text("refused: 403, the caller is blocked", style="bold red")
    if decision.allowed:
        reason = "the caller is allowed whatever it does" if found.is_listed else ""
        reason = reason or ("no limit applies" if binding is None else f"{binding.remaining} left of {binding.policy}")
        return Text(f"admitted: {reason}", style="bold green")
    name = "a policy" if binding is None else binding.policy
    wait = seconds_text(decision.retry_after)
    when = "no wait helps" if wait == "never" else f"retry after {wait}"
    return Text(f"refused: {decision.status} by {name}, {when}", style="bold red")


def _row(each: PolicyExplanation) -> list[Cell]:
    if not each.applies:
        return [each.policy, "-", None, None, None, each.why_not]
    why = ", ".join(f"{step.source} {step.rate}" for step in each.chain)
    wait = seconds_text(each.wait) if each.wait else None
    return [each.policy, each.rate, each.used, each.remaining, wait, f"shadow; {why}" if each.shadow else why]


COMMANDS = (explain_command,)
