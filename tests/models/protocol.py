"""A model of how workers and the store count each request once, step by step as the code does it.

Each method that yields steps names the functions that it stands for. What the model leaves out:

* A call carries one request, or what one worker hands over: a batch shares the fate of its call.
* One key, in one window or period that does not end; costs of 1. Permits, prefetched units, cached rejections and
  Clusters are left out, and so are calls that could not be sent at all: they do what a call does that never arrives.
* Time: any timer may fire, and any message arrive, at any moment or never. So no message is "lost": it is one that has
  not arrived yet. Kept replies and tombstones do not expire (the fault `kept reply expires` shows what that is worth).
* What has no effect of its own is no step: a second copy of a call whose first copy may still arrive (only one of them is
  executed; so a second copy matters where the first was refused), a look-up whose reply is lost (what is left is to look
  up again), a look-up that finds that a correction was executed, a probe that fails.
* The usage that the store reported before an outage does not count in a worker's share (`_seed_usage`): the workers of
  the model admit more than those of the code, and each rule has to hold all the same.
* The breaker opens after `threshold` failures (five in the code).
"""

from collections.abc import Iterator

from tests.models.protocol_state import (
    Call,
    Configuration,
    Outcome,
    State,
    Units,
    Worker,
    calling,
    forgotten,
    in_doubt,
    known,
    name_of,
    with_worker,
)
from tests.models.protocol_symmetry import renumbered

Steps = Iterator[tuple[str, State]]


