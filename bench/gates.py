"""Which faults the checks of data find: sound episodes of a world, with each fault put into 1% and into 10% of them.

    python -m bench.gates [--episodes 200] [--worlds car_racing take_cover] [--keep FOLDER]

Each row: a fault; of how many episodes that have it each share names all or some; and how many others are named with
them. The last lines: what the checks say of the sound set, and what they cost beside playing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wm.checks import judge, measures
from wm.checks.config import ChecksConfig, Given
from wm.core.episodes import Episode, EpisodeSet
from wm.core.verdicts import Check
from wm.core.workspace import Workspace
from wm.stages import collect as stage

LONG = 12
"""Frames in a row that most faults touch."""

Fault = Callable[[Episode, np.random.Generator, Episode, Given], None]


def _place(episode: Episode, rng: np.random.Generator, long: int = LONG) -> slice:
    """Some frames in a row, past the first tenth."""
    steps = len(episode["rew"])
    first = int(rng.integers(steps // 10, max(steps // 10 + 1, steps - long)))
    return slice(first, min(first + long, steps))


def black(episode, rng, other, given):
    """Twelve black frames."""
    episode["obs"][_place(episode, rng)] = 0


def one_black(episode, rng, other, given):
    """A single black frame."""
    episode["obs"][_place(episode, rng, 1)] = 0


def frozen(episode, rng, other, given):
    """A frame again, twelve times."""
    place = _place(episode, rng, LONG + 1)
    episode["obs"][place] = episode["obs"][place.start]


def stuck(episode, rng, other, given):
    """The second half is one frame."""
    half = len(episode["obs"]) // 2
    episode["obs"][half:] = episode["obs"][half]


def repeated(episode, rng, other, given):
    """Fifteen frames that were shown before."""
    obs, long = episode["obs"], 15
    first = int(rng.integers(20, max(21, len(obs) - 2 * long)))
    obs[first + long : first + 2 * long] = obs[first : first + long][: len(obs[first + long : first + 2 * long])]


def borrowed(episode, rng, other, given):
    """Fifteen frames of another episode."""
    place = _place(episode, rng, 15)
    half = len(other["obs"]) // 2
    source = other["obs"][half : half + place.stop - place.start]
    episode["obs"][place.start : place.start + len(source)] = source


def torn(episode, rng, other, given):
    """Twelve frames whose lower part is another moment's."""
    obs, place = episode["obs"].copy(), _place(episode, rng)
    for at in range(place.start, place.stop):
        row = int(rng.integers(16, 49))
        episode["obs"][at, row:] = obs[int(rng.integers(len(obs))), row:]


def torn_late(episode, rng, other, given):
    """Every frame's lower half is that of the frame before."""
    episode["obs"][1:, 32:] = episode["obs"][:-1, 32:].copy()


def shuffled(episode, rng, other, given):
    """Twenty frames in any order."""
    place = _place(episode, rng, 20)
    episode["obs"][place] = episode["obs"][place][rng.permutation(place.stop - place.start)]


def swapped(episode, rng, other, given):
    """Red and blue are exchanged."""
    episode["obs"][:] = episode["obs"][..., ::-1].copy()


def green(episode, rng, other, given):
    """Red and green are exchanged, in twelve frames."""
    place = _place(episode, rng)
    episode["obs"][place] = episode["obs"][place][..., [1, 0, 2]]


def inverted(episode, rng, other, given):
    """Light is dark, in twelve frames."""
    place = _place(episode, rng)
    episode["obs"][place] = 255 - episode["obs"][place]


def dim(episode, rng, other, given):
    """Half as bright."""
    episode["obs"][:] = episode["obs"] // 2


def noisy(episode, rng, other, given):
    """Noise on twelve frames."""
    place = _place(episode, rng)
    noise = rng.integers(-40, 41, episode["obs"][place].shape)
    episode["obs"][place] = np.clip(episode["obs"][place].astype(int) + noise, 0, 255)


