"""Numbers from stored runs: statistics, label quality, the sanity check, reports."""
