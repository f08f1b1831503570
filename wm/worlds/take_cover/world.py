"""TakeCover: monsters at the far wall throw fireballs; the agent lives by stepping aside (paper, section 4).

VizDoom's packaged scenario, skill 4, HUD on, no frame skip, 2100 tics of 1/35 s.

Doom draws at 160x120, for training and for final scores: once scaled to 64x64, the frames differ from those
of 640x480 (the paper's) by 3.9 of 255 on average, those of 320x240 by 3.8, so the middle way buys nothing;
640x480 takes 9 times as long. The price is flicker: pixels change by 4.1 a tic, at 640x480 by 2.6. The game
itself is the same at each (bench/take_cover.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import gymnasium
import numpy as np

from wm.core.errors import UserError
from wm.worlds.base import FRAME_SHAPE, Array, Description, Policy, Spec, World, tanh
from wm.worlds.take_cover.doom import Game, GameDied

if TYPE_CHECKING:
    import vizdoom

MAX_TICS = 2100
SKILL = 4
THRESHOLD = 1 / 3
"""The action's middle third means: stay."""

HOLDS = (10, 20, 40, 80, 160, 320)
"""Steps for which a random action is held at most: from a restless policy to one that runs to a wall and stays."""

_STAY, _LEFT, _RIGHT = [0, 0], [1, 0], [0, 1]  # the scenario's buttons: MOVE_LEFT, MOVE_RIGHT
_RESOLUTIONS = ("160x120", "320x240", "640x480")


class TakeCover(World):
    """The world `take_cover`."""

    spec = Spec(
        name="take_cover",
        action_size=1,
        max_steps=MAX_TICS,
        drawings=_RESOLUTIONS[:1],
        controller_inputs=("z", "c", "h"),
        controller_bias=False,
        predicts_restart=True,
        solved=750,
        fps=35,
        rewards=(1.0, 1.0),
        scores=(1.0, float(MAX_TICS)),
        still=9,  # of the 8 while the weapon is raised, and the tic of a death: after that Doom never draws one twice
        steady=True,
    )

    def make(self, drawing: str | None = None) -> TakeCoverEnv:
        if drawing not in (None, *self.spec.drawings):
            known = " or ".join(self.spec.drawings)
            raise ValueError(f"unknown drawing {drawing!r} of take_cover: expected {known}")
        return TakeCoverEnv(render_mode="rgb_array")

    @property
    def description(self) -> Description:
        """The scenario's pictures are Freedoom's."""
        return Description(
            title="Doom's Take Cover",
            picture={"environment": "VizDoom take_cover", "rows": [0, 100], "columns": [0, 160], "resize": "area"},
            actions=("step aside",),
            press=(1.0,),
            licence={
                "what": "Pictures of Doom's Take Cover",
                "licence": "Freedoom, © contributors to the Freedoom project, BSD 3-clause licence; the scenario is "
                "ViZDoom's, © its authors, MIT licence",
            },
        )

    def squash(self, out: Array) -> Array:
        """tanh, so that C's actions fill the range [-1, 1] of the random ones from which M learned."""
        return tanh(out)

    def explorer(  # type: ignore[override]  # its options by name: those of params.yaml
        self, rng: np.random.Generator, *, hold: int | None = None, lean: float | None = None
    ) -> Policy:
        """Actions uniform in [-1, 1] plus `lean`, clipped, each held for 1 to `hold` steps (uniform too).

        Without arguments an episode's temper is drawn first: `hold` from `HOLDS`, `lean` uniform in [-1, 1]. A policy
        with one temper for all (the paper's is near `hold=10, lean=0`) hardly ever stays at a wall, and a dream made of
        its episodes knows no harm there, which is the first thing that a search finds.

        Args:
            rng: all its randomness.
        Raises:
            ValueError: hold is not a whole number from 1 on.
        """
        hold = int(rng.choice(HOLDS)) if hold is None else hold
        lean = rng.uniform(-1, 1) if lean is None else lean
        if hold < 1 or hold != int(hold):
            raise ValueError(f"hold is {hold}: expected a whole number of steps, 1 or more")
        act, left = np.zeros(1, np.float32), 0

        def policy(obs: np.ndarray) -> np.ndarray:
            nonlocal act, left
            if left == 0:
                act = (rng.uniform(-1, 1, 1) + lean).clip(-1, 1).astype(np.float32)
                left = int(rng.integers(1, int(hold) + 1))
            left -= 1
            return act.copy()

        return policy


class TakeCoverEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """Doom's frames above the status bar, at 64x64.

    Observation: uint8 [64, 64, 3], RGB. Action: float32 [1] in [-1, 1]; below -1/3 is a step left, above
    1/3 one to the right. Reward: 1 a tic, the last one included, so that an episode's score is its length.
    Terminated when the player dies: VizDoom shows no frame then, and that of the tic before is given again.
    Truncated after 2100.

    An episode is a function of its seed and its actions, bit by bit, whatever was played before and in
    whichever process. The engine starts at the first `reset` and is gone after `close`, or when this
    process is.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 35}

    def __init__(self, resolution: str = _RESOLUTIONS[0], render_mode: str | None = None) -> None:
        """
        Args:
            resolution: at which Doom draws: "160x120", "320x240" or "640x480". The game is the same at each.
            render_mode: None, or "rgb_array" for the whole screen.
        Raises:
            ValueError: resolution or render_mode is unknown.
        """
        if resolution not in _RESOLUTIONS:
            known = " or ".join(_RESOLUTIONS)
            raise ValueError(f"unknown resolution {resolution!r} of take_cover: expected {known}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render mode {render_mode!r} of take_cover: expected 'rgb_array'")
        self.resolution = resolution
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(0, 255, FRAME_SHAPE, np.uint8)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self._game: Game | None = None
        self._screen: np.ndarray | None = None  # [H, W, 3], of the last tic that was drawn
        self._tics: int | None = None  # None: reset comes next

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; without a seed, the next one of the generator that the last seed began.

        Raises:
            GameDied: the engine is dead; the next reset starts another.
        """
        super().reset(seed=seed)
        game_seed = int(self.np_random.integers(2**32, dtype=np.uint32))
        if self._game is None:
            self._game = Game(configure(self.resolution))
        self._game.doom.set_seed(game_seed)
        self._call("new_episode")
        self._screen = self._game.doom.get_state().screen_buffer
        self._tics = 0
        return self._frame(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Plays one tic.

        Raises:
            ValueError: the action is not one finite number.
            ResetNeeded: no episode is under way.
            GameDied: the engine died; `reset` starts another.
        """
        if self._tics is None:
            raise gymnasium.error.ResetNeeded("take_cover: no episode is under way, call reset first")
        self._call("make_action", buttons(action))
        self._tics += 1
        state = self._game.doom.get_state()
        end, trunc = state is None, self._tics >= MAX_TICS
        if not end:
            self._screen = state.screen_buffer
        if end or trunc:
            self._tics = None
        return self._frame(), 1.0, end, trunc, {}

    def render(self) -> np.ndarray | None:
        """The whole screen with its status bar, uint8 [H, W, 3], in render mode "rgb_array"."""
        return None if self.render_mode is None or self._screen is None else self._screen.copy()

    def close(self) -> None:
        """Ends the engine; a later `reset` starts another."""
        if self._game is not None:
            self._game.close()
        self._game = self._tics = None

    def _call(self, method: str, *args: list[int]) -> None:
        try:
            self._game.call(getattr(self._game.doom, method), *args)
        except GameDied:
            self.close()
            raise

    def _frame(self) -> np.ndarray:
        view = self._screen[: self._screen.shape[0] * 400 // 480]
        return cv2.resize(view, FRAME_SHAPE[1::-1], interpolation=cv2.INTER_AREA)


def buttons(action: np.ndarray) -> list[int]:
    """Which of the scenario's two buttons an action [1] presses.

    Raises:
        ValueError: it is not one finite number.
    """
    action = np.asarray(action)
    if action.shape != (1,) or not np.isfinite(action[0]):
        raise ValueError(f"action {action} of take_cover: expected one finite number, shape (1,)")
    return _LEFT if action[0] < -THRESHOLD else _RIGHT if action[0] > THRESHOLD else _STAY


def configure(resolution: str) -> vizdoom.DoomGame:
    """The scenario, not started; resolution as in `TakeCoverEnv`.

    Raises:
        UserError: the package with the game is not there.
    """
    try:
        import vizdoom
    except ImportError as error:
        raise UserError(
            f"take_cover is played with the package vizdoom ({error}): `python -m pip install 'world-models[doom]'`"
        ) from None

    doom = vizdoom.DoomGame()
    doom.load_config(str(Path(vizdoom.scenarios_path) / "take_cover.cfg"))
    doom.set_doom_skill(SKILL)
    doom.set_episode_timeout(0)  # TakeCoverEnv counts: VizDoom has no frame of the tic that ends an episode
    doom.set_screen_resolution(getattr(vizdoom.ScreenResolution, f"RES_{resolution.upper()}"))
    doom.set_screen_format(vizdoom.ScreenFormat.RGB24)
    doom.set_render_hud(True)
    doom.set_window_visible(False)
    doom.set_sound_enabled(False)
    return doom
