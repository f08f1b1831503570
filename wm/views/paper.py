"""What the paper and those who came after it report, to stand beside our scores."""

from __future__ import annotations

from dataclasses import dataclass

CITATION = (
    "D. Ha and J. Schmidhuber, Recurrent World Models Facilitate Policy Evolution, NeurIPS 31, 2018 (arXiv:1803.10122)"
)

PAPER, QUOTED = "paper", "quoted in the paper"
STUDY = "Tallec et al. 2019 (ReScience-submission #55)"
TODAY = "run in today's world"
REMARKS = {
    "car_racing": (
        "The paper's scores, the study's and rl-baselines3-zoo's are of CarRacing-v0, ours of Gymnasium's "
        "CarRacing-v3.",
        "AttentionAgent in today's world: the weights that its authors released, with their own code for the picture, "
        "on 40 tracks in Gymnasium's drawing (median 908, worst 187).",
        "The study: C. Tallec, L. Blier and D. Kalainathan, submission to ReScience C, 2019 "
        '(https://github.com/ReScience/ReScience-submission/pull/55); their page of 2018, Reproducing "World '
        'Models": Is training the recurrent network really needed? (https://ctallec.github.io/world-models/), has '
        "860 ± 120 with a trained and 870 ± 120 with an untrained M.",
    ),
    "take_cover": (
        "AttentionAgent in today's world: the weights that its authors released, on 60 episodes of ViZDoom 1.3 "
        "drawn at 640x480, as theirs were (median 650). On the same 60 seeds the agent in pretrained/take_cover, which "
        "sees 160x120, has 849 ± 511 (median 712).",
    ),
}
"""World -> what to know about the scores below."""


@dataclass(frozen=True)
class Row:
    """A method's mean score and its standard deviation over episodes."""

    method: str
    mean: float
    std: float
    source: str = PAPER


@dataclass(frozen=True)
class Cost:
    """What the authors' own search took.

    Attributes:
        hours: of wall time, on `cores`.
        collected: episodes of a random policy that V and M learn from.
        searched: episodes that the search played, those on which it looked at its mean left out.
        dreamed: those were dreamed.
    """

    generations: int
    hours: float
    cores: int
    collected: int
    searched: int
    dreamed: bool


SCORES = {
    "car_racing": (
        Row("World Models", 906, 21),
        Row("V alone, with a hidden layer", 788, 141),
        Row("V alone", 632, 251),
        Row("best of the leaderboard before", 838, 11, QUOTED),
        Row("A3C, discrete actions", 652, 10, QUOTED),
        Row("A3C, continuous actions", 591, 45, QUOTED),
        Row("DQN", 343, 18, QUOTED),
        Row("World Models again", 895, 79, STUDY),
        Row("World Models again, M untrained", 866, 69, STUDY),
        Row("World Models again, V and M untrained", 131, 66, STUDY),
        Row("AttentionAgent", 914, 15, "Tang et al. 2020"),
        Row("AttentionAgent, released weights", 882, 119, TODAY),
        Row("PPO with an LSTM, 4.0 million steps", 862.5, 97, "rl-baselines3-zoo"),
        Row("V, M and C by a genetic algorithm", 903, 73, "Risi and Stanley 2019 (arXiv:1906.08857)"),
    ),
    "take_cover": (
        Row("World Models, tau 1.15", 1092, 556),
        Row("World Models, tau 1.00", 868, 511),
        Row("World Models, tau 0.10", 193, 58),
        Row("best of the leaderboard before", 820, 58, QUOTED),
        Row("random policy", 210, 108),
        Row("AttentionAgent", 1125, 589, "Tang et al. 2020"),
        Row("AttentionAgent, released weights", 728, 436, TODAY),
    ),
}
"""World -> the paper's tables 1 and 2, the paper's own method first, and what was published since."""

PARTS = {
    "car_racing": {
        "V and M": "World Models",
        "V and an untrained M": "World Models again, M untrained",
        "V alone": "V alone",
        "V alone, 40 hidden units": "V alone, with a hidden layer",
    }
}
"""World -> which parts act (`wm.views.table.parts`) -> the method above that is the same with another V and M."""

COSTS = {
    "car_racing": Cost(1800, 1119, 64, 10_000, 1800 * 64 * 16, False),
    "take_cover": Cost(1800, 54, 64, 10_000, 1800 * 64 * 16, True),
}
"""World -> the last line of the authors' committed logs, with their population of 64 and 16 episodes each."""

TEMPERATURES = {
    "take_cover": {
        0.10: ((2086, 140), (193, 58)),
        0.50: ((2060, 277), (196, 50)),
        1.00: ((1145, 690), (868, 511)),
        1.15: ((918, 546), (1092, 556)),
        1.30: ((732, 269), (753, 139)),
    }
}
"""World -> tau -> virtual and actual score, each (mean, standard deviation): the paper's table 2."""
