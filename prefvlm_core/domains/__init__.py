"""The worlds in which agents act: tasks, environments, their worker processes, experts and rendered frames."""
