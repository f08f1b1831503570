"""V, M and C together for a batch of episodes: frames in, actions out (paper, section 2.4's rollout).

Shapes: B batch (an episode each), Z latent, H hidden, A action, P parameters of a controller.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm import worlds
from wm.core import weights
from wm.models.controller import ControllerSpec, Layout, load_controller
from wm.models.mdnrnn import MDNRNN, load_mdnrnn
from wm.models.vae import VAE, load_vae
from wm.worlds.base import World

NOISE_BLOCK = 64
"""Steps of an episode whose noise is drawn at once."""


class PosteriorNoise:
    """The numbers that make z a sample: standard normal [steps, Z], a function of the episode's seed alone."""

    def __init__(self, seed: int, size: int):
        self._rng = np.random.Generator(np.random.Philox(key=[seed, 0x5A]))
        self._size, self._block, self._next = size, np.empty((0, size), np.float32), 0

    def draw(self) -> np.ndarray:
        """The next [Z] numbers."""
        if self._next == len(self._block):
            self._block = self._rng.standard_normal((NOISE_BLOCK, self._size), np.float32)
            self._next = 0
        self._next += 1
        return self._block[self._next - 1]


@dataclass(frozen=True, kw_only=True)
class Agent:
    """The three models, wired.

    Attributes:
        vae, mdnrnn: V and M in evaluation mode.
        world: whose actions C's outputs become.
        layout: how a flat vector is read as C.
        inputs: which states C reads, e.g. ("z", "h").
    """

    vae: VAE
    mdnrnn: MDNRNN
    world: World
    layout: Layout
    inputs: tuple[str, ...]

    @property
    def needs_memory(self) -> bool:
        """Whether C reads M's state at all; without it M need not run."""
        return any(name in ("h", "c") for name in self.inputs)

    def initial_state(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """h, c: zeros [B, H] float32."""
        shape = (batch, self.mdnrnn.config.hidden)
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    @torch.inference_mode()
    def see(self, obs: np.ndarray, eps: np.ndarray | None) -> np.ndarray:
        """V: obs [B, 64, 64, 3] uint8 -> z [B, Z]: mu + sigma * eps, or mu where eps is None."""
        mu, logvar = self.vae.encode(torch.from_numpy(obs))
        z = mu if eps is None else mu + (0.5 * logvar).exp() * torch.from_numpy(eps)
        return z.numpy()

    def decide(self, params: np.ndarray, z: np.ndarray, h: np.ndarray, c: np.ndarray) -> np.ndarray:
        """C: params [B, P] and states -> raw outputs [B, A], which the world's `squash` makes actions of; NaN where
        params are."""
        states = {"z": z, "h": h, "c": c}
        return self.layout.apply(params, np.concatenate([states[name] for name in self.inputs], axis=1))

    def act(self, params: np.ndarray, z: np.ndarray, h: np.ndarray, c: np.ndarray) -> np.ndarray:
        """C: params [B, P] and states -> actions [B, A] in the world's action space; NaN where params are."""
        return self.world.squash(self.decide(params, z, h, c))

    @torch.inference_mode()
    def remember(
        self, z: np.ndarray, act: np.ndarray, h: np.ndarray, c: np.ndarray, restart: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """M: z [B, Z], act [B, A], (h, c) [B, H], restart [B] (1 at an episode's first frame) -> the next (h, c)."""
        arrays = [torch.from_numpy(array) for array in (z, act, h, c, restart)]
        h_next, c_next = self.mdnrnn.step(arrays[0], arrays[1], (arrays[2], arrays[3]), arrays[4])
        return h_next.numpy(), c_next.numpy()


def layout(world: World, mdnrnn: MDNRNN, inputs: tuple[str, ...], hidden: int = 0) -> Layout:
    """The controller's layout for a world and the states it reads; `hidden` tanh units between (paper's ablation)."""
    sizes = {"z": mdnrnn.z_size, "h": mdnrnn.config.hidden, "c": mdnrnn.config.hidden}
    return Layout(
        inputs=sum(sizes[name] for name in inputs),
        actions=world.spec.action_size,
        bias=world.spec.controller_bias,
        hidden=hidden,
    )


def controller_spec(world: World, mdnrnn: MDNRNN, inputs: Sequence[str] | None, hidden: int = 0) -> ControllerSpec:
    """The controllers that read `inputs` (None: the world's own choice), with as many hidden units."""
    chosen = tuple(inputs or world.spec.controller_inputs)
    return ControllerSpec(chosen, layout(world, mdnrnn, chosen, hidden))


def save(agent_vae: Path, agent_mdnrnn: Path, folder: Path, latents: Path | None = None) -> None:
    """Copies V's and M's files beside C's, so that `folder` is a whole agent; and what surprises them, which models
    made by an earlier version do not know.

    Args:
        latents: the folder that `encode` wrote, where what surprises V is.
    Raises:
        DamagedData: a file is missing or not what its checksum says.
    """
    references = ((latents, weights.SURPRISE_V_KIND), (agent_mdnrnn, weights.SURPRISE_M_KIND))
    known = [(source, kind) for source, kind in references if source and weights.exists(source, kind)]
    for source, kind in ((agent_vae, weights.VAE_KIND), (agent_mdnrnn, weights.MDNRNN_KIND), *known):
        weights.load(source, kind)
        for name in (f"{kind}.safetensors", f"{kind}.json"):
            shutil.copyfile(Path(source) / name, Path(folder) / name)


def load(folder: Path) -> tuple[Agent, np.ndarray, dict[str, Any]]:
    """A whole agent from its folder: the agent, its controller's parameters [P], and what controller.json says.

    Raises:
        DamagedData: a file is missing or not what its checksum says.
    """
    params, controller_layout, about = load_controller(folder)
    agent = Agent(
        vae=load_vae(folder),
        mdnrnn=load_mdnrnn(folder),
        world=worlds.get(about["world"]),
        layout=controller_layout,
        inputs=tuple(about["inputs"]),
    )
    return agent, params, about


@dataclass(frozen=True)
class AgentFiles:
    """An agent's files as bytes, to be sent to a worker that may not see our disk, and unpacked there once."""

    content: dict[str, bytes]
    digest: str

    @classmethod
    def read(cls, folder: Path) -> AgentFiles:
        """The agent in `folder`; a missing file is left out (an agent without a controller yet)."""
        kinds = (weights.VAE_KIND, weights.MDNRNN_KIND, weights.CONTROLLER_KIND)
        names = [f"{kind}.{end}" for kind in kinds for end in ("safetensors", "json")]
        content = {name: (Path(folder) / name).read_bytes() for name in names if (Path(folder) / name).exists()}
        digests = [f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in sorted(content.items())]
        return cls(content, hashlib.sha256("\n".join(digests).encode()).hexdigest())

    def same_models(self, other: AgentFiles) -> bool:
        """Whether V and M are those of another agent."""
        names = [f"{kind}.safetensors" for kind in (weights.VAE_KIND, weights.MDNRNN_KIND)]
        return all(self.content.get(name) == other.content.get(name) for name in names)

    def agent(self) -> tuple[Agent, np.ndarray, dict[str, Any]]:
        """As `load`."""
        return self._unpacked("agent", load)

    def models(self) -> tuple[VAE, MDNRNN]:
        """V and M alone."""
        return self._unpacked("models", lambda folder: (load_vae(folder), load_mdnrnn(folder)))

    def _unpacked(self, what: str, read: Callable[[Path], Any]) -> Any:
        if _UNPACKED.get("key") != (self.digest, what):
            with tempfile.TemporaryDirectory() as folder:
                for name, data in self.content.items():
                    (Path(folder) / name).write_bytes(data)
                _UNPACKED.update(key=(self.digest, what), value=read(Path(folder)))
        return _UNPACKED["value"]


_UNPACKED: dict[str, Any] = {}
"""What a process unpacked last, since its next job most likely needs the same."""
