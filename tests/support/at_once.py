"""`autoscaling.behavior` of pools that shrink as fast as their Pods fall idle: most tests are not about how fast."""

from typing import Any

AT_ONCE: dict[str, Any] = {"scaleDown": {"policies": [{"type": "Pods", "value": 10000, "periodSeconds": 1}]}}