def upside_down(episode, rng, other, given):
    """Every frame stands on its head."""
    episode["obs"][:] = episode["obs"][:, ::-1].copy()


def no_number(episode, rng, other, given):
    """A reward that is no number."""
    episode["rew"][_place(episode, rng, 1)] = np.nan


def outside(episode, rng, other, given):
    """A reward of 1,000."""
    episode["rew"][_place(episode, rng, 1)] = 1000.0


def unpaid(episode, rng, other, given):
    """All rewards are 0."""
    episode["rew"][:] = 0


def scaled(episode, rng, other, given):
    """Rewards a hundred times as large."""
    episode["rew"][:] *= 100


def cut(episode, rng, other, given):
    """It stops in the middle, without an end."""
    half = len(episode["rew"]) // 2
    for name in episode:
        episode[name] = episode[name][:half].copy()
    episode["end"][:] = False


def too_long(episode, rng, other, given):
    """It goes on for longer than the world lasts."""
    times = (given.max_steps or 1000) // len(episode["rew"]) + 2
    for name in ("act", "rew", "end", "out"):
        episode[name] = np.concatenate([episode[name]] * times)
    rolled = [np.roll(episode["obs"], 1 + turn % 60, 2) for turn in range(times)]
    episode["obs"] = np.concatenate(rolled)
    episode["end"][:-1] = False


