"""The difference of two settings: what changes, and which counters go on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from ratelimit._utils.texts import seconds_text
from ratelimit.config.policies import Limit, Policy, Quota
from ratelimit.config.settings import RateLimitSettings
from ratelimit.controls.settings_reload import FIXED_FIELDS
from ratelimit.model.rate import Rate

Counters = Literal["go on", "begin at zero", "end", "begin"]
"""What becomes of a policy's counters at a reload: kept, at zero under other keys, left to expire, or new."""

_KEYS_OF_ALL: Final = ("store", "key_prefix", "partitions")
"""Fields that are part of every key."""

_SECRET: Final = ("store", "hash_key")
_SECTIONS: Final = ("limits", "quotas", "concurrency")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """One policy: what becomes of it and of its counters, why, and the fields that change, old and new."""

    policy: str
    change: Literal["added", "removed", "changed", "unchanged"]
    counters: Counters
    why: str = ""
    fields: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsDiff:
    """The difference of two settings: by policy, and of all other fields; `restart` are those that need one."""

    policies: Sequence[PolicyChange]
    fields: Mapping[str, tuple[str, str]]
    restart: Sequence[str]

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not self.fields and all(each.change == "unchanged" for each in self.policies)

    def as_dict(self) -> dict[str, Any]:
        """Return the difference as JSON takes it."""
        return {
            "policies": [
                {
                    "policy": each.policy,
                    "change": each.change,
                    "counters": each.counters,
                    "why": each.why,
                    "fields": {name: list(pair) for name, pair in each.fields.items()},
                }
                for each in self.policies
            ],
            "fields": {name: list(pair) for name, pair in self.fields.items()},
            "restart": list(self.restart),
        }


def diff_settings(old: RateLimitSettings, new: RateLimitSettings) -> SettingsDiff:
    """Return what changes from one settings to others: no store is asked."""
    before = {policy.name: policy for policy in old.policies}
    after = {policy.name: policy for policy in new.policies}
    fields = {
        name: ("set", "other") if name in _SECRET else (_text(getattr(old, name)), _text(getattr(new, name)))
        for name in RateLimitSettings.model_fields
        if name not in _SECTIONS and getattr(old, name) != getattr(new, name)
    }
    policies = [_policy_change(name, before.get(name), after.get(name), old, new) for name in {**before, **after}]
    return SettingsDiff(policies=policies, fields=fields, restart=[name for name in FIXED_FIELDS if name in fields])


def _policy_change(
    name: str, before: Policy | None, after: Policy | None, old: RateLimitSettings, new: RateLimitSettings
) -> PolicyChange:
    if before is None or after is None:
        is_new = before is None
        return PolicyChange(
            policy=name, change="added" if is_new else "removed", counters="begin" if is_new else "end", fields={}
        )
    fields = _changed_fields(before, after)
    why = next(_reasons(before, after, old, new), "")
    return PolicyChange(
        policy=name,
        change="changed" if fields else "unchanged",
        counters="begin at zero" if why else "go on",
        why=why or _new_periods(before, after),
        fields=fields,
    )


def _reasons(before: Policy, after: Policy, old: RateLimitSettings, new: RateLimitSettings) -> Iterator[str]:
    """Yield why the counters of a policy begin at zero."""
    if changed := [name for name in _KEYS_OF_ALL if getattr(old, name) != getattr(new, name)]:
        yield f"{', '.join(changed)} is part of every key"
    if before.kind != after.kind:
        yield "it is of another kind"
    if before.per != after.per or (before.key is None) != (after.key is None):
        yield "it is counted by other dimensions"
    by_org = {"org"} if {"org", "token"} & set(before.per) else set()
    parts = {*before.per, *by_org}
    if moved := sorted(parts & (set(old.hashed_dimensions) ^ set(new.hashed_dimensions))):
        yield f"{', '.join(moved)} is hashed in one of them alone"
    is_hashed = before.key is not None or parts & {"token", *new.hashed_dimensions}
    if is_hashed and old.hash_key != new.hash_key:
        yield "hash_key is another"
    if isinstance(before, Quota) and isinstance(after, Quota) and before.period != after.period:
        yield f"its period was {before.period or 'none'}, and is {after.period or 'none'}"


def _new_periods(before: Policy, after: Policy) -> str:
    """Return what becomes of the counters of periods that a limit did not have."""
    if not (isinstance(before, Limit) and isinstance(after, Limit)):
        return ""
    new = sorted({rate.period for rate in _rates(after)} - {rate.period for rate in _rates(before)})
    which = ", ".join(map(seconds_text, new))
    return (
        f"the counter of {which} begins with what the fullest other one holds; after a restart, at zero" if new else ""
    )


def _rates(limit: Limit) -> list[Rate]:
    """Return all rates that the settings give a limit."""
    found = (limit.rate, *limit.plans.values(), *(hours.rate for hours in limit.schedule))
    return [rate for rate in found if rate is not None]


def _changed_fields(before: Policy, after: Policy) -> dict[str, tuple[str, str]]:
    names = {**type(before).model_fields, **type(after).model_fields}
    pairs = {name: (getattr(before, name, None), getattr(after, name, None)) for name in names}
    return {name: (_text(old), _text(new)) for name, (old, new) in pairs.items() if old != new}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_text(each)}" for name, each in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or "none"
    return "none" if value is None else str(value)
