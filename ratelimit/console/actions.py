"""Changes that a form of the console makes: the controls of the limiter do them, and the audit trail keeps who did what."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ratelimit._utils.texts import key_text
from ratelimit.console.caller_reference import identity_of_query
from ratelimit.console.command_lines import command_line
from ratelimit.console.forms import Form
from ratelimit.console.notices import Notice, redirect
from ratelimit.console.security import check_change
from ratelimit.console.visit import Visit
from ratelimit.controls.blocks import Blocks
from ratelimit.errors import ConfigurationError
from ratelimit.inspection.explanation import rate_text
from ratelimit.model.identity import Identity

_UNKNOWN: Final = "console"
"""Who has made a change where `authorize` tells no name."""


@dataclass(frozen=True, slots=True)
class WantedChange:
    """A change that is wanted: by whom, by which form."""

    visit: Visit
    form: Form

    @property
    def by(self) -> str:
        """Who makes it."""
        return self.visit.operator or _UNKNOWN

    def reason(self) -> dict[str, Any]:
        """Return until when it holds, why, and who makes it; a change without a reason raises `ConfigurationError`."""
        return {"until": self.form.until(), "why": self.form.needed("why"), "by": self.by}

    def why(self) -> dict[str, Any]:
        """Return why, if the form says so, and who makes it: for what takes a change back."""
        return {"why": self.form.text("why"), "by": self.by}


async def change(visit: Visit) -> Response:
    """Make the change of a form, and lead back to its page, which shows what was done and the command that does the same."""
    make = _CHANGES.get(visit.request.path_params["name"])
    if make is None:
        raise HTTPException(404)
    form = await Form.of(visit.request, visit.limiter.clock)
    check_change(visit.request, form.text("csrf") or "")
    notice = await make(WantedChange(visit, form))
    back = (form.text("back") or "").lstrip("/\\")
    return redirect(visit.request, f"{visit.base}/{back}", notice)


async def _set_override(wanted: WantedChange) -> Notice:
    form, controls = wanted.form, wanted.visit.limiter.overrides
    policy, rate, reason = form.needed("policy"), form.rate(), wanted.reason()
    whom, options, text = _whom(form)
    old = await controls.set(policy=policy, rate=rate, **whom, **reason)
    before = "" if old is None else f" It was {rate_text(old.rate)}."
    command = command_line("override set", policy=policy, rate=rate, **options, **reason)
    return Notice(text=f"{policy} is {rate} for {text}.{before} All workers know within 2 seconds.", command=command)


async def _delete_override(wanted: WantedChange) -> Notice:
    policy = wanted.form.needed("policy")
    whom, options, text = _whom(wanted.form)
    existed = await wanted.visit.limiter.overrides.delete(policy=policy, **whom, **wanted.why())
    done = f"The override of {policy} for {text} is removed." if existed else "There was no such override."
    return Notice(text=done, command=command_line("override delete", policy=policy, **options, **wanted.why()))


def _whom(form: Form) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return whom an override is for: as the controls take it, as the command line does, and as people read it."""
    whom, plan, key = form.text("whom") or "caller", form.text("plan"), form.key()
    if whom == "everybody":
        return {"key": {}}, {"everybody": True}, "everybody"
    if whom == "plan":
        return {"plan": form.needed("plan")}, {"plan": plan}, f"the plan {plan}"
    if not key:
        raise ConfigurationError("key: say whom the rate is for [RL221]")
    return {"key": key}, {"key": key}, key_text(key)


def _listing(command: str, effect: str, entries_of: Callable[[Visit], Blocks]) -> "dict[str, Make]":
    async def add(wanted: WantedChange) -> Notice:
        key, reason = wanted.form.key(), wanted.reason()
        await entries_of(wanted.visit).set(key, **reason)
        text = f"{key_text(key)} is {effect}. All workers know within 2 seconds."
        return Notice(text=text, command=command_line(f"{command} set", key=key, **reason))

    async def remove(wanted: WantedChange) -> Notice:
        key = wanted.form.key()
        existed = await entries_of(wanted.visit).delete(key, **wanted.why())
        text = f"{key_text(key)} is no longer {effect}." if existed else "There was no such entry."
        return Notice(text=text, command=command_line(f"{command} delete", key=key, **wanted.why()))

    return {f"{command}-set": add, f"{command}-delete": remove}


async def _reset(wanted: WantedChange) -> Notice:
    limiter, key, policy = wanted.visit.limiter, wanted.form.key(), wanted.form.text("policy")
    why = wanted.form.needed("why")
    if not key:
        raise ConfigurationError("key: say whose counters are emptied [RL221]")
    identity = identity_of_query(key, limiter.resolver.named)
    if identity == Identity(plan=identity.plan, priority=identity.priority):
        raise ConfigurationError(f"key: {key_text(key)!r:.100} names no caller [RL221]")
    emptied = await limiter.reset(identity, policy, why=why, by=wanted.by)
    command = command_line("reset", policy=policy, caller=key, why=why, by=wanted.by)
    return Notice(text=f"{emptied} counters of {key_text(key)} were emptied.", command=command)


async def _shadow(wanted: WantedChange) -> Notice:
    policy, reason = wanted.form.text("policy"), wanted.reason()
    await wanted.visit.limiter.fleet.shadow(policy=policy, **reason)
    text = f"{policy or 'All policies'}: in shadow. Nothing is refused, and all is counted, within 2 seconds."
    return Notice(text=text, command=command_line("shadow on", policy=policy, **reason))


async def _pause(wanted: WantedChange) -> Notice:
    policy, reason = wanted.form.text("policy"), wanted.reason()
    await wanted.visit.limiter.fleet.pause(policy=policy, **reason)
    text = f"{policy or 'All policies'}: paused. Nothing is counted or refused, within 2 seconds."
    return Notice(text=text, command=command_line("pause", policy=policy, **reason))


async def _enforce(wanted: WantedChange) -> Notice:
    policy, mode = wanted.form.text("policy"), wanted.form.needed("mode")
    chosen: Any = mode if mode in {"shadow", "paused"} else None
    existed = await wanted.visit.limiter.fleet.off(policy=policy, mode=chosen, **wanted.why())
    name = policy or "All policies"
    command = "resume" if mode == "paused" else "shadow off"
    return Notice(
        text=f"{name}: enforced again." if existed else f"{name}: no switch was set.",
        command=command_line(command, policy=policy, **wanted.why()),
    )


Make = Callable[[WantedChange], Awaitable[Notice]]
"""Makes a change, and returns what to say of it."""

_CHANGES: Final[dict[str, Make]] = {
    "override-set": _set_override,
    "override-delete": _delete_override,
    **_listing("block", "blocked", lambda visit: visit.limiter.blocks),
    **_listing("allow", "allowed whatever it does", lambda visit: visit.limiter.allowed),
    "reset": _reset,
    "shadow": _shadow,
    "pause": _pause,
    "enforce": _enforce,
}
"""What forms may be sent to, by the last part of the path."""
