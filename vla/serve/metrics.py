"""What a server counts, as Prometheus reads it (text exposition format 0.0.4)."""

from __future__ import annotations

import threading
from collections import Counter

import psutil

_HELP = {
    "vla_sessions_total": "clients that were let in, by protocol",
    "vla_refused_total": "connections and messages that were refused, by cause",
    "vla_observations_total": "observations answered, by protocol",
    "vla_batches_total": "questions put to the policy",
    "vla_batch_observations_total": "observations in them",
    "vla_policy_seconds_total": "time the policy took for them",
    "vla_resized_pictures_total": "pictures that were not of the policy's size",
}


class Metrics:
    """Counters of one server, for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self.sessions = 0
        self._process = psutil.Process()

    def add(self, name: str, label: str = "", amount: float = 1) -> None:
        """Count ``amount`` more; ``label`` is ``key="value"`` or nothing."""
        with self._lock:
            self._counts[name, label] += amount  # type: ignore[assignment]

    def batch(self, num_observations: int, duration_s: float) -> None:
        """Count a question that the policy answered."""
        with self._lock:
            self._counts["vla_batches_total", ""] += 1
            self._counts["vla_batch_observations_total", ""] += num_observations
            self._counts["vla_policy_seconds_total", ""] += duration_s  # type: ignore[assignment]

    def refused(self, cause: str) -> None:
        """Count a refusal."""
        self.add("vla_refused_total", f'cause="{cause}"')

    def count(self, name: str, label: str = "") -> float:
        """How many by now."""
        with self._lock:
            return self._counts[name, label]

    def text(self) -> str:
        """The page that a Prometheus server fetches."""
        with self._lock:
            counts = dict(self._counts)
        lines = ["# HELP vla_sessions clients connected now", "# TYPE vla_sessions gauge"]
        lines.append(f"vla_sessions {self.sessions}")
        lines.append("# HELP process_resident_memory_bytes memory of the server")
        lines.append("# TYPE process_resident_memory_bytes gauge")
        lines.append(f"process_resident_memory_bytes {self._process.memory_info().rss}")
        for name, told in _HELP.items():
            lines += [f"# HELP {name} {told}", f"# TYPE {name} counter"]
            found = {label: n for (key, label), n in sorted(counts.items()) if key == name}
            lines += [f"{name}{{{label}}} {n:g}" if label else f"{name} {n:g}" for label, n in found.items()]
        return "\n".join(lines) + "\n"
