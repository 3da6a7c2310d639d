"""What plants' historians export, read into one shape of rows; one format each in its own file."""
