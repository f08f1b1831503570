// What goes on: which dream, who drives, how fast; one task at a time.
import type { Agent } from "./container.ts";
import type { Controls } from "./controls.ts";
import { Dream, type Moment } from "./dream.ts";
import type { Models } from "./models.ts";
import type { Recording } from "./recording.ts";
import { Random } from "./sampling.ts";

export type Driver = "you" | "C" | "recording";

/** Moments that are kept for the curves. */
export const KEPT = 240;
/** Steps that one picture may skip where a machine is slow. */
const AT_ONCE = 3;

export class Player {
  tau: number;
  speed = 1;
  paused = false;
  driver: Driver = "C";
  dream: Dream;
  act: Float32Array;
  moments: Moment[] = [];
  picture: Uint8Array | null = null;
  /** The stored first frame that the dream began at; -1 where it began inside the recording. */
  start = 0;
  /** The step of the recording that is shown; it follows the dream while `linked`. */
  shown = 0;
  linked = false;
  recordingPlays = false;
  /** Milliseconds that a step with its picture took, smoothed. */
  cost = 0;
  readonly starts: number;
  private random = new Random(crypto.getRandomValues(new Uint32Array(1))[0]!);
  private began = 0;
  private queue: Promise<unknown> = Promise.resolve();
  private waiting = 0;
  private owed = 0;
  private last = 0;

  constructor(
    readonly models: Models,
    private readonly agent: Agent,
    readonly recording: Recording | null,
    private readonly controls: Controls,
    private readonly changed: () => void,
  ) {
    const { sizes, dream } = models.about;
    this.tau = dream.tau;
    this.starts = agent.floats("starts.mu").length / sizes.z;
    this.act = new Float32Array(sizes.act);
    this.dream = new Dream(models, this.mean(0));
  }

  /** V's mean of a stored first frame, [Z]. */
  mean(index: number): Float32Array {
    const { z } = this.models.about.sizes;
    return this.agent.floats("starts.mu").slice(index * z, (index + 1) * z);
  }

  run(): void {
    requestAnimationFrame((now) => {
      this.last = now;
      this.turn(now);
    });
  }

  /** Everything that touches the dream goes through here, in order. */
  do(task: () => Promise<void> | void): Promise<void> {
    this.waiting++;
    const done = this.queue.then(task).then(() => {
      this.waiting--;
      this.changed();
    });
    this.queue = done.catch(() => undefined);
    return done;
  }

  /** A dream from a stored first frame, drawn from V's posterior of it. */
  begin(index: number): Promise<void> {
    return this.do(() => {
      const { z } = this.models.about.sizes;
      const logvar = this.agent.floats("starts.logvar");
      const mean = this.mean(index);
      const first = mean.map((mu, d) => mu + Math.exp(0.5 * logvar[index * z + d]!) * this.random.normal());
      this.start = index;
      return this.enter(new Dream(this.models, first, null, mean), false);
    });
  }

  beginAnywhere(): Promise<void> {
    return this.begin(Math.floor(this.random.uniform() * this.starts));
  }

  /** M is told the recording up to a step, and dreams on from there. */
  dreamOn(step: number): Promise<void> {
    return this.do(async () => {
      const recording = this.recording!;
      const state = await recording.stateAt(step);
      this.start = -1;
      this.began = step;
      await this.enter(new Dream(this.models, recording.latent(step), state), true);
      this.dream.score = recording.scoreAt(step);
    });
  }

  /** The same beginning once more, with other random numbers. */
  again(): Promise<void> {
    return this.start < 0 ? this.dreamOn(this.began) : this.begin(this.start);
  }

  oneStep(): Promise<void> {
    this.paused = true;
    return this.do(() => this.forward(1));
  }

  setLatent(dimension: number, value: number): Promise<void> {
    this.paused = true;
    return this.do(async () => {
      this.dream.set(dimension, value);
      this.picture = await this.models.decode(this.dream.z);
    });
  }

  /** Who drives; the recording can only where the dream began in it. */
  give(driver: Driver): void {
    if (driver === "recording" && !this.linked) return;
    if (driver === "you" && this.driver !== "you") this.controls.follow(this.act);
    this.driver = driver;
    this.changed();
  }

  show(step: number): void {
    this.linked = false;
    if (this.driver === "recording") this.driver = "C";
    this.shown = step;
    this.changed();
  }

  private async enter(dream: Dream, linked: boolean): Promise<void> {
    this.dream = dream;
    this.linked = linked;
    this.moments = [];
    if (linked) [this.shown, this.recordingPlays] = [dream.steps, false];
    else if (this.driver === "recording") this.driver = "C";
    this.picture = await this.models.decode(dream.z);
  }

  private turn(now: number): void {
    requestAnimationFrame((next) => this.turn(next));
    if (this.controls.pad()) this.give("you");
    this.owed += ((now - this.last) / 1000) * this.models.about.steps_a_second * this.speed;
    this.last = now;
    const steps = Math.min(Math.floor(this.owed), AT_ONCE);
    if (this.waiting || steps < 1) return;
    this.owed = Math.min(this.owed - steps, 1);
    const moves = !this.paused && !this.dream.over;
    if (moves || this.recordingPlays) void this.do(() => this.forward(steps, moves));
  }

  private async forward(steps: number, moves = true): Promise<void> {
    const began = performance.now();
    for (let i = 0; i < steps; i++) {
      if (this.recordingPlays && this.recording) {
        this.shown = Math.min(this.shown + 1, this.recording.steps - 1);
        this.recordingPlays = this.shown < this.recording.steps - 1;
      }
      if (moves && !this.dream.over) await this.forwardOne();
    }
    if (!moves) return;
    this.picture = await this.models.decode(this.dream.z);
    const cost = (performance.now() - began) / steps;
    this.cost = this.cost ? 0.95 * this.cost + 0.05 * cost : cost;
  }

  private async forwardOne(): Promise<void> {
    const { sizes } = this.models.about;
    if (this.driver === "recording" && this.dream.steps >= this.recording!.steps) this.driver = "C";
    if (this.driver === "you") this.act = this.controls.act();
    else if (this.driver === "recording") this.act = this.recording!.act(this.dream.steps);
    else this.act = await this.dream.act();
    const moment = await this.dream.step(this.act, this.tau, this.random.noise(1, sizes.z));
    this.moments.push(moment);
    if (this.moments.length > KEPT) this.moments.shift();
    if (this.linked && this.recording) this.shown = Math.min(this.dream.steps, this.recording.steps - 1);
  }
}
