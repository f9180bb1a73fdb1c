"""Reports what a client does to observers: for traces, metrics and bookkeeping.

An `Observer` is registered with `client.add_observer`. `OpenTelemetryObserver` (extra `otel`) makes
spans and metrics of what it observes, `PrometheusObserver` (extra `prometheus`) metrics; a subclass
of `Observer` does anything else. Each adapter imports its library when its name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .observer import ObservedCall, ObservedDeployment, Observer

if TYPE_CHECKING:
    from .opentelemetry import OpenTelemetryObserver
    from .prometheus import PrometheusObserver

__all__ = [
    "ObservedCall",
    "ObservedDeployment",
    "Observer",
    "OpenTelemetryObserver",
    "PrometheusObserver",
]

if not TYPE_CHECKING:  # a type checker would accept any name because of __getattr__
    _MODULES = {"OpenTelemetryObserver": "opentelemetry", "PrometheusObserver": "prometheus"}

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
        except ImportError as error:
            from edgegap_async.api.validation import EXTRAS, needs_package

            package = (error.name or "").partition(".")[0]
            if package not in EXTRAS:
                raise
            raise ImportError(needs_package(name, package), name=error.name) from None
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
