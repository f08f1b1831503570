"""The dream as a world: M steps, V draws, and whatever plays Gymnasium environments can play it.

    import wm.gym  # registers it
    gymnasium.make("wm/Dream-v0", model="runs/take_cover", tau=1.15)
    gymnasium.make_vec("wm/Dream-v0", num_envs=64, model="runs/take_cover", tau=1.15)

An episode is a function of its seed and the actions, and has the luck that `wm.dream.engine.Dream` gives the same
seed. `Dream` is the fast way to score controllers; here everything is said plainly, for any number of dreams
side by side. B environments, Z latent, H hidden, A action.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from wm import worlds
from wm.core import files, weights
from wm.dream.engine import NOISE_STEPS, DreamNoise, DreamRules, default_reward, load_starts
from wm.dream.step import LEAST_SURVIVAL
from wm.models.mdnrnn import draw, expectation, load_mdnrnn
from wm.models.vae import load_vae
from wm.worlds.base import FRAME_SHAPE, Policy, World, symexp

OBSERVATIONS = ("features", "frame")
RENDER_MODES = ("rgb_array",)


class Dreams:
    """B dreams of a saved model, side by side.

    Args:
        model: folder of a model: runs/NAME, or pretrained/NAME.
        tau: temperature.
        count: B.
        observation: "features" for what C reads of z, and h, float32 [Z + H], or "frame" for V's decoding, uint8
            [64, 64, 3].
        render_mode: None, or "rgb_array" for V's decoding.
        max_steps: steps after which an episode is truncated; None is the real world's number.
        reward: "head" or "survival", as in `Dream`; None is the head where M has one.
        ends: when a dream ends: "threshold", "drawn" or "expected", as in `wm.dream.engine`.
        reads: what C reads of z: "sample" or "mean".
    Raises:
        ValueError: an argument is impossible.
        DamagedData: the model is not whole.
    """

    def __init__(
        self,
        model: str | Path,
        tau: float,
        count: int,
        observation: str,
        render_mode: str | None,
        max_steps: int | None,
        reward: str | None,
        ends: str = "drawn",
        reads: str = "sample",
    ):
        if observation not in OBSERVATIONS:
            raise ValueError(f"unknown observation {observation!r}: expected {' or '.join(OBSERVATIONS)}")
        if render_mode not in (None, *RENDER_MODES):
            raise ValueError(f"unknown render mode {render_mode!r} of a dream: expected 'rgb_array'")
        folder = Path(model)
        self.mdnrnn, self.starts = load_mdnrnn(_at(folder, "train_mdn")), load_starts(_at(folder, "train_mdn"))
        draws = observation == "frame" or render_mode is not None
        self.vae = load_vae(_at(folder, "train_vae")) if draws else None
        about = files.read_record(_at(folder, "train_mdn") / f"{weights.MDNRNN_KIND}.json")
        self.world = worlds.get(about["world"])
        self.reward = default_reward(self.mdnrnn, reward)
        self.tau, self.observation, self.render_mode = float(tau), observation, render_mode
        limit = self.world.spec.max_steps if max_steps is None else max_steps
        self.rules, self.max_steps = DreamRules(self.tau, limit, reward, ends, reads), limit
        self.low, self.high = self.world.action_bounds
        self.luck: list[DreamNoise | None] = [None] * count
        self.noise = np.zeros((count, NOISE_STEPS, 2, self.mdnrnn.z_size), np.float32)
        self.steps = np.zeros(count, np.int64)
        self.luck_of_ends = np.zeros((count, NOISE_STEPS), np.float32)
        self.survival = torch.ones(count)
        self.z = self.seen = torch.zeros(count, self.mdnrnn.z_size)
        if reads == "mean":
            self.seen = self.z.clone()
        self.h, self.c = self.mdnrnn.initial_state(count)

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        """Of one dream."""
        if self.observation == "frame":
            return gymnasium.spaces.Box(0, 255, FRAME_SHAPE, np.uint8)
        return gymnasium.spaces.Box(-np.inf, np.inf, (self.z.shape[1] + self.h.shape[1],), np.float32)

    @property
    def action_space(self) -> gymnasium.spaces.Box:
        """Of one dream: the real world's."""
        return gymnasium.spaces.Box(self.low, self.high, dtype=np.float32)

    def metadata(self) -> dict[str, Any]:
        """Gymnasium's, with the real world's frames a second."""
        return {"render_modes": list(RENDER_MODES), "render_fps": self.world.spec.fps}

    @torch.inference_mode()
    def begin(self, slot: int, seed: int) -> None:
        """A new dream in `slot`, from a stored first frame; the LSTM's state is zero."""
        self.luck[slot] = DreamNoise(seed, self.mdnrnn.z_size)
        if self.rules.reads == "mean":
            self.seen[slot] = self.luck[slot].mean(self.starts[0])
        self.z[slot], self.steps[slot], self.survival[slot] = self.luck[slot].start(*self.starts), 0, 1.0
        self.h[slot], self.c[slot] = 0.0, 0.0

    @torch.inference_mode()
    def step(self, acts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Dreams a step with acts [B, A], clipped to the action space -> rew [B] float64, end [B], trunc [B].

        Raises:
            ValueError: an action is not finite, or has another shape.
        """
        acts, shape = np.asarray(acts, np.float32), (len(self.z), len(self.low))
        if acts.shape != shape or not np.isfinite(acts).all():
            raise ValueError(f"actions {acts} of a dream: expected finite numbers, shape {shape}")
        act = torch.from_numpy(np.clip(acts, self.low, self.high))
        restart = torch.from_numpy(self.steps == 0)
        self.h, self.c = self.mdnrnn.step(self.z, act, (self.h, self.c), restart)
        mixture, reward, done = self.mdnrnn.heads(self.h)
        uniform, eps, luck = self._luck()
        self.z = self.seen = draw(mixture, self.tau, uniform, eps)
        if self.rules.reads == "mean":
            self.seen = expectation(mixture, self.tau)
        self.steps += 1
        if self.reward == "survival":
            rew = np.ones(len(acts))
        else:
            rew = (symexp(reward) if self.world.spec.symlog_rewards else reward).double().numpy()
        if self.rules.ends == "expected":
            rew = rew * self.survival.numpy()
        end = np.zeros(len(acts), bool) if done is None else self._ends(done, luck).numpy()
        return rew, end, self.steps >= self.max_steps

    def _ends(self, done: torch.Tensor, luck: torch.Tensor) -> torch.Tensor:
        """Which dreams end, [B], from M's logits and a uniform number each."""
        if self.rules.ends == "threshold":
            return done > 0
        end = torch.sigmoid(done - self.mdnrnn.end_shift)
        if self.rules.ends == "drawn":
            return luck < end
        self.survival = self.survival * (1 - end)
        return self.survival < LEAST_SURVIVAL

    def _luck(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of this step the uniform and the normal numbers, each [B, Z], and those of ends, [B]."""
        at = self.steps % NOISE_STEPS
        for slot in np.flatnonzero(at == 0):
            index = int(self.steps[slot]) // NOISE_STEPS
            self.noise[slot], self.luck_of_ends[slot] = self.luck[slot].block(index), self.luck[slot].ends(index)
        now = np.arange(len(at)), at
        return *torch.from_numpy(self.noise[now]).unbind(1), torch.from_numpy(self.luck_of_ends[now])

    def observe(self) -> np.ndarray:
        """What the environments show now, [B, ...] of the observation space."""
        return self.frames() if self.observation == "frame" else torch.cat([self.seen, self.h], dim=1).numpy()

    @torch.inference_mode()
    def frames(self) -> np.ndarray:
        """V's decoding of each z, uint8 [B, 64, 64, 3]."""
        return self.vae.decode(self.z).contiguous().numpy()


class DreamEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One dream. Arguments, observations and errors are those of `Dreams`; actions are the real world's.

    Terminated by the rule `ends` (never where M has no done head), truncated after `max_steps`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": list(RENDER_MODES), "render_fps": 50}

    def __init__(
        self,
        model: str | Path,
        tau: float = 1.0,
        observation: str = "features",
        render_mode: str | None = None,
        max_steps: int | None = None,
        reward: str | None = None,
        ends: str = "drawn",
        reads: str = "sample",
    ):
        self.dreams = Dreams(model, tau, 1, observation, render_mode, max_steps, reward, ends, reads)
        self.metadata = self.dreams.metadata()  # type: ignore[misc]  # of the class for Gymnasium, of this for a film
        self.render_mode = render_mode
        self.observation_space, self.action_space = self.dreams.observation_space, self.dreams.action_space
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts the episode `seed`; without a seed, the next one that the last seed leads to."""
        super().reset(seed=seed)
        self.dreams.begin(0, seed if seed is not None else _next_seed(self.np_random))
        self._running = True
        return self.dreams.observe()[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Dreams one step.

        Raises:
            ValueError: the action is not finite, or has another shape.
            ResetNeeded: no episode is under way.
        """
        if not self._running:
            raise gymnasium.error.ResetNeeded("dream: no episode is under way, call reset first")
        rew, end, trunc = self.dreams.step(np.asarray(action)[None])
        self._running = not (end[0] or trunc[0])
        return self.dreams.observe()[0], float(rew[0]), bool(end[0]), bool(trunc[0]), {}

    def render(self) -> np.ndarray | None:
        """V's decoding, uint8 [64, 64, 3], in render mode "rgb_array"."""
        return None if self.render_mode is None else self.dreams.frames()[0]


class DreamVectorEnv(gymnasium.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` dreams in one batch; other arguments as `DreamEnv`.

    An episode that ends is followed at once by the next one, in the same step (`AutoresetMode.SAME_STEP`), so
    that every step of every slot is experience: the last observation is in `infos["final_obs"]`, where
    `infos["_final_obs"]` holds.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": list(RENDER_MODES),
        "render_fps": 50,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        *,
        model: str | Path,
        tau: float = 1.0,
        observation: str = "features",
        render_mode: str | None = None,
        max_steps: int | None = None,
        reward: str | None = None,
        ends: str = "drawn",
        reads: str = "sample",
    ):
        if num_envs < 1:
            raise ValueError(f"num_envs must be 1 or more, not {num_envs}")
        self.dreams = Dreams(model, tau, num_envs, observation, render_mode, max_steps, reward, ends, reads)
        self.metadata = {**type(self).metadata, **self.dreams.metadata()}  # type: ignore[misc]  # as above
        self.num_envs, self.render_mode = num_envs, render_mode
        self.single_observation_space = self.dreams.observation_space
        self.single_action_space = self.dreams.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._seeds: list[np.random.Generator] | None = None
        self._running = False

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts every slot anew: slot i with episode seed[i], or seed + i, or the next of its generator."""
        if seed is None or isinstance(seed, int | np.integer):
            seed = [None if seed is None else seed + slot for slot in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"{len(seed)} seeds for {self.num_envs} dreams: expected one each")
        self._seeds = self._seeds or [np.random.default_rng() for _ in range(self.num_envs)]
        for slot, number in enumerate(seed):
            if number is not None:
                self._seeds[slot] = np.random.default_rng(number)
            self.dreams.begin(slot, _next_seed(self._seeds[slot]) if number is None else number)
        self._running = True
        return self.dreams.observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Dreams one step in every slot. Raises as `DreamEnv.step`."""
        if not self._running:
            raise gymnasium.error.ResetNeeded("dream: no episode is under way, call reset first")
        rew, end, trunc = self.dreams.step(actions)
        obs = self.dreams.observe()
        infos: dict[str, Any] = {}
        if (over := np.flatnonzero(end | trunc)).size:
            for slot in over:
                infos = self._add_info(infos, {"final_obs": obs[slot], "final_info": {}}, slot)
                self.dreams.begin(slot, _next_seed(self._seeds[slot]))
            obs = self.dreams.observe()
        return obs, rew, end, trunc, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """V's decodings, uint8 [64, 64, 3] each, in render mode "rgb_array"."""
        return None if self.render_mode is None else tuple(self.dreams.frames())


def rules_of(about: Mapping[str, Any]) -> dict[str, str]:
    """`reads` and `ends` of the dreams that an agent was evolved for, by its controller.json.

    Where their ends were expected, "drawn": a dream to be looked at is one of those whose expectation that was.
    """
    ends = about.get("ends", "threshold")  # without the key: an agent made when this was the only rule
    return {"reads": "sample" if about["sampled"] else "mean", "ends": ends if ends == "threshold" else "drawn"}


def _at(model: Path, stage: str) -> Path:
    """Where a stage's files lie: runs/NAME has a folder a stage, pretrained/NAME has all in one, or names another."""
    model = weights.packaged(model)
    if (model / stage).is_dir():
        return model / stage
    made = files.read_record(model / "made.json") if (model / "made.json").exists() else {}
    return model.parent / made["models"]["from"] if "models" in made else model


class DreamWorld(World):
    """A model's dream with the interface of the world that it was learned from: its actions, V's frames."""

    def __init__(self, model: str | Path, tau: float = 1.0, max_steps: int | None = None):
        about = files.read_record(_at(Path(model), "train_mdn") / f"{weights.MDNRNN_KIND}.json")
        self.real, self.model, self.tau = worlds.get(about["world"]), Path(model), tau
        spec = self.real.spec
        self.spec = dataclasses.replace(
            spec, name=f"{spec.name}_dream", drawings=("decoded",), max_steps=max_steps or spec.max_steps
        )

    def make(self, drawing: str | None = None) -> DreamEnv:
        if drawing not in (None, *self.spec.drawings):
            raise ValueError(f"unknown drawing {drawing!r} of a dream: expected {self.spec.drawings[0]}")
        return DreamEnv(self.model, self.tau, "frame", "rgb_array", self.spec.max_steps)

    def squash(self, out: np.ndarray) -> np.ndarray:
        return self.real.squash(out)

    def explorer(self, rng: np.random.Generator, **options: float) -> Policy:
        return self.real.explorer(rng, **options)

    @property
    def action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return self.real.action_bounds


def _next_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
