"""The promise: the OpenAPI document of an app says what its limiter answers, in each style, and nothing else changes."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.testclient import TestClient

from ratelimit import (
    Concurrency,
    Decision,
    Limit,
    Quota,
    RateLimitMiddleware,
    RateLimitSettings,
    ResponseStyle,
    document_limits,
    exempt,
    limit,
)
from ratelimit.testing import freeze_limits
from tests.support.ports import free_port
from tests.support.uvicorn_server import uvicorn

STYLES = [
    ResponseStyle(),
    ResponseStyle(headers=["ietf"], problem="legacy", retry_after="exhausted"),
    ResponseStyle(headers=["x-ratelimit", "ietf"], media_type="application/json", capacity_status=503),
    ResponseStyle(headers=[], scope_header=False, problem_base="https://docs.example.com/errors#"),
    ResponseStyle(members="documented"),
    ResponseStyle(members="documented", scope_header=False),
    ResponseStyle(header_names={"X-RateLimit-Limit": "X-RateLimit-Max", "Retry-After": "X-RateLimit-Wait"}),
]


def new_app(*, settings: RateLimitSettings, **options: Any) -> FastAPI:
    """Return an app with an operation for each kind of policy."""
    app = FastAPI()
    for path in ("/rate", "/month", "/level", "/capacity", "/none"):
        app.get(path)(lambda: "served")
    app.add_middleware(RateLimitMiddleware, settings=settings, **options)
    return app


def settings_of_all_kinds(style: ResponseStyle) -> RateLimitSettings:
    return RateLimitSettings(
        response=style,
        limits=[
            Limit(name="rate", rate="1/minute", per="ip", paths="/rate"),
            Limit(name="capacity", rate="1/minute", paths="/capacity"),
        ],
        quotas=[
            Quota(name="month", limit=1, period="month", per="ip", paths="/month"),
            Quota(name="level", limit=1, per="ip", paths="/level"),
        ],
    )


def resolved(document: Any, schema: Any) -> Any:
    """Return a schema, which may be a reference to a component."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def sent_fields(headers: Any) -> set[str]:
    return {name for name in headers if "ratelimit" in name or name == "retry-after"}


@pytest.mark.parametrize("style", STYLES, ids=range(len(STYLES)))
@pytest.mark.parametrize("path", ["/rate", "/month", "/level", "/capacity"])
def test_what_is_documented_is_what_is_answered(style: ResponseStyle, path: str) -> None:
    """Status, headers, media type and members of the body; of a served response and of a refusal."""
    app = new_app(settings=settings_of_all_kinds(style))
    document = document_limits(app)
    responses = document["paths"][path]["get"]["responses"]
    client = TestClient(app)
    served, refused = client.get(path), client.get(path)
    assert set(responses) == {"200", str(refused.status_code)}
    for answer in (served, refused):
        documented = responses[str(answer.status_code)].get("headers", {})
        assert sent_fields(answer.headers) == {name.lower() for name in documented}
    ((media_type, content),) = responses[str(refused.status_code)]["content"].items()
    assert refused.headers["content-type"] == media_type
    schema = resolved(document, content["schema"])
    assert set(refused.json()) == set(schema["properties"]) == set(schema["required"])


def test_a_store_that_is_away_is_documented_where_a_policy_denies() -> None:
    """A 503 with a wait and without numbers."""
    settings = RateLimitSettings(
        store=f"redis://127.0.0.1:{free_port()}",
        limits=[Limit(name="rate", rate="9/minute", per="ip", paths="/rate", on_store_failure="deny")],
    )
    app = new_app(settings=settings)
    document = document_limits(app)
    documented = document["paths"]["/rate"]["get"]["responses"]["503"]
    with TestClient(app) as client:
        answer = client.get("/rate")
    assert (answer.status_code, sent_fields(answer.headers)) == (503, {"retry-after"})
    assert list(documented["headers"]) == ["Retry-After"]
    schema = resolved(document, documented["content"]["application/problem+json"]["schema"])
    assert set(answer.json()) == set(schema["properties"])
    assert "503" not in document["paths"]["/none"]["get"]["responses"]


def listed(document: Any, path: str, method: str = "get") -> list[str]:
    return [policy["name"] for policy in document["paths"][path][method].get("x-ratelimit", [])]


