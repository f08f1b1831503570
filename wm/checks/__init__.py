"""Is the data sound that V and M learn from? Checks of episodes, each with a verdict, a figure and the episodes concerned.

`collect` measures every episode when it is played (`measures`), judges the set when it is whole (`judge`), and writes
`checks.json` beside the shards; whoever imports recordings calls `check_set`. `train_vae` asks `verdicts.require`.
"""
