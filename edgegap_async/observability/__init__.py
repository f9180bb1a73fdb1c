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
    _ADAPTERS = {  # the module and the extra of each
        "OpenTelemetryObserver": ("opentelemetry", "otel"),
        "PrometheusObserver": ("prometheus", "prometheus"),
    }

    def __getattr__(name: str) -> object:
        if name not in _ADAPTERS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, extra = _ADAPTERS[name]
        try:
            value = getattr(import_module(f".{module}", __name__), name)
        except ImportError as error:
            if (error.name or "").startswith("edgegap_async"):
                raise
            text = f"{name} needs {error.name}: pip install 'edgegap-async[{extra}]'"
            raise ImportError(text, name=error.name) from None
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
