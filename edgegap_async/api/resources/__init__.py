"""Calls beyond the published page, one module a resource: models, bodies, operations.

Few programs make these calls, so this file imports nothing: the methods in `http.resources` import
what they need at the first use of a group. `api.register` has the operations of all modules.
"""
