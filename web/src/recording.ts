// One episode of the real world as V saw it: its frames, z, actions and rewards; and what M made of it.
import type { Agent } from "./container.ts";
import { endProbability, type Moment } from "./dream.ts";
import type { Models } from "./models.ts";
import { surprise } from "./sampling.ts";

const SIDE = 64;

export class Recording {
  readonly steps: number;
  readonly moments: Moment[] = [];
  private readonly z: Float32Array;
  private readonly acts: Float32Array;
  private readonly rewards: Float32Array;
  private readonly h: Float32Array;
  private readonly c: Float32Array;
  private known = 0;
  private busy: Promise<void> = Promise.resolve();

  private constructor(
    private readonly models: Models,
    agent: Agent,
    private readonly columns: number,
    private readonly frames: ImageBitmap,
  ) {
    const { sizes } = models.about;
    this.steps = agent.page.recording!.steps;
    this.z = agent.floats("recording.z");
    this.acts = agent.floats("recording.act");
    this.rewards = agent.floats("recording.rew");
    this.h = new Float32Array((this.steps + 1) * sizes.h);
    this.c = new Float32Array((this.steps + 1) * sizes.h);
  }

  static async load(models: Models, agent: Agent): Promise<Recording | null> {
    if (!agent.page.recording) return null;
    const bytes = agent.bytes("recording.frames") as Uint8Array<ArrayBuffer>;
    const frames = await createImageBitmap(new Blob([bytes], { type: "image/webp" }));
    return new Recording(models, agent, agent.page.recording.columns, frames);
  }

  latent(step: number): Float32Array {
    const { z } = this.models.about.sizes;
    return this.z.slice(step * z, (step + 1) * z);
  }

  act(step: number): Float32Array {
    const { act } = this.models.about.sizes;
    return this.acts.slice(step * act, (step + 1) * act);
  }

  /** Sum of rewards before a step. */
  scoreAt(step: number): number {
    return this.rewards.subarray(0, step).reduce((sum, reward) => sum + reward, 0);
  }

  drawFrame(context: CanvasRenderingContext2D, step: number): void {
    const x = (step % this.columns) * SIDE, y = Math.floor(step / this.columns) * SIDE;
    context.drawImage(this.frames, x, y, SIDE, SIDE, 0, 0, SIDE, SIDE);
  }

  /** M's state before a step, told all that happened until then. */
  async stateAt(step: number): Promise<{ h: Float32Array; c: Float32Array; steps: number }> {
    await this.listen(step);
    const { h } = this.models.about.sizes;
    const row = (array: Float32Array) => array.slice(step * h, (step + 1) * h);
    return { h: row(this.h), c: row(this.c), steps: step };
  }

  /** M is told the episode up to a step. */
  listen(until: number): Promise<void> {
    this.busy = this.busy.then(async () => {
      while (this.known < Math.min(until, this.steps)) await this.tell(this.known++);
    });
    return this.busy;
  }

  private async tell(step: number): Promise<void> {
    const { about } = this.models;
    const { h: hidden, mixtures } = about.sizes;
    const row = (array: Float32Array) => array.slice(step * hidden, (step + 1) * hidden);
    const restart = Float32Array.of(step === 0 ? 1 : 0);
    const m = await this.models.remember(this.latent(step), this.act(step), row(this.h), row(this.c), restart);
    this.h.set(m.h, (step + 1) * hidden);
    this.c.set(m.c, (step + 1) * hidden);
    this.moments[step] = {
      reward: this.rewards[step]!,
      end: m.done ? endProbability(about, m.done[0]!) : null,
      surprise: step + 1 < this.steps ? surprise(m, mixtures, this.latent(step + 1)) : NaN,
    };
  }
}
