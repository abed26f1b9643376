"""Which runs answer which question, and the batch that trains and draws them."""
