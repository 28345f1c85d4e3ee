"""Formats of access logs: a line becomes the fields that it names."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from ratelimit.errors import ConfigurationError

_REQUESTS: Final = ("request", "request_uri", "uri", "path", "url", "request_path")

Fields = Mapping[str, str]
"""The fields of one line by name; what is missing or `-` is left out."""

Parse = Callable[[str], Fields | None]
"""Reads one line; `None`: it is not of this format."""

_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)\})")

COMBINED: Final = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"'
)
CLF: Final = '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent'
ALB: Final = (
    "$type $time $elb $remote_addr $target $request_processing_time $target_processing_time $response_processing_time "
    '$status $target_status $received_bytes $sent_bytes "$request" "$http_user_agent" $more'
)
"""An entry of an Application Load Balancer of AWS; `$time` is when the response ended."""

_UVICORN: Final = re.compile(
    r"(?:(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)\W+)?(?:\w+:?\s+)?(?:- )?"
    r'(?P<remote_addr>[^ "]+) - "(?P<request>[^"]*)" (?P<status>\d{3})'
)

_JSON_PATHS: Final[Mapping[str, Mapping[str, str]]] = {
    "caddy": {
        "time": "ts",
        "request_method": "request.method",
        "request_uri": "request.uri",
        "remote_addr": "request.client_ip",
        "request_time": "duration",
    },
    "envoy": {
        "start_time": "start_time",
        "request_method": "method",
        "request_uri": "path",
        "remote_addr": "downstream_remote_address",
        "status": "response_code",
        "duration_ms": "duration",
    },
    "traefik": {
        "start_time": "StartUTC",
        "request_method": "RequestMethod",
        "request_uri": "RequestPath",
        "remote_addr": "ClientHost",
        "status": "DownstreamStatus",
        "duration_ns": "Duration",
    },
}
"""Where the JSON lines of these servers have the fields that are read."""

NAMES: Final = ("auto", "combined", "clf", "uvicorn", "json", "alb", *_JSON_PATHS)


def parser_of(name: str, wanted: AbstractSet[str] | None = None) -> Parse:
    """Return what reads lines of a format: one of `NAMES`, or a `log_format` of nginx, `$remote_addr … $status`.

    With `wanted`, fields of other names may be left out. Anything else raises `ConfigurationError`.
    """
    if name in ("combined", "clf", "alb"):
        return compile_format({"combined": COMBINED, "clf": CLF, "alb": ALB}[name], wanted)
    if name == "uvicorn":
        return _uvicorn
    if name == "json":
        return _json
    if name in _JSON_PATHS:
        return _json_of(_JSON_PATHS[name])
    if "$" in name:
        return compile_format(name, wanted)
    known = ", ".join(NAMES)
    raise ConfigurationError(f"--format: {name!r} is not one of {known}, nor a log_format with $variables [RL851]")


def compile_format(text: str, wanted: AbstractSet[str] | None = None) -> Parse:
    """Return what reads lines that nginx writes by a `log_format`; a variable ends where the text after it begins."""
    names, pattern, at = list[str](), "", 0
    for found in _VARIABLE.finditer(text):
        pattern += _literal(text[at : found.start()])
        at = found.end()
        name = found[1] or found[2]
        value = _value(name, text[at : at + 1])
        if wanted is None or name in wanted:
            names.append(name)
            value = f"({value})"
        pattern += value
    if not at:
        raise ConfigurationError(f"--format: {text!r:.80} has no $variable [RL851]")
    match = re.compile(pattern + _literal(text[at:]) + r"\s*$").match

    def parse(line: str) -> Fields | None:
        found = match(line)
        if found is None:
            return None
        fields = dict(zip(names, found.groups()))  # noqa: B905 - of one length
        if "-" in fields.values():
            return {name: value for name, value in fields.items() if value != "-"}
        return fields

    return parse


def _value(name: str, following: str) -> str:
    """Return the pattern of a variable's value, which ends where `following` begins."""
    if not following:
        return ".*"
    if following == '"':  # Apache escapes quotes in quotes.
        return r'(?:[^"\\]|\\.)*'
    if following == "$":  # Another variable, which begins with a slash: `$host$request_uri`.
        return r"[^\s/]*"
    value = rf"[^{re.escape(following)}]*"
    if name.startswith("upstream_"):  # One value for each server that was tried.
        return rf"{value}(?:, {value})*"
    return value


def detect(lines: Sequence[str], wanted: AbstractSet[str] | None = None) -> Parse:
    """Return what reads most of some lines; `ConfigurationError` where no format reads half of them."""
    sample = [line for line in lines if line.strip()]
    best, most = None, 0
    for name in ("caddy", "envoy", "traefik", "json", "combined", "clf", "alb", "uvicorn"):
        parse = parser_of(name, wanted)
        read = sum(_is_request(parse(line)) for line in sample)
        if read > most:
            best, most = parse, read
    if best is None or 2 * most < len(sample):
        raise ConfigurationError(
            f"--format: no format that is known fits the log; its first line is {(sample or [''])[0]!r:.120} [RL852]"
        )
    return best


def _is_request(fields: Fields | None) -> bool:
    return fields is not None and any(name in fields for name in _REQUESTS)


def _literal(text: str) -> str:
    return re.escape(text).replace(r"\ ", " ").replace(" ", r"\s+")


def _uvicorn(line: str) -> Fields | None:
    found = _UVICORN.match(line)
    return None if found is None else {name: value for name, value in found.groupdict().items() if value}


def _json(line: str) -> Fields | None:
    """Return all values of a JSON object, by their paths: `request.headers.Authorization.0`."""
    try:
        value = json.loads(line)
        fields = dict[str, str]()
        _flatten("", value, fields)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(value, dict) else None


def _flatten(path: str, value: Any, fields: dict[str, str]) -> None:
    if isinstance(value, dict):
        pairs: Any = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    else:
        text = "" if value is None else repr(value) if isinstance(value, float) else str(value)
        if text not in ("", "-"):
            fields[path] = text if text.isascii() else text.encode("utf-8", "replace").decode()
        return
    for name, each in pairs:
        _flatten(f"{path}.{name}" if path else str(name), each, fields)


def _json_of(paths: Mapping[str, str]) -> Parse:
    needed = {"request_uri", "start_time", "time", "status"} & paths.keys()

    def parse(line: str) -> Fields | None:
        fields = _json(line)
        if fields is None or not all(paths[name] in fields for name in needed):
            return None
        return {**fields, **{name: fields[path] for name, path in paths.items() if path in fields}}

    return parse
