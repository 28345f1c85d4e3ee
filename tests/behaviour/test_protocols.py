"""The promise: whatever is served, and whichever middlewares are around or inside, limits are the same on real servers."""

import json
import socket
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.servers import serving

APP = "tests.support.protocol_app:app"


@pytest.fixture(scope="module", params=["uvicorn", "hypercorn"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["outside", "inside"])
def layered(request: pytest.FixtureRequest, server: str) -> Iterator[str]:
    """Return the address of the app with GZip and BaseHTTPMiddleware outside of the limiter, or inside."""
    with serving(server, APP, workers=1, LAYERS=str(request.param)) as served:
        yield served.url


@pytest.fixture(scope="module")
def plain(server: str) -> Iterator[str]:
    with serving(server, APP, workers=1) as served:
        yield served.url


@pytest.fixture
def caller() -> dict[str, str]:
    return {"x-token": uuid4().hex}


def test_a_websocket_that_is_refused_gets_the_problem(layered: str, caller: dict[str, str]) -> None:
    """The handshake is answered with the status, the headers and the body of any other request."""
    address = layered.replace("http", "ws") + "/echo"
    for _ in range(2):
        with connect(address, additional_headers=caller) as websocket:
            websocket.send("hello")
            assert websocket.recv() == "hello"
    with pytest.raises(InvalidStatus) as refused:
        connect(address, additional_headers=caller)
    response = refused.value.response
    assert response.status_code == 429
    assert 0 < int(response.headers["retry-after"]) <= 3600
    assert json.loads(response.body)["policy"] == "token"


def test_events_are_not_held_back(layered: str, caller: dict[str, str]) -> None:
    """Each arrives as it is sent, with the headers of its limit; one stream is one request."""
    with httpx.stream("GET", f"{layered}/events", headers=caller) as stream:
        assert stream.headers["x-ratelimit-remaining"] == "1"
        chunks = list(stream.iter_raw())
        assert len([chunk for chunk in chunks if chunk]) >= 3 or stream.headers.get("content-encoding") == "gzip"
    assert httpx.get(f"{layered}/events", headers=caller).status_code == 200
    refused = httpx.get(f"{layered}/events", headers=caller)
    assert (refused.status_code, refused.json()["policy"]) == (429, "token")


def test_compressed_answers_keep_their_headers(layered: str, caller: dict[str, str]) -> None:
    """And a refusal can be read, compressed or not."""
    headers = {**caller, "accept-encoding": "gzip"}
    served = [httpx.get(f"{layered}/big", headers=headers) for _ in range(3)]
    assert [each.status_code for each in served] == [200, 200, 429]
    assert served[0].headers["content-encoding"] == "gzip"
    assert [each.headers["x-ratelimit-remaining"] for each in served] == ["1", "0", "0"]
    assert served[0].headers["x-marked"] == "yes"
    assert served[2].json()["status"] == 429
    assert int(served[2].headers.get("content-length", len(served[2].content))) == len(served[2].content)


def failures(url: str, caller: dict[str, str]) -> list[httpx.Response]:
    """Ask for an endpoint that raises, one that raises an `HTTPException`, and the first again."""
    return [httpx.get(f"{url}/{path}", headers=caller) for path in ("fail", "teapot", "fail")]


def test_a_failing_app_is_counted_and_not_hidden(layered: str, caller: dict[str, str]) -> None:
    """The framework answers 500 outside of the limiter; an `HTTPException` is an answer like others."""
    found = failures(layered, caller)
    assert [each.status_code for each in found] == [500, 418, 429]
    assert ["x-ratelimit-remaining" in each.headers for each in found] == [False, True, True]


def test_around_the_whole_app_a_failure_has_headers_too(server: str, caller: dict[str, str]) -> None:
    """The limiter sees the answer 500 then."""
    with serving(server, APP, workers=1, LAYERS="whole") as served:
        found = failures(served.url, caller)
        assert [each.headers["x-ratelimit-remaining"] for each in found] == ["1", "0", "0"]


def test_http_2(caller: dict[str, str]) -> None:
    """By hypercorn: many requests in one connection, refused one by one; a large answer is whole."""
    with (
        serving("hypercorn", APP, workers=1) as served,
        httpx.Client(http1=False, http2=True, base_url=served.url, headers=caller) as client,
    ):
        found = [client.get("/big") for _ in range(4)]
        assert {each.http_version for each in found} == {"HTTP/2"}
        assert [each.status_code for each in found] == [200, 200, 429, 429]
        assert len(found[0].text) == 10_500
        assert all(name == name.lower() for name, _ in found[2].headers.raw)
        assert 0 < int(found[2].headers["retry-after"]) <= 3600


def answers_to_expect(url: str, token: str, body: bytes) -> list[int]:
    """Send a request that waits to be asked for its body, and return the statuses of all answers, interim ones first."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST /upload HTTP/1.1\r\nhost: x\r\nx-token: {token}\r\ncontent-length: {len(body)}\r\nexpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        statuses, received = [], b""
        while True:
            received += connection.recv(65_536)
            while received.startswith(b"HTTP/1.1 ") and b"\r\n\r\n" in received:
                statuses.append(int(received[9:12]))
                if statuses[-1] != 100:
                    return statuses
                received = received.partition(b"\r\n\r\n")[2]
                connection.sendall(body)


def test_a_refused_upload_is_never_asked_for(server: str, plain: str) -> None:
    """`Expect: 100-continue` (RFC 9110 §10.1.1): the body of a refused request stays where it is."""
    token = uuid4().hex
    found = [answers_to_expect(plain, token, b"x" * 100_000) for _ in range(3)]
    # Hypercorn asks for every body by itself, before it calls the app.
    assert found == [[100, 200], [100, 200], [100, 429] if server == "hypercorn" else [429]]
