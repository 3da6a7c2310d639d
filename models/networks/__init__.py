"""Networks: the JEPA that adds to the linear core."""
