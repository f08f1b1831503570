// One dream: M steps, the next z is drawn, the heads say what it paid and whether it is over.
import type { About } from "./container.ts";
import type { Expectation, Models } from "./models.ts";
import { type Noise, draw, mean, surprise } from "./sampling.ts";

/** What M expected of a step. */
export interface Moment {
  reward: number;
  end: number | null;
  surprise: number;
}

/** The probability of an end that M's logit stands for. */
export function endProbability(about: About, logit: number): number {
  const { end } = about.dream;
  return 1 / (1 + Math.exp((end.rule === "none" ? 0 : end.shift) - logit));
}

/** Whether the episode is over, by the rule that the agent's description names. */
export function isOver(about: About, logit: number | undefined, noise: number): boolean {
  const { end } = about.dream;
  if (end.rule === "none" || logit === undefined) return false;
  return end.rule === "threshold" ? logit > end.logit : noise < endProbability(about, logit);
}

/** A dream from a first z, a state that M is in already, and V's mean of the frame that z was drawn from. */
export class Dream {
  z: Float32Array;
  /** What C reads of z: the same, or the mixture's mean. */
  seen: Float32Array;
  h: Float32Array;
  c: Float32Array;
  steps = 0;
  score = 0;
  over: "" | "end" | "time" = "";

  constructor(
    private readonly models: Models,
    z: Float32Array,
    from: { h: Float32Array; c: Float32Array; steps: number } | null = null,
    mean: Float32Array | null = null,
  ) {
    const { sizes, dream } = models.about;
    this.z = z.slice();
    this.seen = dream.controller_z === "mean" && mean ? mean.slice() : this.z;
    this.h = from ? from.h.slice() : new Float32Array(sizes.h);
    this.c = from ? from.c.slice() : new Float32Array(sizes.h);
    this.steps = from?.steps ?? 0;
  }

  /** What C would do now. */
  act(): Promise<Float32Array> {
    return this.models.act(this.seen, this.h, this.c);
  }

  /** Dreams one step with an action [A]. */
  async step(act: Float32Array, tau: number, noise: Noise): Promise<Moment> {
    const { about } = this.models;
    const { mixtures, z } = about.sizes;
    const restart = Float32Array.of(this.steps === 0 ? 1 : 0);
    const m: Expectation = await this.models.remember(this.z, act, this.h, this.c, restart);
    this.h = m.h;
    this.c = m.c;
    this.z = draw(m, mixtures, z, tau, noise);
    this.seen = about.dream.controller_z === "mean" ? mean(m, mixtures, z, tau) : this.z;
    this.steps++;
    const reward = about.dream.reward === "survival" ? 1 : (m.reward?.[0] ?? 0);
    this.score += reward;
    if (isOver(about, m.done?.[0], noise.end[0]!)) this.over = "end";
    else if (this.steps >= about.dream.max_steps) this.over = "time";
    return {
      reward,
      end: m.done ? endProbability(about, m.done[0]!) : null,
      surprise: surprise(m, mixtures, this.z),
    };
  }

  /** Changes one number of z by hand. */
  set(dimension: number, value: number): void {
    this.z = this.z.slice();
    this.z[dimension] = value;
    this.seen = this.z;
  }
}
