"""How a model behind an endpoint may be asked: the part of `Execution` that limits time, pace and cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config import fields


@dataclass(frozen=True, kw_only=True)
class EndpointLimits:
    """Limits for `vlm.model` endpoint:<name>. The endpoint's address is in the environment variable PREFVLM_ENDPOINT,
    its key in PREFVLM_API_KEY."""

    vlm_timeout: float = 120.0
    """Seconds that one request to an endpoint may take."""
    vlm_parallel: int = 4
    """Number of requests to an endpoint at the same time."""
    vlm_per_minute: float = math.inf
    """Number of requests to an endpoint per minute at most (inf: no limit)."""
    vlm_max_requests: int = 0
    """Requests to an endpoint that a run may need in all, those answered from the cache included; training stops there,
    and goes on with a higher limit (0: no limit)."""
    vlm_max_tokens: int = 0
    """The same for tokens, of questions and answers together (0: no limit)."""

    def check_endpoint_limits(self) -> None:
        """Raise `PrefVLMError` for a limit that is not allowed."""
        fields.check_number("vlm_timeout", self.vlm_timeout, most=86_400, exclusive=True)
        fields.check_number("vlm_parallel", self.vlm_parallel, least=1, most=256)
        for name in ("vlm_max_requests", "vlm_max_tokens"):
            fields.check_number(name, getattr(self, name))
        if not self.vlm_per_minute > 0:
            raise PrefVLMError(f"vlm_per_minute must be above 0, got {self.vlm_per_minute}.")
