"""Pages whose numbers are worth summing up."""

import json
from typing import Any

import numpy as np
import pyarrow as pa

from catalog.models import ModelVersion, PipelineVersion
from tests.logs import rows
from tests.logs.conftest import Device

MINUTE = 60_000
HOUR = 60 * MINUTE


def table(device: Device, times: Any, outputs: Any, *, failed: Any = None, model: str | None = None) -> pa.Table:
    """Rows with `out.variable` = [output], `in.id` = their number n, latency n + 1 ms, `failed` rows anomalous."""
    count = len(times)
    is_failed = [False] * count if failed is None else list(failed)
    columns = rows.columns(
        list(times),
        version=device.version.uuid,
        partition=device.edge.name,
        outputs={"variable": pa.array([[float(x)] for x in outputs], pa.list_(pa.float64()))},
    )
    columns["anomaly"] = pa.array(
        [{"count": int(x), "too_high": bool(x)} for x in is_failed],
        pa.struct({"count": pa.int32(), "too_high": pa.bool_()}),
    )
    told = columns["metadata"].to_pylist()
    for number, one in enumerate(told):
        one["last_model"] = model or last_model(device.version)
        one["elapsed"] = [400_000, number * 1_000_000 + 600_000]
    columns["metadata"] = pa.array(told, rows.METADATA)
    return pa.table(columns)


def last_model(version: PipelineVersion) -> str:
    """As an engine writes it for the version's only model."""
    reference = version.definition["steps"][0]["ModelInference"]["models"][0]
    model = ModelVersion.objects.get(uuid=reference["version"])
    return json.dumps({"model_name": model.model.name, "model_sha": model.sha256})


class Shipper:
    """Ships tables one after the other, as the edge's engine numbers them."""

    def __init__(self, device: Device) -> None:
        self.device, self.next = device, 1

    def ship(self, data: pa.Table) -> None:
        answer = self.device.ship(rows.stream(data), first=self.next)
        assert answer.status_code == 200, answer.content
        self.next += len(data)

    def run(self, begin: int, count: int, *, apart: int = 1000, outputs: Any = None, **changes: Any) -> np.ndarray:
        """Ships `count` rows from `begin` (epoch ms), `apart` ms apart, and answers their outputs."""
        values = np.arange(count, dtype=float) if outputs is None else np.asarray(outputs)
        self.ship(table(self.device, range(begin, begin + count * apart, apart), values, **changes))
        return values
