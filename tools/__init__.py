"""Tools of the repository: what is run on commits of it, not on a world. Nothing of `wm` or `flows` imports them."""