def test_the_policies_of_each_operation_are_listed() -> None:
    """Of settings, decorators and dependencies, through routers with prefixes; what gives way, is manual or shadow is not."""
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")

    @inner.get("/{number}/x", dependencies=[Depends(limit("2/minute", name="dependency"))])
    @limit("3/minute", name="decorator", per="token")
    async def both(number: int) -> int:
        return number

    @inner.post("/{number}/x")
    async def neither(number: int) -> int:
        return number

    @inner.get("/free")
    @exempt
    async def free() -> None: ...

    outer.include_router(inner)
    app = FastAPI()
    app.include_router(outer, prefix="/v1")
    settings = RateLimitSettings(
        limits=[
            Limit(name="default", rate="10/minute", per="token", default=True),
            Limit(name="writes", rate="20/minute", per="token", methods="POST", paths="/v1/*"),
            Limit(name="by-name", rate="1/minute", per="token", manual=True),
            Limit(name="tried", rate="1/minute", per="token", shadow=True),
        ],
        quotas=[Quota(name="month", limit=9, period="month", per="org", paths="/v1/outer/inner/{number}/x")],
        concurrency=[Concurrency(name="runs", limit=2, per="org", methods="POST")],
    )
    app.add_middleware(RateLimitMiddleware, settings=settings)
    document = document_limits(app)
    path = "/v1/outer/inner/{number}/x"
    assert listed(document, path) == ["month", "dependency", "decorator"]
    assert listed(document, path, "post") == ["writes", "month", "runs"]
    assert document["paths"]["/v1/outer/inner/free"] == app.openapi()["paths"]["/v1/outer/inner/free"]
    assert document["paths"][path]["get"]["x-ratelimit"][2] == {
        "name": "decorator",
        "kind": "limit",
        "rate": "3/minute",
        "burst": 0.0,
        "per": ["endpoint", "token"],
        "scope": "endpoint",
    }


def test_a_path_has_its_own_style() -> None:
    """As in the answers: the first entry of `responses` that names it."""
    settings = RateLimitSettings(
        limits=[Limit(name="all", rate="9/minute", per="ip")],
        responses=[(["/level"], ResponseStyle(problem="legacy", headers=["ietf"]))],
    )
    paths = document_limits(new_app(settings=settings))["paths"]
    found = {path: paths[path]["get"]["responses"]["429"] for path in ("/rate", "/level")}
    assert [list(found[path]["content"]) for path in found] == [["application/problem+json"], ["application/json"]]
    assert ["RateLimit" in found[path]["headers"] for path in found] == [False, True]


def test_a_route_for_any_path_documents_what_holds_below_it() -> None:
    """A gateway has one operation, and each of its paths may have another policy and another style."""
    app = FastAPI()
    app.get("/{rest:path}")(lambda rest: rest)
    settings = RateLimitSettings(
        limits=[Limit(name="slow", rate="1/minute", per="ip", paths="/slow/*")],
        responses=[(["/slow/*"], ResponseStyle(problem="legacy"))],
    )
    app.add_middleware(RateLimitMiddleware, settings=settings)
    document = document_limits(app)
    assert listed(document, "/{rest}") == ["slow"]
    assert list(document["paths"]["/{rest}"]["get"]["responses"]["429"]["content"]) == ["application/json"]


class Busy(BaseModel):
    reason: str


def test_what_the_app_documents_itself_stays() -> None:
    """A 429 of its own keeps its description and its body, beside that of the limiter."""
    app = FastAPI(responses={"4XX": {"description": "Any other error."}})
    own: Any = {429: {"model": Busy, "description": "Busy."}}
    app.get("/x", responses=own)(lambda: "x")
    app.add_middleware(
        RateLimitMiddleware,
        settings=RateLimitSettings(
            limits=[Limit(name="all", rate="9/minute", per="ip")],
            quotas=[Quota(name="month", limit=9, period="month", per="ip")],
            response=ResponseStyle(media_type="application/json"),
        ),
    )
    document = document_limits(app)
    found = document["paths"]["/x"]["get"]["responses"]
    assert set(found) == {"200", "4XX", "403", "429"}
    assert found["429"]["description"] == "Busy."
    assert [
        schema["$ref"].rpartition("/")[2] for schema in found["429"]["content"]["application/json"]["schema"]["anyOf"]
    ] == [
        "Busy",
        "RateLimitProblem",
    ]


def test_documenting_twice_changes_nothing() -> None:
    """Also after the app has served its document; and the app's own is not changed by it."""
    app = new_app(settings=settings_of_all_kinds(STYLES[2]))
    own = json.dumps(app.openapi())
    first = document_limits(app)
    assert document_limits(app) == first
    assert json.dumps(app.openapi()) == own
    with TestClient(app) as client:
        assert client.get("/openapi.json").json() == first
    assert document_limits(app) == app.openapi() == first


