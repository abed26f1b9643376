"""Training TinyLIV from scratch, and the recorded episodes on which models are judged."""
