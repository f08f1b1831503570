"""Any Gymnasium environment as a world, by its id."""