@pytest.mark.parametrize("lifespan", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_the_served_document_has_the_limits(lifespan: bool, wrapped: bool) -> None:  # noqa: FBT001
    """With and without a lifespan, whether the middleware is added to the app or stands around it."""
    settings = settings_of_all_kinds(ResponseStyle())
    app: Any = new_app(settings=RateLimitSettings() if wrapped else settings)
    if wrapped:
        app = RateLimitMiddleware.wrap(app, settings=settings)
    client = TestClient(app)
    if lifespan:
        with client:
            document = client.get("/openapi.json").json()
    else:
        document = client.get("/openapi.json").json()
    assert document == document_limits(app)
    assert listed(document, "/rate") == ["rate"]


def test_serving_the_limits_is_switchable() -> None:
    """The app serves its own document then; `document_limits` has them all the same."""
    app = new_app(settings=settings_of_all_kinds(ResponseStyle()), openapi=False)
    with TestClient(app) as client:
        assert "x-ratelimit" not in client.get("/openapi.json").text
    assert listed(document_limits(app), "/rate") == ["rate"]


def test_an_openapi_function_of_the_apps_own_is_respected() -> None:
    """Its document is the one to which the limits are added; a version of OpenAPI without `null` too."""
    app = new_app(settings=settings_of_all_kinds(ResponseStyle()))

    def own() -> dict[str, Any]:
        document = get_openapi(title="Own", version="7", routes=app.routes, openapi_version="3.0.3")
        return {**document, "x-own": True}

    app.openapi = own  # type: ignore[method-assign]
    with TestClient(app) as client:
        document = client.get("/openapi.json").json()
    assert (document["info"]["title"], document["x-own"]) == ("Own", True)
    assert document["components"]["schemas"]["RateLimitQuotaProblem"]["properties"]["period"]["nullable"]


def test_routes_that_are_added_later_are_documented() -> None:
    """The document is made when it is asked for."""
    app = new_app(settings=RateLimitSettings(limits=[Limit(name="all", rate="99/minute", per="ip")]))
    with TestClient(app) as client:
        app.get("/late")(limit("5/minute", name="late")(lambda: "late"))
        assert listed(client.get("/openapi.json").json(), "/late") == ["all", "late"]


def test_a_frozen_app_is_documented_once() -> None:
    """A test that makes the middleware again does not add the limits of the old one."""
    app = new_app(settings=settings_of_all_kinds(ResponseStyle()))
    for _ in range(3):
        with freeze_limits(app):
            assert listed(TestClient(app).get("/openapi.json").json(), "/rate") == ["rate"]


def test_own_answers_are_documented_without_a_body() -> None:
    """What `on_refused` returns is not known; the status and the headers are those of the refusal."""
    settings = RateLimitSettings(limits=[Limit(name="all", rate="1/minute", per="ip")])

    def answer(request: Any, decision: Decision) -> JSONResponse:
        return JSONResponse({"wait": decision.retry_after}, decision.status)

    app = new_app(settings=settings, on_refused=answer)
    found = document_limits(app)["paths"]["/rate"]["get"]["responses"]["429"]
    assert sorted(found) == ["description", "headers"]


def test_a_mounted_app_is_documented_by_its_own_middleware() -> None:
    """A limiter inside of a mounted app says nothing about the app around it."""
    sub = new_app(settings=settings_of_all_kinds(ResponseStyle()))
    app = FastAPI()
    app.get("/rate")(lambda: "not limited")
    app.mount("/sub", sub)
    app.mount("/bare", RateLimitMiddleware.wrap(APIRouter(routes=list(sub.routes)), settings=RateLimitSettings()))
    client = TestClient(app)
    assert client.get("/bare/rate").status_code == 200
    assert listed(client.get("/sub/openapi.json").json(), "/rate") == ["rate"]
    assert "x-ratelimit" not in client.get("/openapi.json").text


TIGHT = {
    "limits": [
        {"name": "caller", "rate": "60/minute", "per": ["ip"], "burst": 0.25},
        {"name": "service", "rate": "2000/second"},
        {"name": "tried", "rate": "1/hour", "shadow": True},
    ],
    "quotas": [
        {"name": "orders", "limit": 3, "period": "month", "per": ["ip"], "paths": ["/v1/orders"], "methods": ["POST"]}
    ],
    "concurrency": [{"name": "batches", "limit": 1, "per": ["ip"], "paths": ["/batch/*"]}],
    "responses": [
        {"paths": ["/legacy/*"], "style": {"problem": "legacy", "headers": ["ietf"], "retry_after": "exhausted"}},
        {"paths": ["/batch/*"], "style": {"headers": ["x-ratelimit", "ietf"], "problem_base": "https://a.example/#"}},
    ],
}


def test_schemathesis_finds_nothing_undocumented(tmp_path: Path) -> None:
    """All of its checks, against a real server whose limits it meets: 429, 403, and the 405 of undeclared methods."""
    pytest.importorskip("schemathesis")
    log = tmp_path / "requests.har"
    with uvicorn(TIGHT, app="tests.support.shop:app") as url:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--checks", "all"]
        command += [
            "--max-examples",
            "30",
            "--seed",
            "1",
            "--generation-database",
            "none",
            "--report-har-path",
            str(log),
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    entries = json.loads(log.read_text())["log"]["entries"]
    statuses = Counter(entry["response"]["status"] for entry in entries)
    assert all(statuses[status] for status in (200, 403, 405, 429)), statuses
