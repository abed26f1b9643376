"""How long the properties are searched: briefly with all tests, the same examples each time; long by `make fuzz`."""

from hypothesis import HealthCheck, settings

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}

settings.register_profile("brief", max_examples=60, derandomize=True, database=None, **COMMON)
settings.register_profile("long", max_examples=5_000, print_blob=True, **COMMON)
settings.load_profile("brief")  # --hypothesis-profile=long comes after
