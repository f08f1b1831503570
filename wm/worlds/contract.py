"""The contract of a world, as one reusable test. Three lines test a new world:

    from wm.worlds.contract import check_world
    def test_contract():
        check_world(MyWorld())

What is checked is what `wm/worlds/base.py` promises and what rollouts, stages and drawings rely on. A broken
promise is an AssertionError with a sentence, so that any test runner can show it.

A action, T time.
"""

from __future__ import annotations

from itertools import count

import gymnasium
import numpy as np
import torch

from wm.core.errors import UserError
from wm.worlds.base import FRAME_SHAPE, World


def check_world(world: World, *, steps: int = 40, seed: int = 7) -> None:
    """Checks that `world` keeps the contract of `wm.worlds.base.World`.

    Args:
        world: what is tested.
        steps: length T of the short episodes on which drawings are compared (all of them).
        seed: of the episodes and of the explorer.
    Raises:
        AssertionError: it breaks a promise; says which.
    """
    check_spec(world)
    check_squash(world)
    check_explorer(world, seed)
    acts = explore(world, steps, seed)
    runs = [check_drawing(world, drawing, acts, seed) for drawing in world.spec.drawings]
    for drawing, run in zip(world.spec.drawings[1:], runs[1:], strict=True):
        assert run["dynamics"] == runs[0]["dynamics"], f"drawing {drawing!r} changes rewards or ends"
    env = world.make()
    assert env.reset(seed=seed)[0].tobytes() == runs[0]["obs"][0], "make() is not make(spec.drawings[0])"
    picture = env.render()
    env.close()
    assert isinstance(picture, np.ndarray) and picture.dtype == np.uint8, "make() renders nothing: films need pictures"
    assert picture.ndim == 3 and picture.shape[2] == 3, f"render() has shape {picture.shape}: expected [H, W, 3]"
    check_unknown_drawing(world)
    check_length(world, seed)


def check_spec(world: World) -> None:
    """The spec's fields are possible values; first of all, that anything is checked at all."""
    if not __debug__:
        raise UserError("Python leaves the checks of a world out here: unset PYTHONOPTIMIZE, and give it no -O")
    spec = world.spec
    assert spec.name and spec.name.isidentifier(), f"spec.name is {spec.name!r}: expected an identifier"
    assert spec.action_size >= 1 and spec.max_steps >= 1 and spec.fps >= 1, f"impossible spec {spec}"
    assert spec.drawings and len(set(spec.drawings)) == len(spec.drawings), f"bad drawings {spec.drawings}"
    inputs = spec.controller_inputs
    assert inputs and len(set(inputs)) == len(inputs), f"bad controller_inputs {inputs}"
    assert set(inputs) <= {"z", "h", "c"}, f"bad controller_inputs {inputs}"


def check_squash(world: World) -> None:
    """C's raw outputs of any shape [..., A] and any size land in the action space, row by row."""
    space, size = world.make().action_space, world.spec.action_size
    assert isinstance(space, gymnasium.spaces.Box), f"action space {space} is not a Box"
    assert space.shape == (size,), f"action space {space} is not ({size},)"
    assert space.dtype == np.float32, f"action space is {space.dtype}, not float32"
    low, high = world.action_bounds
    assert np.array_equal([low, high], [space.low, space.high]), f"action_bounds are not those of {space}"
    out = np.random.default_rng(0).normal(0, 3, (4, 5, size)).astype(np.float32)
    out[0, 0], out[0, 1], out[0, 2] = 1e6, -1e6, 0
    before, act = out.copy(), world.squash(out)
    assert act.shape == out.shape and act.dtype == np.float32, f"squash gave {act.dtype} {act.shape}"
    assert np.array_equal(out, before), "squash changes its argument"
    for row, expected in zip(out.reshape(-1, size), act.reshape(-1, size), strict=True):
        assert space.contains(expected), f"squash({row}) = {expected} is outside {space}"
        assert np.array_equal(world.squash(row), expected), "squash of a batch is not that of its rows"
    tensor = world.squash(torch.from_numpy(out))
    assert isinstance(tensor, torch.Tensor), f"squash made a {type(tensor)} of a tensor: dreams on a GPU need one"
    assert np.allclose(tensor.numpy(), act, atol=1e-6), "squash of a tensor is not that of an array"


