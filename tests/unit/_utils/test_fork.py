"""What objects do in a forked child."""

import gc
import os

from ratelimit._utils.fork import call_after_fork


class Counter:
    def __init__(self) -> None:
        self.calls = 0
        call_after_fork(self.count)

    def count(self) -> None:
        self.calls += 1


def exit_code_of_a_fork(counter: Counter) -> int:
    """Return how often the counter was called in a child."""
    pid = os.fork()
    if pid == 0:
        os._exit(counter.calls)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_hooks_are_called_in_the_child_alone() -> None:
    """Once for each fork; the parent goes on as it was."""
    counter = Counter()
    assert [exit_code_of_a_fork(counter) for _ in range(2)] == [1, 1]
    assert counter.calls == 0


def test_an_object_that_is_gone_is_not_called() -> None:
    """The hook does not keep its object alive."""
    gone, counter = Counter(), Counter()
    del gone
    gc.collect()
    assert exit_code_of_a_fork(counter) == 1


def test_a_hook_that_fails_does_not_keep_the_others_from_running() -> None:
    """What it had to do is logged as failed."""

    class Failing(Counter):
        def count(self) -> None:
            raise ZeroDivisionError

    failing, counter = Failing(), Counter()
    assert exit_code_of_a_fork(counter) == 1
    assert failing.calls == 0
