"""Formats of access logs: lines of the servers that people run become their fields."""

import json

import pytest

from ratelimit import ConfigurationError
from ratelimit.rehearsal.log_formats import compile_format, detect, parser_of
from ratelimit.rehearsal.log_records import LogRecord, RecordReader

NGINX = '192.0.2.7 - ada [20/Nov/2026:06:00:01 +0100] "GET /v1/x?q=1 HTTP/1.1" 200 51 "-" "curl/8.5"'
CADDY = json.dumps(
    {
        "ts": 1795000000.123456,
        "request": {"client_ip": "192.0.2.7", "method": "GET", "uri": "/v1/x?q=1", "headers": {"X-Api-Key": ["k1"]}},
        "duration": 0.25,
        "status": 200,
    }
)
ENVOY = json.dumps(
    {
        "start_time": "2026-11-18T19:46:40.123Z",
        "method": "GET",
        "path": "/v1/x?q=1",
        "response_code": 200,
        "duration": 250,
        "downstream_remote_address": "192.0.2.7:5000",
    }
)
TRAEFIK = json.dumps(
    {
        "StartUTC": "2026-11-18T19:46:40.123456789Z",
        "RequestMethod": "GET",
        "RequestPath": "/v1/x?q=1",
        "DownstreamStatus": 200,
        "Duration": 250_000_000,
        "ClientHost": "192.0.2.7",
    }
)
ALB = (
    "https 2026-11-18T19:46:40.373000Z app/lb/50dc 192.0.2.7:2817 10.0.0.1:80 0.001 0.248 0.001 200 200 34 366 "
    '"GET https://api.example.com:443/v1/x?q=1 HTTP/1.1" "curl/8.5" ECDHE TLSv1.2 arn:aws "Root=1-58" "-" "-" 0'
)
UVICORN = '2026-11-18 19:46:40,123 INFO:     192.0.2.7:5000 - "GET /v1/x?q=1 HTTP/1.1" 200'


def record(line: str) -> LogRecord:
    fields = detect([line])(line)
    assert fields is not None
    found = RecordReader().read(fields)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("line", "at", "duration"),
    [
        (NGINX, 1795150801_000000, 0),
        (NGINX.rpartition(' "-"')[0], 1795150801_000000, 0),
        (CADDY, 1794999999_873456, 250_000),
        (ENVOY, 1795031200_123000, 250_000),
        (TRAEFIK, 1795031200_123456, 250_000),
        (ALB, 1795031200_123000, 250_000),
        (UVICORN, 1795031200_123000, 0),
    ],
)
def test_lines_of_known_servers_are_read(line: str, at: int, duration: int) -> None:
    """The request begins where the log says, or so long before its end."""
    found = record(line)
    assert (found.method, found.path, found.status) == ("GET", "/v1/x", 200)
    assert (found.at, found.ends - found.at) == (at, duration)
    assert "192.0.2.7" in found.fields["remote_addr"]


def test_a_log_format_of_nginx_is_compiled() -> None:
    """Any string with variables; what is `-` is missing, and braces are allowed."""
    parse = compile_format('$msec|${http_x_api_key}|"$request" $status $request_time')
    assert parse('1795000000.123|k1|"POST /v1/x HTTP/2.0" 201 0.020\n') == {
        "msec": "1795000000.123",
        "http_x_api_key": "k1",
        "request": "POST /v1/x HTTP/2.0",
        "status": "201",
        "request_time": "0.020",
    }
    assert "http_x_api_key" not in (parse('1795000000.123|-|"POST /v1/x HTTP/2.0" 201 0.020') or {})
    assert parse("nonsense") is None
    wanted = compile_format("$a $b $c", {"b"})
    assert wanted("1 2 3") == {"b": "2"}


def test_values_that_hold_the_next_character_are_read_whole() -> None:
    """A host before its path, times of several upstream servers, and quotes that Apache escapes."""
    parse = compile_format('$time_iso8601 $host$request_uri $upstream_response_time "$http_user_agent" $status')
    assert parse(r'2026-11-18T19:46:40Z api.example.com/v1/x 0.1, 0.2 "a \"b\" c" 200') == {
        "time_iso8601": "2026-11-18T19:46:40Z",
        "host": "api.example.com",
        "request_uri": "/v1/x",
        "upstream_response_time": "0.1, 0.2",
        "http_user_agent": r"a \"b\" c",
        "status": "200",
    }


@pytest.mark.parametrize("name", ["json", "combined", "caddy", "envoy", "traefik", "alb"])
def test_no_line_of_such_a_kind_is_a_request(name: str) -> None:
    """Nested too deeply, half a character, zeros, and a time without end: a replay counts them as unreadable."""
    lines = [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"time": "\\ud800", "path": "/"}',
        "\x00" * 50,
        '{"time": 1e999, "path": 7}',
    ]
    found = [parser_of(name)(line) for line in lines]
    assert [fields and RecordReader().read(fields) for fields in found] == [None] * 5


def test_json_lines_are_flattened() -> None:
    """Fields are named by their paths; what is no object is no line."""
    parse = parser_of("json")
    assert parse('{"a": {"b": [1, {"c": "x"}]}, "d": null, "e": "-", "f": 0.1}') == {
        "a.b.0": "1",
        "a.b.1.c": "x",
        "f": "0.1",
    }
    assert [parse(line) for line in ("[1]", "{", "")] == [None, None, None]
    caddy = parser_of("caddy")(CADDY)
    assert caddy is not None
    assert caddy["request.headers.X-Api-Key.0"] == "k1"
    assert parser_of("caddy")('{"level": "info"}') is None


def test_what_is_no_format_is_named() -> None:
    """With those that there are, and the line that does not fit."""
    with pytest.raises(ConfigurationError, match="--format: 'apache' is not one of auto, combined"):
        parser_of("apache")
    with pytest.raises(ConfigurationError, match="has no"):
        compile_format("plain")
    with pytest.raises(ConfigurationError, match="its first line is 'hello world'"):
        detect(["hello world", NGINX, "x", "y"])
    with pytest.raises(ConfigurationError, match="first line is ''"):
        detect([])
