"""Labels from people: the queue of pairs, clips, the teacher that asks, and the widget that answers."""
