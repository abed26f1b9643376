"""Preference data that leaves and joins: clips, pairs and labels as tables, in a folder or as a LeRobot dataset."""
