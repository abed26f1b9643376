"""The configuration of a run: its groups of fields, the profiles, and how stored configs are read."""
