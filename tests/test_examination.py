"""What the licence is told of actions from elsewhere: their price where it is highest, as far as plans look ahead."""

import numpy as np

from fusion.training.examination import price
from models.actions import HORIZONS


def test_the_price_of_shuffled_actions_is_that_of_the_horizon_where_they_matter_most():
    own, shuffled = np.full((len(HORIZONS), 2), 0.4), np.full((len(HORIZONS), 2), 0.4)
    shuffled[HORIZONS.index(32), 0] = 0.6
    shuffled[HORIZONS.index(256), 1] = 0.8
    np.testing.assert_allclose(price(own, shuffled, 1.0), [1.5, 2.0])
    np.testing.assert_allclose(price(own, shuffled, 60.0), [1.5, 1.0])  # where plans end after an hour
