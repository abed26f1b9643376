"""The view of a run: what its config says of it is what is drawn, and each seed draws its own."""

import dataclasses

from prefvlm_core.config.view import ViewConfig
from prefvlm_core.domains.perturbations import CLEAN, INTENSITIES, MOST, Perturbation


def test_a_view_has_the_fields_and_the_bounds_of_a_perturbation() -> None:
    fields = {field.name: field for field in dataclasses.fields(ViewConfig)}
    assert list(fields) == [field.name for field in dataclasses.fields(Perturbation)]
    for name in INTENSITIES:
        assert fields[name].default == 0
        assert fields[name].metadata == {"per_run": False, "least": 0, "exclusive": False, "most": MOST[name]}


def test_runs_see_what_their_config_says_and_each_seed_draws_its_own() -> None:
    view = ViewConfig(noise=20.0, occluder=0.2)
    first, again, other = (view.perturbation(seed) for seed in (200, 200, 201))
    assert (first.noise, first.occluder, first.light) == (20.0, 0.2, 0.0)
    assert first == again and first.seed != other.seed
    assert dataclasses.replace(view, seed=1).perturbation(200).seed not in (first.seed, other.seed)


def test_undisturbed_runs_see_the_same_whatever_their_seeds() -> None:
    assert {ViewConfig(seed=draw).perturbation(seed) for draw in (0, 1) for seed in (0, 1)} == {CLEAN}
