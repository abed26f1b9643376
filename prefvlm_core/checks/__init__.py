"""What is checked before a training begins, so that a mistake leaves nothing on the disk."""
