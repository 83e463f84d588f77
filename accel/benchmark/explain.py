"""What goes with a measurement once everything is measured: sizes, what was predicted, where the time goes, and why it is not less."""

from __future__ import annotations

import re

from accel.benchmark.figures import compressed_bytes
from accel.benchmark.preflight import predicted_speedup
from accel.benchmark.profile import profile
from accel.benchmark.why import why
from accel.errors import AccelError
from accel.events import Attachment
from accel.report import Environment, Estimate, Measurement, Profile, SpeedFinding
from accel.request import BenchmarkRequest

_FASTER = 1.05
"""A speed-up that is surely above this needs no reasons."""


class Explanations:
    """Adds to measurements; each file is packed, and each setting profiled, once."""

    def __init__(self, request: BenchmarkRequest, where: Environment) -> None:
        self._request = request
        self._where = where
        self._paths = {model.model_id: model.path for model in request.models}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._profiles: dict[tuple[str, str, int, int], Profile | str | None] = {}
        self._predictions: dict[tuple[str, str, int], Estimate | None] = {}
        self.attachments: list[Attachment] = []

    def add(self, measured: Measurement) -> Measurement:
        """The measurement with everything that can be said of it."""
        size, compressed = self._size(measured.model_id)
        update: dict[str, object] = {"size_bytes": size, "compressed_bytes": compressed}
        if measured.model_id != self._request.baseline_id and measured.threads * measured.instances == 1:
            update["predicted_speedup"] = self._predicted(measured)
        if self._request.profile and measured.error is None:
            found = self._profile(measured, measured.model_id)
            if isinstance(found, str):
                update["warnings"] = (*measured.warnings, found)
            else:
                update["profile"] = found
                update["why"] = self._why(measured, found)
        return measured.model_copy(update=update)

    def _size(self, model_id: str) -> tuple[int, int]:
        if model_id not in self._sizes:
            path = self._paths[model_id]
            self._sizes[model_id] = path.stat().st_size, compressed_bytes(path)
        return self._sizes[model_id]

    def _predicted(self, measured: Measurement) -> Estimate | None:
        key = measured.model_id, measured.runtime, measured.batch_size
        if key not in self._predictions:
            baseline = self._paths[self._request.baseline_id]
            try:
                self._predictions[key] = predicted_speedup(
                    baseline,
                    self._paths[measured.model_id],
                    measured.runtime,
                    self._where,
                    shapes=self._request.shapes,
                    batch_size=measured.batch_size,
                    open_sizes=(1,),  # what the random inputs have there
                )
            except AccelError:  # a file that cannot be read has no prediction; that it does not run is said elsewhere
                self._predictions[key] = None
        return self._predictions[key]

    def _profile(self, measured: Measurement, model_id: str) -> Profile | str | None:
        """The profile, None where the runtime has no profiler, or why there is none."""
        key = model_id, measured.runtime, measured.batch_size, measured.threads
        if key not in self._profiles:
            name = re.sub(r"[^A-Za-z0-9._-]", "-", "trace-" + "-".join(str(part) for part in key))[:195] + ".json"
            trace = self._request.workspace / name
            try:
                found = profile(
                    self._paths[model_id],
                    measured.runtime,
                    threads=measured.threads,
                    batch_size=measured.batch_size,
                    shapes=self._request.shapes,
                    seed=self._request.seed,
                    trace=trace,
                )
            except AccelError as error:
                self._profiles[key] = error.message
            else:
                self._profiles[key] = found
                if found is not None and found.trace is not None:
                    self.attachments.append(Attachment(name=name, path=trace, media_type="application/json"))
        return self._profiles[key]

    def _why(self, measured: Measurement, after: Profile | None) -> tuple[SpeedFinding, ...]:
        gain = measured.speedup
        if gain is None or after is None or (gain.low is not None and gain.low > _FASTER):
            return ()
        before = self._profile(measured, self._request.baseline_id)
        if not isinstance(before, Profile):
            return ()
        try:
            return why(
                self._paths[self._request.baseline_id],
                self._paths[measured.model_id],
                before,
                after,
                threads=measured.threads * measured.instances,
                cores=self._where.cores,
                latency_ms=measured.latency_ms.median if measured.latency_ms else None,
            )
        except AccelError:  # reasons are a help, not a result
            return ()
