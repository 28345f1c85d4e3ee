"""`doctor`: whether the server and the workers are as they should be."""

import click
from rich.text import Text

from ratelimit.cli.options import ignore_option, json_option, run, settings_options
from ratelimit.cli.output import FINDINGS, FINE, console, print_json, table
from ratelimit.cli.target import Target
from ratelimit.inspection.server_checks import Severity, check_server, severity_of_checks

_STYLES: dict[Severity, str] = {"ok": "green", "info": "dim", "warning": "yellow", "error": "bold red"}


@click.command()
@settings_options
@ignore_option
@json_option
def doctor(*, target: Target, ignore: tuple[str, ...], as_json: bool) -> None:
    """Check the server: version, role, rights, memory, round trips, clock, script, workers and their settings.

    Exit code 1 where there are errors or warnings.
    """
    run(_doctor(target, ignore, as_json=as_json))


async def _doctor(target: Target, ignored: tuple[str, ...], *, as_json: bool) -> int:
    async with target.limiter(shared=False) as limiter:
        found = await check_server(limiter, store_timeout=target.settings.store_timeout)
        checks = [check for check in found if check.code not in ignored]
    if as_json:
        print_json({"checks": [check.as_dict() for check in checks]})
    else:
        shown = table(["CHECK", "", "FOUND"], [])
        for check in checks:
            code = f" [{check.code}]" if check.code else ""
            shown.add_row(check.name, Text(check.severity, style=_STYLES[check.severity]), Text(check.message + code))
        console().print(shown)
    return FINDINGS if severity_of_checks(checks) in ("warning", "error") else FINE


COMMANDS = (doctor,)
