"""`replay` and `suggest`: limits on an access log."""

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from ratelimit.cli.log_source import Source, log_options
from ratelimit.cli.options import guarded, json_option
from ratelimit.cli.output import FINDINGS, FINE, USAGE, Cell, console, print_error, print_json, print_table
from ratelimit.cli.target import load_target
from ratelimit.errors import ConfigurationError
from ratelimit.rehearsal.access_log import AccessLog, LogCounts
from ratelimit.rehearsal.arrivals import Arrivals, Simultaneous
from ratelimit.rehearsal.replay import Replay, notes_on
from ratelimit.rehearsal.reports import POLICY_COLUMNS, headline, html, markdown, policy_rows, wait_text
from ratelimit.rehearsal.result import ReplayResult, instant_text, result_of
from ratelimit.rehearsal.suggest import Suggestion, suggest


def _share(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    del context
    if value is None:
        return None
    try:
        found = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise click.BadParameter(f"{value!r} is no share, such as 0.1% or 0.001", param=parameter)
    return found


@click.command()
@log_options
@click.option("--config", required=True, metavar="FILE", help="The limits that are rehearsed.")
@click.option("--against", metavar="FILE", help="The limits of today, to be compared with.")
@click.option("--app", metavar="MODULE:APP", help="The app, whose routes say what an endpoint is.")
@click.option("--route", "routes", multiple=True, metavar="TEMPLATE", help="A route template, instead of the app.")
@click.option("--span", is_flag=True, help="Replay once more with all requests of a second at once.")
@click.option("--max-newly-refused", callback=_share, metavar="SHARE", help="Exit code 1 above it, such as 0.1%.")
@click.option("--report", metavar="FILE", help="Write a report: .html, .md or .json.")
@json_option
def replay(
    *,
    source: Source,
    config: str,
    against: str | None,
    app: str | None,
    routes: tuple[str, ...],
    span: bool,
    max_newly_refused: float | None,
    report: str | None,
    as_json: bool,
) -> None:
    """Say what limits would have refused of the requests in an access log, or - for stdin.

    The log's own clock is used. Exit code 1 where the budget is exceeded, 2 where more than 1 % of the lines cannot be read.
    """
    if span and "-" in source.paths:
        print_error("--span reads the log twice, and stdin can be read once: name a file [RL801]")
        sys.exit(USAGE)
    new = guarded(lambda: load_target(config, app, None))
    old = None if against is None else guarded(lambda: load_target(against, None, None)).settings
    if report is not None and Path(report).suffix not in (".html", ".md", ".json"):
        print_error(f"--report: {report} must end with .html, .md or .json [RL851]")
        sys.exit(USAGE)

    def run_once(*, at_once: bool) -> tuple[Replay, AccessLog]:
        found = Replay(new.settings, source.callers(), against=old, app=new.app, routes=routes)
        with _progress("replay") as progress:
            log = source.log(progress, at_once=at_once)
            found.run(log)
        return found, log

    def run_all() -> ReplayResult:
        found, log = run_once(at_once=False)
        at_once = run_once(at_once=True)[0].tally.refused if span else None
        return result_of(found, log.counts, is_compared=old is not None, refused_at_once=at_once)

    result = guarded(run_all)
    if report is not None:
        guarded(lambda: _write(report, result, max_newly_refused))
    print_json(result.as_dict()) if as_json else _print(result, max_newly_refused)
    exceeded = max_newly_refused is not None and result.newly_refused_share > max_newly_refused
    sys.exit(USAGE if result.counts.is_unreadable else FINDINGS if exceeded else FINE)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[float], None]]:
    """Show how far the log was read, on stderr where it is a terminal; nothing collects garbage meanwhile, since none is made."""
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    err = Console(stderr=True)
    gc.disable()
    try:
        with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
            task = progress.add_task(what, total=1.0)
            yield lambda share: progress.update(task, completed=share)
    finally:
        gc.enable()


def _write(path: str, result: ReplayResult, budget: float | None) -> None:
    import json  # noqa: PLC0415 - reports alone

    suffix = Path(path).suffix
    text = html(result) if suffix == ".html" else markdown(result, budget) if suffix == ".md" else ""
    try:
        Path(path).write_text(text or json.dumps(result.as_dict(), indent=2) + "\n", "utf-8", "replace")
    except OSError as error:
        raise ConfigurationError(f"--report: {path}: {error.strerror} [RL805]") from None


def _print_hits(result: ReplayResult) -> None:
    names = ["REQUESTS", "REFUSED", "SHARE", "LONGEST WAIT"]
    for title, hits in (("CALLER", result.worst_callers(10)), ("ROUTE", result.worst_routes(5))):
        rows: list[list[Cell]] = [
            [
                name,
                f"{each.requests:,}",
                f"{each.refused:,}",
                f"{each.refused / each.requests:.0%}",
                wait_text(each.longest_wait),
            ]
            for name, each in hits
        ]
        if rows:
            console().print()
            print_table([title, *names], rows, none="", numbers=names)


