"""How TinyLIV is trained from nothing."""
