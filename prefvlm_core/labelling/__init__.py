"""People label pairs: queue, clips, teacher, widget."""
