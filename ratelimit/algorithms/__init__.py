"""Each algorithm twice, side by side: in Python for the memory store, in Lua for Redis."""
