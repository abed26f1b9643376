"""The budget of human labels: how many pairs each session may ask about."""

from __future__ import annotations

from prefvlm_core.config.groups import FeedbackConfig


class Budget:
    """Counts the human labels of one run against its budget.

    `spent` counts pairs that the human has answered or skipped, `waiting` pairs that may still be answered in a later
    session; both count against the budget.
    """

    def __init__(self, config: FeedbackConfig) -> None:
        self.config = config
        self.spent = 0
        self.waiting = 0

    def queries(self, sessions: int) -> int:
        """Number of pairs about which the next session may ask, after `sessions` earlier ones."""
        first, later = self.config.first_session_queries, self.config.session_queries
        used = self.spent + self.waiting
        wanted = first + sessions * later - used if self.config.carry_over else later if sessions else first
        return min(wanted, self.config.budget - used)

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
