"""How the benchmarks round what they measure."""

from __future__ import annotations


def significant(value: float, digits: int = 3) -> float:
    """Rounds to that number of significant digits, and keeps every digit before the point.

    So a small figure of a slow or busy machine never becomes 0.
    """
    return round(value, 0) if abs(value) >= 10**digits else float(f"{value:.{digits}g}")
