"""Reports what the calls of a client do to observers: for tracing, metrics and bookkeeping.

The base class `CallObserver` and adapters for tracing and metrics libraries belong here. An adapter
imports its library when it is first used. What an event changes in a deployment's life does not
belong here: the package that knows the deployment registers an observer of its own.
"""
