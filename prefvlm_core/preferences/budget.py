"""The human's budget: how many pairs may still be asked, session by session."""

from __future__ import annotations

from prefvlm_core.config.groups import FeedbackConfig


class Budget:
    """The human labels of one run, spent and left.

    `spent` counts pairs that the human has answered or skipped, `waiting` those that may still be answered in a later
    session; both count against the budget.
    """

    def __init__(self, config: FeedbackConfig) -> None:
        self.config = config
        self.spent = 0
        self.waiting = 0

    def queries(self, first_session: bool) -> int:
        """Pairs that a session may ask."""
        wanted = self.config.first_session_queries if first_session else self.config.session_queries
        return min(wanted, self.config.budget - self.spent - self.waiting)

    def spend(self, looked_at: int, waiting: int) -> None:
        """Count the pairs that a session's answers cover, and those that are left open."""
        self.spent += looked_at
        self.waiting = waiting

    def values(self) -> dict[str, int]:
        """What a checkpoint needs."""
        return {"spent": self.spent, "waiting": self.waiting}

    def restore(self, values: dict[str, int]) -> None:
        """Inverse of `values`."""
        self.spent, self.waiting = values["spent"], values["waiting"]
