"""Plants of random flowsheets: tanks, heaters, reactors, exchangers, filters, belts and pipes under PI loops."""
