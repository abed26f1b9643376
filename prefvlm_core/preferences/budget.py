"""The budget of human labels: how many pairs each session may ask about."""

from __future__ import annotations

from prefvlm_core.config.run import RunConfig


class Budget:
    """Counts the human labels of one run against its budget.

    `spent` counts pairs that the human has answered or skipped, `waiting` pairs that may still be answered in a later
    session; both count against the budget.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config.feedback
        self.later_sessions = (config.total_steps - 1 - config.first_session_step) // config.feedback.session_every
        self.spent = 0
        self.waiting = 0

    def queries(self, session: int) -> int:
        """Number of pairs about which session `session` (0: the first one) may ask."""
        budget, first, later = self.config.budget, self.config.first_session_queries, self.config.session_queries
        first, used = min(first, budget), self.spent + self.waiting
        if self.config.schedule == "even":
            return max(0, first + session * (budget - first) // max(1, self.later_sessions) - used)
        return max(0, min(later if session else first, budget - used))

    def spend(self, answered_or_skipped: int, waiting: int) -> None:
        """Add the pairs that were answered or skipped in a session, and set how many are left open after it."""
        self.spent += answered_or_skipped
        self.waiting = waiting

    def values(self) -> dict[str, int]:
        """The counts, for a checkpoint."""
        return {"spent": self.spent, "waiting": self.waiting}

    def restore(self, values: dict[str, int]) -> None:
        """Inverse of `values`."""
        self.spent, self.waiting = values["spent"], values["waiting"]