def goes_on(episode, rng, other, given):
    """It goes on after its end."""
    episode["end"][len(episode["end"]) // 2] = True


def act_outside(episode, rng, other, given):
    """An action outside its bounds."""
    episode["act"][_place(episode, rng, 1)] = 5.0


def act_no_number(episode, rng, other, given):
    """An action that is no number."""
    episode["act"][_place(episode, rng, 1)] = np.nan


def act_constant(episode, rng, other, given):
    """One action all the time."""
    episode["act"][:] = episode["act"][0]


def copied(episode, rng, other, given):
    """Another episode, once more."""
    for name in other:
        episode[name] = other[name].copy()


def nearly_copied(episode, rng, other, given):
    """Another episode, once more, with a frame changed."""
    copied(episode, rng, other, given)
    episode["obs"][len(episode["obs"]) // 2] //= 2


FAULTS: dict[str, tuple[Fault, str]] = {
    fault.__name__: (fault, check)
    for check, faults in {
        "blank": (black, one_black),
        "frozen": (frozen, stuck),
        "repeated": (repeated, borrowed),
        "torn": (torn, torn_late),
        "order": (shuffled,),
        "unlike": (swapped, green, inverted, dim, noisy, upside_down),
        "rewards": (no_number, outside, unpaid, scaled),
        "lengths": (cut, too_long, goes_on),
        "actions": (act_outside, act_no_number, act_constant),
        "copies": (copied, nearly_copied),
    }.items()
    for fault in faults
}
"""Name -> what it does to an episode, and the check that is for it."""
RARE = ("green", "inverted", "noisy")
"""Twelve frames that look as no others: a hit in Doom, or a lap outside the field, is such a thing, so it warns."""


class Sound:
    """A sound set, and what was measured of it: a fault is measured again only in the episodes that have it."""

    def __init__(self, data: EpisodeSet, given: Given, config: ChecksConfig):
        self.data, self.given, self.config = data, given, config
        began = time.process_time()
        how = (given.low, given.high), config.blank, config.rare
        self.parts = [measures.measure(data.read(i), *how) for i in range(len(data))]
        self.seconds = time.process_time() - began
        self.how = how

    def judge(self, changed: dict[int, Episode]) -> list[Check]:
        """What the checks say where these episodes are others."""
        again = {i: measures.measure(episode, *self.how) for i, episode in changed.items()}
        parts = [again.get(i, part) for i, part in enumerate(self.parts)]
        seeds = [episode.get("seed") for episode in self.data.episodes]
        return judge.judge(measures.Measures.join(parts), self.given, self.config, seeds)

    def spoiled(self, fault: Fault, share: float, rng: np.random.Generator) -> tuple[dict[int, Episode], set[int]]:
        """Episodes with a fault, and those that a check may name with them: the sources of copies."""
        many = max(1, round(share * len(self.data)))
        chosen = rng.permutation(len(self.data))[: 2 * many]
        found = {}
        for index, source in zip(chosen[:many], chosen[many:], strict=True):
            episode = {name: array.copy() for name, array in self.data.read(int(index)).items()}
            fault(episode, rng, self.data.read(int(source)), self.given)
            found[int(index)] = episode
        return found, {int(i) for i in chosen[many:]}


def rows(sound: Sound, shares: tuple[float, ...] = (0.01, 0.1)) -> list[dict]:
    """A row a fault and share: found, how many there are, by which checks, the verdict, and others that are named."""
    table = []
    for number, (name, (fault, own)) in enumerate(FAULTS.items()):
        for share in shares:
            rng = np.random.default_rng([number, int(share * 1000)])
            changed, sources = sound.spoiled(fault, share, rng)
            checks = [check for check in sound.judge(changed) if check.verdict != "pass"]
            named = {one.episode for check in checks for one in check.episodes}
            failed = {one.episode for check in checks for one in check.episodes if one.worst}
            spoiled = {*changed}
            row = {"fault": name, "check": own, "there": len(changed), "by": sorted(check.name for check in checks)}
            row |= {"found": len(named & spoiled), "failed": len(failed & spoiled)}
            table.append(row | {"others": len(named - spoiled - sources)})
    return table


def collected(world: str, episodes: int, folder: Path) -> tuple[EpisodeSet, float]:
    """A sound set of random play, and the seconds of processors that it took."""
    zero = folder / "zero"
    zero.mkdir(parents=True, exist_ok=True)
    config = stage.CollectConfig(
        episodes=episodes, stall=100 if world == "car_racing" else 0, episodes_per_job=20, slots=20
    )
    with Workspace("collect", world, "0" * 16, folder) as workspace:
        began = time.time()
        stage.collect(config, world, 0, zero, zero, workspace)
        return EpisodeSet(workspace.out), time.time() - began


def main() -> None:
    """Prints a table a world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=200, help="of each world (default: %(default)s)")
    parser.add_argument("--worlds", nargs="+", default=["car_racing", "take_cover"], help="which")
    parser.add_argument(
        "--keep", type=Path, help="a folder for the sound episodes, and where they are if it holds some"
    )
    args = parser.parse_args()
    for world in args.worlds:
        with tempfile.TemporaryDirectory() as scratch:
            folder = args.keep / world if args.keep else Path(scratch)
            data, seconds = collected(world, args.episodes, folder)
            _print(world, Sound(data, stage.given(world, 100 if world == "car_racing" else 0), ChecksConfig()), seconds)


def _print(world: str, sound: Sound, seconds: float) -> None:
    print(f"{world}: {len(sound.data)} episodes, {sound.data.steps} frames")
    alarms = [check for check in sound.judge({}) if check.verdict != "pass"]
    print("  sound set:", ", ".join(f"{check.name} {check.verdict}" for check in alarms) or "no alarm")
    print(f"  {'fault':16}{'1%':>14}{'10%':>14}  others  found by")
    table = rows(sound)
    for one, ten in zip(table[::2], table[1::2], strict=True):
        cells = [f"{row['found']}/{row['there']} ({row['failed']} fail)" for row in (one, ten)]
        print(
            f"  {one['fault']:16}{cells[0]:>14}{cells[1]:>14}{one['others'] + ten['others']:>8}  {', '.join(ten['by'])}"
        )
    cost = sound.seconds / sound.data.steps * 1000
    print(f"  reading and measuring 1,000 frames: {cost:.3f} s of a processor; collect took {seconds:.0f} s")


if __name__ == "__main__":
    main()