def _print(result: ReplayResult, budget: float | None) -> None:
    out, tally = console(), result.tally
    out.print(Text(f"{instant_text(result.counts.first)} – {instant_text(result.counts.last)}", style="dim"))
    out.print(Text(headline(result), style="bold red" if tally.newly_refused else "bold green"))
    out.print()
    names = [name.upper() for name in POLICY_COLUMNS]
    print_table(names, policy_rows(result), none="no policy applied to any request", numbers=names[1:])
    _print_hits(result)
    if result.not_rehearsed or result.notes:
        out.print()
    for missing in result.not_rehearsed:
        out.print(Text(f"{missing['policy']} was not rehearsed: {missing['why']}", style="yellow"))
    for note in [*result.notes, *(f"unreadable: {line}" for line in result.counts.unreadable_lines[:3])]:
        out.print(Text(note, style="dim"))
    if budget is not None:
        kept = result.newly_refused_share <= budget
        text = f"budget of {budget:.2%} newly refused: {'kept' if kept else 'exceeded'}"
        out.print(Text(text, style="bold green" if kept else "bold red"))


@click.command("suggest")
@log_options
@click.option(
    "--per",
    multiple=True,
    type=click.Choice(["ip", "token", "org"]),
    help="A dimension (by default all that the log has).",
)
@click.option("--window", default=60, show_default=True, type=click.IntRange(1, 86_400), help="Seconds of the window.")
@json_option
def suggest_command(*, source: Source, per: tuple[str, ...], window: int, as_json: bool) -> None:
    """Suggest limits that fit what callers have done in an access log: in shadow, to be rehearsed.

    Each refuses at most 0.5 % of the honest callers and 0.1 % of their requests: chosen on the first 70 % of the time, and tried on the
    rest. Exit code 2 where more than 1 % of the lines cannot be read.
    """
    found, counts = guarded(lambda: _suggestions(source, per, window))
    notes = list(notes_on(counts))
    if as_json:
        own = {"unreadable": counts.unreadable, "lines": counts.lines, "notes": notes}
        print_json({"suggestions": [each.as_dict() for each in found], **own})
    else:
        _print_suggestions(found, [*notes, *(f"unreadable: {line}" for line in counts.unreadable_lines[:3])])
    sys.exit(USAGE if counts.is_unreadable else FINE)


def _print_suggestions(found: Sequence[Suggestion], notes: Sequence[str]) -> None:
    for each in found:
        _print_suggestion(each)
    if not found:
        console().print("the log has none of these dimensions: name their fields, such as --token http_authorization")
    for note in notes:
        console().print(Text(note, style="dim"))


def _suggestions(source: Source, per: Sequence[str], window: int) -> tuple[list[Suggestion], LogCounts]:
    wanted = per or ("ip", "token", "org")
    arrivals = {name: Arrivals(window) for name in wanted}
    at_once = {name: Simultaneous() for name in wanted}
    callers, lasting = source.callers(), False
    with _progress("suggest") as progress:
        log = source.log(progress)
        for record in log.records():
            identity, _ = callers.find(record)
            lasting = lasting or record.ends > record.at
            for name in wanted:
                value = getattr(identity, name)
                if value:
                    arrivals[name].add(value, record.at)
                    if record.ends > record.at:
                        at_once[name].add(value, record.at, record.ends)
    counts = log.counts
    found = [
        suggest(name, each, counts.first, counts.last, simultaneous=at_once[name] if lasting else None)
        for name, each in arrivals.items()
        if each.callers
    ]
    return found, counts


def _print_suggestion(found: Suggestion) -> None:
    out = console()
    out.print(Text(f"by {found.per}: {found.rate}{f', burst {found.burst:g}' if found.burst else ''}", style="bold"))
    out.print(Text(f"{found.confidence} confidence{': ' if found.why else ''}{'; '.join(found.why)}"))
    effect, tried = found.trained, found.tried
    out.print(
        Text(
            f"of {found.callers:,} callers it refuses {effect.callers + tried.callers:,} honest ones at times, "
            f"{effect.requests + tried.requests:,} of {found.requests:,} requests"
        )
    )
    for caller, peak in list(found.outliers.items())[:5]:
        out.print(Text(f"far above all others: {caller}, {peak:,} in {found.seconds} s", style="yellow"))
    rows: list[list[Cell]] = [
        [
            f"{point.limit:,}",
            f"{point.effect.callers:,}",
            f"{point.effect.requests:,}",
            wait_text(point.effect.longest_wait),
        ]
        for point in _around(found)
    ]
    names = ["LIMIT", "CALLERS REFUSED", "REQUESTS REFUSED", "LONGEST WAIT"]
    print_table(names, rows, none="", numbers=names)
    out.print()
    out.print(Text(found.toml()), soft_wrap=True)


def _around(found: Suggestion) -> list[Any]:
    """Return the points of the curve near to the limit."""
    points = list(found.curve)
    place = next((n for n, point in enumerate(points) if point.limit >= found.limit), len(points) - 1)
    return points[max(0, place - 3) : place + 4]


COMMANDS = (replay, suggest_command)
