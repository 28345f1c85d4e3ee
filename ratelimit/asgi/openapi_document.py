"""OpenAPI documents with what limits add to each operation, also in the document that an app serves."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final
from weakref import ref

from ratelimit.asgi.openapi_schemas import (
    BODY_NAMES,
    HeaderName,
    Json,
    Refusal,
    admitted_headers,
    body_schema,
    enforced,
    header_objects,
    policy_objects,
    refusals,
)
from ratelimit.asgi.routing.endpoint_matcher import EndpointMatcher
from ratelimit.asgi.routing.framework import router_of
from ratelimit.resolver.endpoint_policies import EndpointPolicies

logger = logging.getLogger("ratelimit")

EXTENSION: Final = "x-ratelimit"
"""The member of an operation that lists its policies."""

_FAILED: Final = "the limits could not be added to the OpenAPI document; it is served without them [RL210]"
_METHODS: Final = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
_SCHEMAS: Final = "#/components/schemas/"
_RESPONSES: Final = "#/components/responses/"


class LimitsDocumentation:
    """What the limits of one middleware add to the OpenAPI document of the app around or below it.

    `has_own_answers` says that the app answers refusals by itself: their bodies are not known here.
    """

    def __init__(self, app: Any, matcher: EndpointMatcher, *, has_own_answers: bool) -> None:
        self._router, self._matcher, self._has_own_answers = router_of(app), matcher, has_own_answers

    def added_to(self, document: Json, app: Any) -> Json:
        """Return the document of `app` with the limits of each operation; the given one stays as it is.

        Responses that it documents already are extended. Doing it again changes nothing.
        """
        index = self._matcher.read_routes(app)
        if index is None:
            return document
        holding = index.policies_by_operation()
        components = _Components(document)
        paths = {
            path: self._path_item(item, path.rstrip("/") or "/", holding, components)
            for path, item in document.get("paths", {}).items()
        }
        return {**document, "paths": paths, **components.changed()}

    def serve(self, app: Any) -> None:
        """Let `app.openapi()`, which the app serves, include the limits; an app without it stays as it is.

        `app` is the one that the request is in. Where that one has routes which the middleware does not see, since it
        stands inside of a mounted app, nothing is changed.
        """
        try:
            self._serve(next((each for each in (self._router, app) if callable(getattr(each, "openapi", None))), None))
        except Exception:
            logger.exception(_FAILED)

    def _serve(self, app: Any) -> None:
        if app is None or (self._router is not None and app.routes is not self._router.routes):
            return
        if not isinstance(app.openapi, _ServedOpenAPI):
            app.openapi = _ServedOpenAPI(app)
        app.openapi.add(self)

    def _path_item(
        self,
        item: Any,
        template: str,
        holding: Mapping[tuple[str, str], Sequence[EndpointPolicies]],
        components: "_Components",
    ) -> Any:
        if not isinstance(item, dict):
            return item
        return {
            key: self._operation(value, holding.get((key.upper(), template), ()), components)
            if key in _METHODS
            else value
            for key, value in item.items()
        }

    def _operation(self, operation: Json, holding: Sequence[EndpointPolicies], components: "_Components") -> Json:
        holding = [each for each in holding if enforced(each.policies)]
        if not holding:
            return operation
        responses, own = dict(operation.get("responses", {})), operation.get(EXTENSION, [])
        listed = [*own] if isinstance(own, list) else [own]
        for each in holding:
            policies = enforced(each.policies)
            headers = admitted_headers(policies, each.style)
            for status in [status for status in responses if headers and str(status).startswith("2")]:
                responses[status] = _with_headers(components.resolved(responses[status]), headers)
            for refusal in refusals(policies, each.style):
                self._add_refusal(refusal, responses, components)
            listed += [policy for policy in policy_objects(policies) if policy not in listed]
        return {**operation, "responses": responses, EXTENSION: listed}

    def _add_refusal(self, refusal: Refusal, responses: Json, components: "_Components") -> None:
        status, new = str(refusal.status), {"description": refusal.description}
        # A range of statuses, or the default, means this one no longer once it has an entry of its own.
        wider = responses.get(f"{status[0]}XX") or responses.get("default")
        known = responses.get(status) or ({**components.resolved(wider), **new} if wider else new)
        response = _with_headers(components.resolved(known), refusal.headers)
        if not self._has_own_answers:
            response = _with_body(response, refusal.media_type, components.reference_to(refusal.body))
        responses[status] = response


class _Components:
    """The components of a document, with the schemas that are added to them."""

    def __init__(self, document: Json) -> None:
        self._version: str = document.get("openapi", "")
        self._components: Json = document.get("components", {})
        self._schemas: Json = self._components.get("schemas", {})
        self._added: Json = {}

    def changed(self) -> Json:
        """Return the member `components` of the document, if anything was added to it."""
        schemas = {**self._schemas, **self._added}
        return {"components": {**self._components, "schemas": schemas}} if self._added else {}

    def reference_to(self, body: str) -> Json:
        """Return a reference to the schema of a body; a schema of the app's own with its name is left alone."""
        name, schema = BODY_NAMES[body], body_schema(body, self._version)
        while self._schemas.get(name, schema) != schema:
            name += "_"
        self._added[name] = schema
        return {"$ref": _SCHEMAS + name}

    def resolved(self, response: Json) -> Json:
        """Return a response itself where it is a reference to a component."""
        reference = response.get("$ref", "")
        found = self._components.get("responses", {}).get(reference.removeprefix(_RESPONSES))
        return found if reference.startswith(_RESPONSES) and isinstance(found, dict) else response


class _ServedOpenAPI:
    """The `openapi` of an app: its own document, with the limits of its middlewares as long as they live."""

    def __init__(self, app: Any) -> None:
        self._app, self._own = app, app.openapi
        self._added: list[ref[LimitsDocumentation]] = []

    def add(self, documentation: LimitsDocumentation) -> None:
        """Add the limits of one more middleware."""
        self._added = [*(each for each in self._added if each() is not None), ref(documentation)]

    def __call__(self) -> Json:
        own: Json = self._own()
        try:
            return self._with_limits(own)
        except Exception:
            logger.exception(_FAILED)
            return own

    def _with_limits(self, document: Json) -> Json:
        for documentation in [each() for each in self._added]:
            if documentation is not None:
                document = documentation.added_to(document, self._app)
        return document


def _with_headers(response: Json, names: Sequence[HeaderName]) -> Json:
    """Return a response with these headers; those that it documents already stay as they are."""
    if "$ref" in response:
        return response
    own = response.get("headers", {})
    known = {name.lower() for name in own}
    headers = {**own, **header_objects((sent, name) for sent, name in names if sent.lower() not in known)}
    return {**response, "headers": headers} if headers else response


def _with_body(response: Json, media_type: str, schema: Json) -> Json:
    """Return a response that may have this body too."""
    if "$ref" in response:
        return response
    content = response.get("content", {})
    known = content.get(media_type)
    either = {"schema": schema} if known is None else _with_alternative(known, schema)
    return {**response, "content": {**content, media_type: either}}


def _with_alternative(media: Json, schema: Json) -> Json:
    own = media.get("schema")
    if not own:  # Any body.
        return media
    alternatives = own["anyOf"] if own.keys() == {"anyOf"} else [own]
    return media if schema in alternatives else {**media, "schema": {"anyOf": [*alternatives, schema]}}
