"""What every room uses: errors, seeds, time, memory."""
