"""The options that describe an access log and its callers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from ratelimit.cli.options import guarded
from ratelimit.cli.target import imported
from ratelimit.errors import ConfigurationError
from ratelimit.rehearsal.access_log import AccessLog
from ratelimit.rehearsal.callers import CallerFields, LogCallers, read_owners
from ratelimit.rehearsal.log_records import instant_of

Command = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The log that the options of a command describe, and who its callers are."""

    paths: tuple[str, ...]
    format_name: str
    aliases: Mapping[str, str]
    fields: CallerFields
    owners: Mapping[str, tuple[str | None, str | None]] | None
    identify: str | None
    since: int | None
    until: int | None

    def callers(self) -> LogCallers:
        """Return what tells the callers of the log apart."""
        own = None if self.identify is None else imported(self.identify)
        return LogCallers(self.fields, self.owners, own)

    def log(self, progress: Callable[[float], None] | None = None, *, at_once: bool = False) -> AccessLog:
        """Return the log."""
        own = (self.fields.token, self.fields.org, self.fields.ip, self.fields.plan, self.fields.priority)
        names = [name for name in (*own, *self.fields.dimensions.values()) if name is not None]
        return AccessLog(
            self.paths,
            format_name=self.format_name,
            aliases=self.aliases,
            at_once=at_once,
            caller_fields=names if self.identify is None else (),
            since=self.since,
            until=self.until,
            on_progress=progress,
        )


def log_options(command: Command) -> Command:
    """Add the log files and the options that say how they are read, and hand the command their `source`."""
    names = {
        "--format": "auto, combined, clf, uvicorn, json, alb, caddy, envoy, traefik, or a log_format of nginx.",
        "--token": "The field that holds the token.",
        "--org": "The field that holds the organization.",
        "--org-map": "A CSV file with the columns token, org and, if there is one, plan.",
        "--ip": "The field that holds the client's address (by default remote_addr).",
        "--plan": "The field that holds the plan.",
        "--priority": "The field that holds the priority.",
        "--identify": "module:function, which returns an Identity for a record of the log.",
        "--since": "Requests from this instant on (ISO 8601, UTC).",
        "--until": "Requests before this instant.",
    }

    def wrapped(**options: Any) -> Any:
        return command(source=guarded(lambda: _source(options)), **_rest(options))

    wrapped.__doc__, wrapped.__name__ = command.__doc__, command.__name__
    wrapped.__dict__.update(command.__dict__)
    found: Command = wrapped
    for name, text in reversed(names.items()):
        default = "auto" if name == "--format" else None
        found = click.option(name, f"log_{name.strip('-').replace('-', '_')}", default=default, help=text)(found)
    found = click.option("--dimension", "log_dimension", multiple=True, metavar="NAME=FIELD", help="A dimension.")(
        found
    )
    text = "A field that the log calls otherwise: time, method, path, status or duration."
    found = click.option("--field", "log_field", multiple=True, metavar="NAME=FIELD", help=text)(found)
    return click.argument("logs", nargs=-1, required=True)(found)


def _rest(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if not name.startswith("log_") and name != "logs"}


def _source(options: Mapping[str, Any]) -> Source:
    fields = CallerFields(
        token=options["log_token"],
        org=options["log_org"],
        ip=options["log_ip"] or "remote_addr",
        plan=options["log_plan"],
        priority=options["log_priority"],
        dimensions=_pairs("--dimension", options["log_dimension"]),
    )
    owners = options["log_org_map"]
    return Source(
        paths=options["logs"],
        format_name=options["log_format"],
        aliases=_pairs("--field", options["log_field"]),
        fields=fields,
        owners=None if owners is None else read_owners(owners),
        identify=options["log_identify"],
        since=_instant("--since", options["log_since"]),
        until=_instant("--until", options["log_until"]),
    )


def _pairs(option: str, values: Sequence[str]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for name, separator, value in pairs:
        if not (name and separator and value):
            raise ConfigurationError(f"{option}: {name}{separator}{value} is not NAME=FIELD [RL801]")
    return {name: value for name, _, value in pairs}


def _instant(option: str, text: str | None) -> int | None:
    found = None if text is None else instant_of(text)
    if text is not None and found is None:
        raise ConfigurationError(f"{option}: {text!r:.50} is not an instant, such as 2026-11-20T06:00:00Z [RL801]")
    return found
