"""Is the data sound that V and M learn from? Checks of episodes: verdicts, figures, the episodes concerned.

`collect` measures every episode when it is played (`measures`), judges the set when it is whole (`judge`), and writes
`checks.json` beside the shards; for recordings of other origin `wm.stages.collect.check` does the same. `train_vae`
asks `verdicts.require`.
"""
