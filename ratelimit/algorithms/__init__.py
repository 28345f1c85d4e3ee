"""The limiting algorithms, each twice: in Python for the memory store, in Lua for Redis.

A change of one is a change of both; `tests/behaviour/test_lua_python_parity.py` holds them against each other.
"""