def check_explorer(world: World, seed: int) -> None:
    """Exploration is a function of its generator, and gives actions of the action space that vary."""
    first, again = explore(world, 200, seed), explore(world, 200, seed)
    assert np.array_equal(first, again), "explorer is not a function of rng alone"
    assert not np.array_equal(first, explore(world, 200, seed + 1)), "explorer ignores rng"
    assert np.ptp(first, axis=0).max() > 0, "explorer never changes its action"
    space = world.make().action_space
    for act in first:
        assert space.contains(act), f"explorer gave {act!r}, outside {space}"


def explore(world: World, steps: int, seed: int) -> np.ndarray:
    """Actions [T, A] of a fresh explorer that sees black frames."""
    policy = world.explorer(np.random.default_rng(seed))
    return np.stack([policy(np.zeros(FRAME_SHAPE, np.uint8)) for _ in range(steps)])


def check_drawing(world: World, drawing: str, acts: np.ndarray, seed: int) -> dict:
    """Steps one drawing: types, shapes, and that an episode is a function of seed and actions alone."""
    env = world.make(drawing)
    space = gymnasium.spaces.Box(0, 255, FRAME_SHAPE, np.uint8)
    assert env.observation_space == space, f"observation space {env.observation_space} is not {space}"
    first = play(env, acts, seed)
    play(env, acts[: len(acts) // 2], seed + 1)  # a half-played other episode must leave no trace
    assert play(env, acts, seed) == first, f"{drawing}: a second episode of the same seed differs"
    other = world.make(drawing)
    assert play(other, acts, seed) == first, f"{drawing}: a second environment gives another episode"
    assert play(other, acts, seed + 1) != first, f"{drawing}: the seed changes nothing"
    env.close()
    other.close()
    return first


def play(env: gymnasium.Env, acts: np.ndarray, seed: int) -> dict:
    """One episode: frames as bytes, and the dynamics (rew, end, trunc) a step."""
    obs, info = env.reset(seed=seed)
    assert isinstance(info, dict), "reset did not return (obs, info)"
    frames, dynamics = [frame(obs)], []
    for act in acts:
        obs, rew, end, trunc, info = env.step(act)
        assert np.isscalar(rew) and np.isfinite(rew), f"reward {rew!r} is not a finite number"
        assert isinstance(end, bool) and isinstance(trunc, bool), f"end {end!r}, trunc {trunc!r}: no bools"
        assert isinstance(info, dict), f"info {info!r} is not a dict"
        frames.append(frame(obs))
        dynamics.append((float(rew), end, trunc))
        if end or trunc:
            break
    assert len(set(frames)) > 1, "frames never change"
    return {"obs": frames, "dynamics": dynamics}


def frame(obs: np.ndarray) -> bytes:
    """The bytes of a frame, once it is one."""
    assert isinstance(obs, np.ndarray), f"a frame is a {type(obs)}"
    assert obs.dtype == np.uint8, f"a frame is of {obs.dtype}"
    assert obs.shape == FRAME_SHAPE, f"a frame is {obs.shape}"
    return obs.tobytes()


def check_unknown_drawing(world: World) -> None:
    """A drawing that the world does not have is a ValueError that names it."""
    try:
        world.make("no-such-drawing")
    except ValueError as error:
        assert "no-such-drawing" in str(error), f"make() does not name the unknown drawing: {error}"
    else:
        raise AssertionError("make('no-such-drawing') made an environment: expected a ValueError")


def check_length(world: World, seed: int) -> None:
    """Truncates at `spec.max_steps` and never before, in an idle and in an exploring episode."""
    env = world.make()
    idle = np.clip(np.zeros(world.spec.action_size, np.float32), env.action_space.low, env.action_space.high)
    for policy in (lambda obs: idle, world.explorer(np.random.default_rng(seed))):
        obs, _ = env.reset(seed=seed)
        for step in count(1):
            obs, _, end, trunc, _ = env.step(policy(obs))
            assert trunc == (step == world.spec.max_steps), f"trunc is {trunc} at step {step}"
            if end or trunc:
                break
    env.close()
