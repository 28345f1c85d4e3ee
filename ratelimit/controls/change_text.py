"""Changes of operators as people read them, in a line."""

from ratelimit._utils.texts import key_text, readable
from ratelimit.controls.audit_trail import Change
from ratelimit.controls.control_entries import kind_of
from ratelimit.model.rate import Rate


def change_text(change: Change) -> str:
    """Return what was changed: `agents 600/minute for org=acme`, `block ip=192.0.2.7`, `reset all of org:acme`.

    Of a change that another program has written, with values of other types, it is the action and the entry.
    """
    try:
        return readable(_text(change))
    except (TypeError, ValueError, AttributeError):
        return f"{change.action} {change.entry}"


def _text(change: Change) -> str:
    values, kind = change.values, kind_of(change.entry)
    if change.action == "reset":
        return f"reset {values.get('policy') or 'all'} of {values.get('caller')}"
    if change.action == "delete":
        return f"delete {change.entry.lstrip('!')}"
    whom = f"plan {values['plan']}" if values.get("plan") else key_text(values.get("key") or {}) or "everybody"
    if kind == "switch":
        return f"{values.get('mode')} {values.get('policy') or 'all policies'}"
    if kind in ("block", "allow"):
        return f"{kind} {whom}"
    rate = values.get("rate")
    return f"{values.get('policy')} {Rate(*rate) if isinstance(rate, list) else rate} for {whom}"
