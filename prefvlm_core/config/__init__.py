"""What a run is: its config, the groups of fields, the profiles."""
