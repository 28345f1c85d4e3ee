"""Fleet switches: shadow and pause, for one policy or all of them, in every worker."""

from datetime import datetime, timedelta
from typing import Any, Final, Literal

from ratelimit._utils.texts import readable
from ratelimit.clock import Clock
from ratelimit.controls.control_entries import ControlEntries
from ratelimit.controls.shared_entries import CONTROL, SharedEntries, checked_ending, checked_instant, ending_of
from ratelimit.errors import ConfigurationError
from ratelimit.model.fleet_switch import FleetSwitch
from ratelimit.resolver.compiled_policy import Mode
from ratelimit.resolver.keys import escape
from ratelimit.resolver.resolver import PolicyResolver

_KIND: Final = "switch"
_ALL: Final = "*"
_MODES: Final = ("paused", "shadow")
"""In the order in which they win."""

MAX_PAUSE: Final = timedelta(days=31)
"""How far away the end of a pause may be: nothing is limited until then."""


class FleetSwitches:
    """Keeps which policies are in shadow or paused: in the store, so that all workers follow within 2 seconds.

    In shadow, a policy counts and reports, and refuses nothing. Paused, it neither counts nor refuses, so a pause always has an end.
    A switch of one policy wins over that of all policies, and a pause over a shadow. Blocks hold in both cases.
    """

    def __init__(self, resolver: PolicyResolver, entries: SharedEntries, clock: Clock) -> None:
        self._resolver, self._clock = resolver, clock
        self._entries = ControlEntries(entries, _KIND, self._switch, clock, self._set_modes)

    @property
    def unreadable(self) -> int:
        """The number of stored switches that cannot be read, and have no effect."""
        return self._entries.unreadable

    async def shadow(
        self,
        *,
        policy: str | None = None,
        until: datetime | None = None,
        why: str | None = None,
        by: str | None = None,
    ) -> None:
        """Let one policy, or all of them, only report, until then or until it is switched off.

        A wrong value raises `ConfigurationError`, an unavailable store `StoreError`.
        """
        await self._set("shadow", policy, until, why, by)

    async def pause(
        self, *, until: datetime | None, policy: str | None = None, why: str | None = None, by: str | None = None
    ) -> None:
        """Stop counting one policy, or all of them, until then, at most 31 days long.

        Raises what `shadow` raises, also without an end.
        """
        ends = checked_instant(until, self._clock)
        if ends is None or not self._may_pause(ends):
            raise ConfigurationError("until: a pause needs an end, at most 31 days away [RL309]")
        await self._set("paused", policy, until, why, by)

    async def off(
        self,
        *,
        policy: str | None = None,
        mode: Literal["shadow", "paused"] | None = None,
        why: str | None = None,
        by: str | None = None,
    ) -> bool:
        """Remove the switches of one policy, or those of all policies, and return whether there was one; with `mode`, only its.

        A policy that the settings no longer have may be named.
        """
        names = [_entry_name(each, policy) for each in _MODES if mode in (None, each)]
        existed = [await self._entries.delete(name, why, by) for name in names]
        return any(existed)

    async def list(self) -> list[FleetSwitch]:
        """Return the switches that hold, that of all policies first; raises `StoreError`."""
        await self._entries.refresh()
        return sorted(self._entries.holding().values(), key=lambda each: each.policy or "")

    def holding(self, policy: str) -> FleetSwitch | None:
        """Return the switch that holds for a policy in this worker, or `None`."""
        found = self._entries.holding()
        names = [_entry_name(mode, each) for each in (policy, None) for mode in _MODES]
        return next((found[name] for name in names if name in found), None)

    async def end_those_over(self) -> None:
        """Enforce again what is over; a worker calls this once a second."""
        self._set_modes()

    async def _set(
        self,
        mode: Literal["shadow", "paused"],
        policy: str | None,
        until: datetime | None,
        why: str | None,
        by: str | None,
    ) -> None:
        entry = {"policy": policy, "mode": mode, **checked_ending(until, why, by, self._clock)}
        if policy is not None:
            self._resolver.named.get(policy)
        await self._entries.put(_entry_name(mode, policy), entry)

    def _may_pause(self, until: int) -> bool:
        return until - self._clock() <= MAX_PAUSE / timedelta(microseconds=1)

    def _switch(self, entry: Any) -> FleetSwitch:
        """Return a stored switch; raises `ValueError` for a pause that an operator could not have set."""
        found = _switch(entry)
        ends = found.until
        if found.mode == "paused" and (ends is None or not self._may_pause(round(ends.timestamp() * 1_000_000))):
            raise ValueError("a pause needs an end")
        return found

    def _set_modes(self) -> None:
        modes: dict[str | None, Mode] = {None: "enforced"}
        for switch in self._entries.holding().values():  # A pause wins over a shadow of the same policies.
            if modes.get(switch.policy) != "paused":
                modes[switch.policy] = switch.mode
        everywhere = modes.pop(None)
        self._resolver.set_modes({name: mode for name, mode in modes.items() if name is not None}, everywhere)


def _entry_name(mode: str, policy: str | None) -> str:
    return f"{CONTROL}{_KIND}:{mode}:{_ALL if policy is None else escape(policy)}"


def _switch(entry: Any) -> FleetSwitch:
    if entry["mode"] not in ("shadow", "paused"):
        raise ValueError(entry["mode"])
    policy = entry["policy"]
    return FleetSwitch(
        policy=None if policy is None else readable(str(policy)),
        mode=entry["mode"],
        **ending_of(entry),
    )
