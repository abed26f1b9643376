"""The worlds that agents act in: environments, their worker processes, the frames they can draw."""
