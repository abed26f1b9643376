"""What every room uses: errors, array types, registries, random streams, timing and memory settings."""
