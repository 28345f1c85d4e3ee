"""The Redis store: `store` is the public class, the other modules are imported when one is opened.

A call travels `store` → `client` (one server) or `cluster` → `batching` → `executor` → `codec` → `connection`.
"""
