"""Named settings of training runs."""

from __future__ import annotations

import pytest

from hetseg_bids.config import RECIPE_NAMES
from hetseg_bids.training.recipes import RECIPES, paper_recipe


def test_the_command_line_offers_every_recipe():
    assert set(RECIPES) == set(RECIPE_NAMES)


def test_the_paper_recipe_has_the_numbers_of_the_paper():
    recipe = paper_recipe("label-flip")
    assert (recipe.sampling.patch, recipe.batch, recipe.steps) == ((196, 196), 2, 520 * 2000)
    rates = [recipe.schedule.rate(step, recipe.steps) for step in (0, 1000, 1999, 2000)]
    assert rates == pytest.approx([1e-4, 5.005e-5, 1e-7, 1e-4], rel=1e-3)
    assert recipe.plain_share * 520 == pytest.approx(20)
