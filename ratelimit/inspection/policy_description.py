"""Descriptions of policies: as people read them, and as a settings file has them."""

import json
from typing import Any, Final

from ratelimit.config.policies import Limit, Policy, Quota
from ratelimit.config.settings_hash import repr_of_function
from ratelimit.inspection.explanation import rate_text

_SECTIONS: Final = {"limit": "limits", "quota": "quotas", "concurrency": "concurrency"}


def described(policy: Policy) -> dict[str, Any]:
    """Return what a policy declares, as JSON takes it."""
    return {
        "name": policy.name,
        "kind": policy.kind,
        "rate": rate_text(policy.amount, policy),
        "per": [*policy.per, *(["key()"] if policy.key is not None else [])],
        "burst": policy.burst if isinstance(policy, Limit) else None,
        "plans": {plan: rate_text(rate, policy) for plan, rate in policy.by_plan.items()},
        "scope": policy.scope,
        "methods": list(policy.methods),
        "paths": list(policy.paths),
        "shadow": policy.shadow,
        "on_store_failure": policy.on_store_failure,
        "manual": policy.manual,
    }


def toml_of(policy: Policy) -> str:
    """Return a policy as a settings file has it; a function of the request is a comment, for a file cannot name it."""
    values = policy.model_dump(mode="json", exclude_unset=True, fallback=repr_of_function)
    if isinstance(policy, Quota) and policy.period is None:
        values.pop("period", None)
    first = ["name", "rate", "limit", "per"]
    names = [name for name in first if name in values] + [name for name in values if name not in first]
    functions = {name for name in ("cost", "key") if callable(getattr(policy, name))}
    lines = [_line(name, values[name], is_function=name in functions) for name in names]
    return "\n".join([f"[[{_SECTIONS[policy.kind]}]]", *(line for line in lines if line)]) + "\n"


def _line(name: str, value: Any, *, is_function: bool) -> str:
    if is_function:
        return f"# {name}: the function {value} of the app"
    return "" if value is None else f"{name} = {_toml(value)}"


def _toml(value: Any) -> str:
    """Return a value as TOML writes it: text, numbers and truth values as JSON does, mappings as inline tables."""
    if isinstance(value, dict):
        pairs = [f"{_toml_key(name)} = {_toml(each)}" for name, each in value.items() if each is not None]
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


def _toml_key(name: str) -> str:
    is_bare = name.isascii() and name.replace("-", "a").replace("_", "a").isalnum()
    return name if is_bare else json.dumps(name)
