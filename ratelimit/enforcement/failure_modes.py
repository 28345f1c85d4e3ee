"""Failure modes: how a policy decides without the store, by its `on_store_failure`."""

from collections.abc import Awaitable
from functools import partial

from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.local_fallback import LocalFallback
from ratelimit.enforcement.settlement import COMPLETED, CorrectionTarget
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest


class FailureModes:
    """Decides by each policy's failure mode: `deny` refuses, `local` enforces this worker's share, `allow` lets pass.

    `target` takes corrections of what was decided locally and has been reported to the store since.
    """

    def __init__(self, fallback: LocalFallback, target: CorrectionTarget) -> None:
        self._fallback, self._target = fallback, target

    def decide(self, request: StoreRequest, *, keep: bool = True) -> Decision:
        """Decide without the store; with `keep`, a correction is reported to it later."""
        charges = request.charges
        if any(charge.limit.on_store_failure == "deny" and not charge.limit.shadow for charge in charges):
            return Decision.unavailable()
        local = [charge for charge in charges if charge.limit.on_store_failure == "local"]
        decided, reply = self._fallback.decide(request._replace(charges=local), keep=keep)
        write = partial(self._correct, self._fallback.generation)
        target = CorrectionTarget(write, self._target.settleable, self._target.is_closed)
        decision = decision_of(decided, reply, target, degraded=True)
        if decision.allowed and request.operation in (Operation.CHARGE, Operation.ACQUIRE):
            # A quota that is not enforced meanwhile is still used.
            passed = [charge for charge in charges if charge not in local and charge.limit.kind == "quota"]
            self._fallback.record_admitted(passed, reply.store_ms)
        return decision

    def _correct(self, generation: int, request: StoreRequest) -> Awaitable[None]:
        """Correct what was decided locally: in the local fallback, or in the store once it was reported there."""
        fallback = self._fallback
        if fallback.generation == generation:
            fallback.decide(request)
            return COMPLETED
        charges = [fallback.to_global(charge) for charge in request.charges if charge.limit.kind != "concurrency"]
        if not charges or request.operation != Operation.ADJUST:
            return COMPLETED  # The permits were held in this worker alone, and are forgotten.
        at = fallback.to_store_time(request.charged_at)
        return self._target.write(StoreRequest(charges, Operation.ADJUST, 0, at))


def decision_of(
    request: StoreRequest, reply: StoreReply, target: CorrectionTarget, *, degraded: bool = False
) -> Decision:
    """Return the decision that a reply makes, with what it charged as a settlement that `target` corrects."""
    settling = None if request.operation == Operation.PEEK else (target, request, reply)
    return Decision.from_readings(request.charges, reply.readings, reply.now, degraded=degraded, settling=settling)
