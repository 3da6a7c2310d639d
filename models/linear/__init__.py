"""The linear core: canonical variates and ridge readouts in closed form."""
