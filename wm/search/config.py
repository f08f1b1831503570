"""The numbers of a search, beside the code that they configure: `evolve` in params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wm.play.cluster import ClusterConfig
from wm.search.cmaes import CMAConfig


class EvolveConfig(ClusterConfig, CMAConfig):
    """The search, and where fitness comes from."""

    generations: int = Field(ge=1, description="generations of CMA-ES (paper: 1,800)")
    episodes: int = Field(
        16, ge=1, description="episodes a candidate, the same ones for all candidates of a generation (paper: 16)"
    )
    stall: int = Field(
        0, ge=0, description="an episode also ends after this many steps without a positive reward; 0 for never"
    )
    inputs: list[Literal["z", "h", "c"]] | None = Field(
        None,
        description="states that C reads: z is V's, h and c are M's; null is the world's own choice (for both of the "
        "paper's worlds the paper's), [z] is the paper's ablation without M",
    )
    untrained: bool = Field(
        False, description="C remembers with an M of the same shape that was never trained (ablation)"
    )
    hidden: int = Field(0, ge=0, description="tanh units between (paper's ablation: 40); 0 is the linear controller")
    sampled: bool = Field(
        True,
        description="C reads a sample of z (paper) rather than V's mean; in a dream the mean is that of M's mixture",
    )
    rescore_every: int = Field(
        10, ge=1, description="generations between two scorings on selection episodes (released code: 25)"
    )
    rescore_episodes: int = Field(24, ge=1, description="selection episodes (released code: 1,024)")
    final_episodes: int = Field(
        0,
        ge=0,
        description="further selection episodes, on which the best few of all scorings and the average of the "
        "distribution's means over the last half of the generations are compared at the end; 0: the best scoring wins",
    )
    hard_episodes: int = Field(
        0,
        ge=0,
        description="of `episodes`, how many are earlier ones of this search: those that went worst for all candidates "
        "when they last were played",
    )
    centre: bool = Field(
        False,
        description="the search moves C's weights about what C reads on average (newest 100 episodes); with raw "
        "weights (paper) most of a step's effect is the same in all states. Needs a bias or a hidden layer",
    )
    directions: int = Field(
        0,
        ge=0,
        description="the search moves C's biases, and its weights only along this many principal directions of what C "
        "reads (newest 100 episodes), each scaled to variance 1: sigma0 is the spread that a direction adds to an "
        "output. 0: all weights (of which `centre` speaks). Needs a linear controller with a bias",
    )
    dream: bool = Field(False, description="fitness comes from M's dream instead of the world")
    ends: Literal["threshold", "drawn", "expected"] = Field(
        "expected",
        description="how a dream ends. expected: a step's reward counts with the probability of having lived until "
        "then, by M's calibrated ends; drawn: an end is drawn with that probability, by the episode's own luck; "
        "threshold: where the logit is positive, with done_weight 10 above p = 1/11 (the paper's code; departed from, "
        "since a C that stays below is immortal)",
    )
    select: Literal["world", "dream"] = Field(
        "world",
        description="where the kept controller is chosen; with `dream`, dream leaves the world unseen (paper) but for "
        "the gauge, under which a dream chooses nothing: the world does",
    )
    gauge_controllers: int = Field(
        16,
        ge=4,
        description="with `dream`: disturbed controllers whose ranks in dream and world are compared at the end",
    )
    gauge_episodes: int = Field(4, ge=1, description="with `dream`: episodes that each of them plays in both")
    gauge_least: float = Field(
        0.43,
        ge=-1,
        le=1,
        description="rank correlation with the world under which a dream chooses nothing: 16 controllers in two orders "
        "that have nothing to do with each other have it once in twenty times (Spearman's rho); -1 trusts any dream",
    )
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="where the dream runs: cpu, cuda or cuda:N")

    @property
    def dream_decides(self) -> bool:
        """Whether the kept controller is chosen in the dream."""
        return self.dream and self.select == "dream"

    @model_validator(mode="after")
    def _leaves_room_for_new_episodes(self) -> EvolveConfig:
        if self.hard_episodes >= self.episodes:
            raise ValueError(
                f"hard_episodes is {self.hard_episodes} of {self.episodes} episodes: leave at least one for a new one"
            )
        return self

    @model_validator(mode="after")
    def _directions_fit(self) -> EvolveConfig:
        if self.directions and self.hidden:
            raise ValueError(f"directions is {self.directions}, but C has hidden units: set one of the two to 0")
        if self.directions and self.centre:
            raise ValueError(f"directions is {self.directions}, which move about the average anyway: leave centre out")
        return self
