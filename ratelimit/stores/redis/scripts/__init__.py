"""Lua scripts that run inside Redis."""