class Protocol:
    """The steps of the protocol between workers and the store, and the rules that hold in every state."""

    def __init__(self, configuration: Configuration) -> None:
        self._has, self._fault = configuration, configuration.fault

    def initial(self) -> State:
        """Return the state in which nothing was asked yet."""
        has = self._has
        workers = (Worker(),) * has.workers
        unasked: Outcome = "unasked"
        outcomes = (unasked,) * has.requests
        return State(outcomes, (0,) * has.requests, has.others, workers, (), has.crashes, has.losses)

    def canonical(self, state: State) -> State:
        """Return one state for all that differ in the names of workers and requests, or in the order of calls, alone."""
        return renumbered(state._replace(workers=tuple(sorted(state.workers))))

    def steps(self, state: State) -> Steps:
        """Yield every step that is possible, with the state after it."""
        before = None
        for number, worker in enumerate(state.workers):
            if worker != before:  # Workers in the same state take the same steps.
                name = f"worker {number + 1}"
                for step, after in self._steps_of(state, number, worker):
                    yield f"{name}: {step}", after
            before = worker
        for number, call in enumerate(state.late):
            rest = state._replace(late=state.late[:number] + state.late[number + 1 :])
            yield f"the store executes a forgotten copy of {name_of(call)}", self._executed(rest, call)[0]

    def broken(self, state: State) -> str:
        """Return the rule that this state breaks, or ""."""
        if any(worker.used > self._has.fair_share for worker in state.workers):
            return "a worker has admitted more than its share without the store"
        if state.outcomes.count("admitted") > self._has.limit:
            return "the store has admitted more than the limit"
        if any(
            count not in (0, 1, 2)
            for count, outcome in zip(state.counts, state.outcomes, strict=True)
            if outcome == "unknown"
        ):
            return "a request of a killed worker is counted otherwise than by its charge and its hand-over"
        return self._miscounted(state) if self.is_quiescent(state) else ""

    def is_quiescent(self, state: State) -> bool:
        """Say whether no worker has anything left to do for the requests that have come."""
        return not any(
            worker.calls or worker.unreported or worker.outbox or worker.failures >= self._has.threshold
            for worker in state.workers
        )

    def _miscounted(self, state: State) -> str:
        for number, (outcome, count) in enumerate(zip(state.outcomes, state.counts, strict=True), 1):
            expected = outcome in ("admitted", "locally")
            if outcome != "unknown" and count != expected:
                return f"request {number} is counted {count} times at the end, and should be {int(expected)} times"
        charged = sum(state.counts) + self._has.others
        if state.total != charged:
            return f"the store has {state.total} units at the end, for {charged} that were charged"
        return ""

    def _steps_of(self, state: State, number: int, worker: Worker) -> Steps:
        yield from self._ask(state, number, worker)
        for at, call in enumerate(worker.calls):
            if at and call == worker.calls[at - 1]:
                continue
            without = worker._replace(calls=worker.calls[:at] + worker.calls[at + 1 :])
            yield from self._arrive(state, number, without, call)
            if call.waits:
                yield from self._wait(state, number, without, call)
            else:
                yield from self._look_up(state, number, without, call)
        yield from self._hand_over(state, number, worker)
        yield from self._breaker(state, number, worker)
        yield from self._callers(state, number, worker)
        if state.crashes:
            yield "is killed, and started again", self._killed(state, number, worker)

    def _ask(self, state: State, number: int, worker: Worker) -> Steps:
        """`Enforcer.decide`: calls the store, or decides without it while the breaker is open."""
        if "unasked" not in state.outcomes:
            return
        request = state.outcomes.index("unasked")
        if worker.failures >= self._has.threshold:
            step = f"request {request + 1} comes while the breaker is open"
            yield step, self._decided_locally(state, number, worker, request)
        else:
            call = Call("charge", ((request, 1),))
            yield f"sends {name_of(call)}", with_worker(known(state, request, "asked"), number, calling(worker, call))

    def _arrive(self, state: State, number: int, without: Worker, call: Call) -> Steps:
        """`decide.lua`: a copy of a call arrives. With a kept reply nothing is executed."""
        if call.copies and (not call.kept or self._fault == "retry under another id"):
            after, executed = self._executed(state, call)
            step, is_over = f"the store executes a copy of {name_of(call)}", self._is_over(executed)
            yield step, with_worker(after, number, without if is_over else calling(without, executed))
        if self._fault == "kept reply expires" and call.kept and not call.waits:
            step, expired = f"the kept reply to {name_of(call)} expires", call._replace(kept=False)
            yield step, with_worker(state, number, calling(without, expired))

    def _executed(self, state: State, call: Call) -> tuple[State, Call]:
        """Return the state and the call after one copy was executed; a refused charge keeps no reply."""
        copies = call.copies - 1
        if call.kind == "charge" and state.total >= self._has.limit:
            return state, call._replace(copies=copies, refused=call.waits)
        if self._fault != "retry under another id":
            copies = 0  # Those that arrive later get the kept reply.
        return self._counted(state, call.units), call._replace(copies=copies, kept=True)

    def _is_over(self, call: Call) -> bool:
        """Say whether nothing depends on a call any more: a correction in doubt that was executed."""
        return call.kept and not (
            call.waits or call.copies or call.kind == "charge" or self._fault == "kept reply expires"
        )

    def _counted(self, state: State, units: Units) -> State:
        counts, total = list(state.counts), state.total
        for request, delta in units:
            counts[request] += delta
            total = max(0, total + delta)  # quota.lua: no counter falls below 0.
        return state._replace(counts=tuple(counts), total=total)

    def _wait(self, state: State, number: int, without: Worker, call: Call) -> Steps:
        """`ScriptExecutor._retry`, `_replied`, `_finish`: sends a second copy, gets a reply, or gives up."""
        may_matter = call.refused or self._fault == "retry under another id"
        if may_matter and not call.retried:
            again = call._replace(retried=True, copies=call.copies + 1)
            yield f"sends {name_of(call)} again", with_worker(state, number, calling(without, again))
        if call.kept:
            yield f"gets the reply to {name_of(call)}", self._replied(state, number, without, call)
        if call.refused:
            yield f"is told that {name_of(call)} is refused", self._refused(state, number, without, call)
        if state.losses:
            spent = state._replace(losses=max(-1, state.losses - 1))
            yield f"gives up {name_of(call)}", self._given_up(spent, number, without, call)

    def _replied(self, state: State, number: int, worker: Worker, call: Call) -> State:
        """`Batcher._finished`, `Enforcer._replied`: an answer to nobody is undone (`_undo_orphan`)."""
        state = forgotten(state, call)
        if call.kind != "charge":
            return with_worker(state, number, self._succeeded(worker) if call.kind == "correction" else worker)
        request = call.units[0][0]
        if state.outcomes[request] == "asked":
            return with_worker(known(state, request, "admitted"), number, self._succeeded(worker))
        return self._corrected(state, number, worker, ((request, -1),))

    def _refused(self, state: State, number: int, worker: Worker, call: Call) -> State:
        """`ScriptExecutor._finish`: another copy may be admitted yet, so the call is in doubt (`may_be_done_later`)."""
        request = call.units[0][0]
        if state.outcomes[request] == "asked":
            state = known(state, request, "none")
        if call.retried and self._fault != "refusal sent twice is forgotten":
            return with_worker(state, number, calling(worker, in_doubt(call)))
        return with_worker(forgotten(state, call), number, worker)

    def _given_up(self, state: State, number: int, worker: Worker, call: Call) -> State:
        """`ScriptExecutor._finish`, `InDoubtCalls.add`; then `Enforcer._failed` and a decision without the store."""
        if call.kind == "hand-over" and self._fault == "hand-over forgets its id":
            state = forgotten(state, call)
        elif not self._is_over(in_doubt(call)):
            worker = calling(worker, in_doubt(call))
        if call.kind == "hand-over" and self._fault == "hand-over is sent again with another id":
            worker = worker._replace(outbox=tuple(sorted((*worker.outbox, call.units))))
        if call.kind == "hand-over":  # CircuitBreaker.reopen
            worker = worker._replace(recovering=False)
        if call.kind != "charge":
            return with_worker(state, number, self._failed(worker))
        request = call.units[0][0]
        if state.outcomes[request] != "asked":
            return with_worker(state, number, worker)
        return self._decided_locally(state, number, self._failed(worker), request)

    def _look_up(self, state: State, number: int, without: Worker, call: Call) -> Steps:
        """`InDoubtCalls._resolve_all`, `_found`: undoes a charge that was made, and makes sure of one that was not.

        A tombstone keeps copies that arrive later from being executed. A correction is then sent again, under another
        id (`_send_again`); it stays in doubt until its reply, or another look-up, tells that it was executed.
        """
        is_charge, name = call.kind == "charge", name_of(call)
        if call.kept:
            after = forgotten(state, call)
            undone = is_charge and self._fault != "orphaned charge is kept"
            units = ((call.units[0][0], -1),)
            after = self._corrected(after, number, without, units) if undone else with_worker(after, number, without)
            yield f"finds out that {name} was executed", after
            return
        if self._fault == "recall without tombstone":
            state = forgotten(state, call)
        is_sent = not is_charge and self._fault != "correction in doubt is forgotten"
        again = calling(without, call._replace(copies=1)) if is_sent else without
        yield (
            f"finds out that {name} was not executed{', and sends it again' * is_sent}",
            with_worker(state, number, again),
        )

    def _hand_over(self, state: State, number: int, worker: Worker) -> Steps:
        """`CorrectionOutbox.flush`: while the breaker is closed (`flush_soon`) or half-open (`flush_for`)."""
        is_open = worker.failures >= self._has.threshold and not worker.recovering
        if not is_open and (worker.unreported or worker.outbox):
            drained = [tuple((request, 1) for request in worker.unreported)] if worker.unreported else []
            calls = [Call("hand-over", units) for units in (*drained, *worker.outbox)]
            yield "hands over", with_worker(state, number, calling(worker._replace(unreported=(), outbox=()), *calls))

    def _breaker(self, state: State, number: int, worker: Worker) -> Steps:
        """`CircuitBreaker.probe`, `_recover_and_close`."""
        if worker.failures >= self._has.threshold and not worker.recovering:
            yield "probes the store: half-open", with_worker(state, number, worker._replace(recovering=True))
        if worker.recovering:
            closed = worker._replace(recovering=False, failures=0)
            if self._fault == "breaker drops the hand-over":
                closed = closed._replace(unreported=(), outbox=())
            yield "closes the breaker", with_worker(state, number, closed)

    def _callers(self, state: State, number: int, worker: Worker) -> Steps:
        """`Batcher.submit`, `Settlement.refund`: a caller is cancelled while it waits, or the app's answer refunds."""
        for request, outcome in enumerate(state.outcomes):
            waits = self._has.cancels and outcome == "asked"
            if waits and any(call.kind == "charge" and call.units[0][0] == request for call in worker.calls):
                yield f"request {request + 1} is cancelled", known(state, request, "none")
            is_held = any(request in other.unreported for other in state.workers if other is not worker)
            if self._has.refunds and outcome in ("admitted", "locally") and not is_held:
                yield f"request {request + 1} is refunded", self._refunded(state, number, worker, request)

    def _refunded(self, state: State, number: int, worker: Worker, request: int) -> State:
        """`FailureModes._correct`: where the unit was not handed over yet, in the local fallback alone."""
        state = known(state, request, "none")
        if request in worker.unreported:
            left = tuple(each for each in worker.unreported if each != request)
            return with_worker(state, number, worker._replace(unreported=left, used=worker.used - 1))
        return self._corrected(state, number, worker, ((request, -1),))

    def _corrected(self, state: State, number: int, worker: Worker, units: Units) -> State:
        """`Enforcer._correct`: sends a correction, or keeps it in the outbox while the breaker is open."""
        if worker.failures >= self._has.threshold:
            return with_worker(state, number, worker._replace(outbox=tuple(sorted((*worker.outbox, units)))))
        return with_worker(state, number, calling(worker, Call("correction", units)))

    def _decided_locally(self, state: State, number: int, worker: Worker, request: int) -> State:
        """`LocalFallback.decide`: this worker's share."""
        if worker.used >= self._has.share:
            return with_worker(known(state, request, "none"), number, worker)
        unreported = tuple(sorted((*worker.unreported, request)))
        admitted = worker._replace(used=worker.used + 1, unreported=unreported)
        return with_worker(known(state, request, "locally"), number, admitted)

    def _failed(self, worker: Worker) -> Worker:
        """`CircuitBreaker.record_failure`."""
        return worker._replace(failures=min(self._has.threshold, worker.failures + 1))

    def _succeeded(self, worker: Worker) -> Worker:
        """`CircuitBreaker.record_success`: counts from 0 again, or is half-open."""
        is_open = worker.failures >= self._has.threshold
        return worker._replace(recovering=True) if is_open else worker._replace(failures=0)

    def _killed(self, state: State, number: int, worker: Worker) -> State:
        """SIGKILL: what the worker kept is gone; its calls that are on their way may still arrive."""
        lost = {request for call in worker.calls for request, _ in call.units} | set(worker.unreported)
        lost |= {request for units in worker.outbox for request, _ in units}
        outcomes = tuple("unknown" if each in lost else outcome for each, outcome in enumerate(state.outcomes))
        for call in worker.calls:
            state = forgotten(state, call)
        return with_worker(state._replace(outcomes=outcomes, crashes=state.crashes - 1), number, Worker())
