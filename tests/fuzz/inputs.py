"""How many inputs each fuzz test gets, and the inputs that several of them use."""

import os
import string
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES: Final = int(os.environ.get("FUZZ", "100"))
"""Inputs per test: few in every run, and as many as `FUZZ` says in a search for faults."""

fuzz: Final = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)

patient: Final = pytest.mark.timeout(max(120, EXAMPLES // 10))

PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))

hostile: Final = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=":{}%h/*#@\0\n\r\t \ud800\u00e9\u0430\u200b", min_size=1, max_size=12),
    st.text(alphabet=PRINTABLE, min_size=1, max_size=40),
    st.builds(
        lambda char, times: char * times, st.sampled_from("a%{:\0é\ud800"), st.sampled_from([1, 128, 129, 10_000])
    ),
    st.sampled_from(["", " ", "*", "a", "A", "а", "%68", "%h", "a:b", "a%3Ab", "{}", "}{", "{a}", "ﬁ", "fi"]),
)
"""Texts that try to be taken for another: separators, braces, escapes, surrogates, lookalikes, long and empty ones."""

secrets: Final = st.text(alphabet=string.ascii_letters + string.digits, min_size=6, max_size=30).map("Zq".__add__)
"""Texts that occur nowhere by chance."""
