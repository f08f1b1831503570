"""The worlds and the dream as Gymnasium environments, one or several at once: `import wm.gym` registers them.

    import wm.gym
    gymnasium.make("wm/Dream-v0", model="runs/take_cover", tau=1.15)
    gymnasium.make_vec("wm/CarRacing-v0", num_envs=8)
    gymnasium.make("wm/CarRacing96-v3", continuous=False)  # Gymnasium's, 96x96, drawn fast

`gymnasium.make("wm.gym:wm/Dream-v0", …)` imports this module by itself. (Gymnasium reads no entry points since 1.0.) An
environment's own module is imported when the environment is made.
"""

from gymnasium import register

register(
    "wm/CarRacing-v0",
    entry_point="wm.worlds.car_racing.world:FastCarRacing",
    vector_entry_point="wm.gym.vector:car_racing",
    max_episode_steps=1000,
)
register(
    "wm/CarRacing96-v3",
    entry_point="wm.gym.car_racing:CarRacing",
    vector_entry_point="wm.gym.vector:car_racing_96",
    max_episode_steps=1000,
    reward_threshold=900,
)
register(
    "wm/TakeCover-v0",
    entry_point="wm.worlds.take_cover.world:TakeCoverEnv",
    vector_entry_point="wm.gym.vector:take_cover",
    max_episode_steps=2100,
)
register("wm/Dream-v0", entry_point="wm.gym.dream:DreamEnv", vector_entry_point="wm.gym.dream:DreamVectorEnv")
