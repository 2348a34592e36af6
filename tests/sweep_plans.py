"""The sweep of the tests: one mini, three methods, four prompts."""

from typing import Any

PLAN: dict[str, Any] = {
    "models": ["nano-infinity"],
    "specs": ["truncate:last=1", "cfg-off:last=2", "sparsevar:keep=0.49"],
    "prompts": [{"set": "scenes", "n": 4}],
    "seeds": [3],
    "shard": 2,
}
