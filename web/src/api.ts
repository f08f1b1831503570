// For tests and consoles, as `window.worldModels`: dreams without the page's own noise or pictures.
import type { Agent } from "./container.ts";
import { Dream, isOver } from "./dream.ts";
import type { Models } from "./models.ts";
import { Random, draw, mean, type Noise } from "./sampling.ts";

/** What another program dreamed: its start and its noise, flat arrays. */
export interface Replay {
  z: number[];
  /** V's mean of the first frame. */
  mean: number[];
  tau: number;
  uniform: number[];
  normal: number[];
  /** Steps at which pictures are wanted. */
  frames: number[];
}

/** Dreams again with recorded noise, C driving; every z [steps, Z], action, reward, end and the pictures asked for. */
export async function replay(models: Models, given: Replay) {
  const size = models.about.sizes.z;
  const dream = new Dream(models, Float32Array.from(given.z), null, Float32Array.from(given.mean));
  const out = { z: [] as number[], act: [] as number[], reward: [] as number[], end: [] as (number | null)[] };
  const frames: number[][] = [];
  for (let step = 0; step < given.uniform.length / size; step++) {
    const part = (array: number[]) => Float32Array.from(array.slice(step * size, (step + 1) * size));
    const noise: Noise = { uniform: part(given.uniform), normal: part(given.normal), end: Float32Array.of(1) };
    if (given.frames.includes(step)) frames.push([...(await models.decode(dream.z))]);
    const act = await dream.act();
    const moment = await dream.step(act, given.tau, noise);
    out.z.push(...dream.z);
    out.act.push(...act);
    out.reward.push(moment.reward);
    out.end.push(moment.end);
  }
  return { ...out, frames };
}

/** Milliseconds of each of `steps` whole steps: C, M, the draw, the picture. */
export async function measure(models: Models, starts: Float32Array, steps: number): Promise<number[]> {
  const random = new Random(1), size = models.about.sizes.z, times: number[] = [];
  let dream = new Dream(models, starts.subarray(0, size));
  for (let step = 0; step < steps; step++) {
    const began = performance.now();
    await dream.step(await dream.act(), models.about.dream.tau, random.noise(1, size));
    await models.decode(dream.z);
    times.push(performance.now() - began);
    if (dream.over) dream = new Dream(models, starts.subarray(0, size));
  }
  return times;
}

/** Scores and lengths of `count` dreams side by side, C driving, with noise from `seed`; no pictures. */
export async function survey(models: Models, agent: Agent, count: number, tau: number, seed: number) {
  const { about } = models, { sizes } = about, random = new Random(seed);
  const mu = agent.floats("starts.mu"), logvar = agent.floats("starts.logvar");
  let z = new Float32Array(count * sizes.z);
  const means = new Float32Array(count * sizes.z);
  for (let b = 0; b < count; b++) {
    const start = Math.floor(random.uniform() * (mu.length / sizes.z)) * sizes.z;
    means.set(mu.subarray(start, start + sizes.z), b * sizes.z);
    for (let d = 0; d < sizes.z; d++) {
      z[b * sizes.z + d] = mu[start + d]! + Math.exp(0.5 * logvar[start + d]!) * random.normal();
    }
  }
  let h: Float32Array = new Float32Array(count * sizes.h), c: Float32Array = new Float32Array(count * sizes.h);
  let seen: Float32Array = about.dream.controller_z === "mean" ? means : z;
  const scores = new Array<number>(count).fill(0), lengths = new Array<number>(count).fill(0);
  const alive = new Array<boolean>(count).fill(true);
  for (let step = 0; step < about.dream.max_steps && alive.some(Boolean); step++) {
    const act = await models.act(seen, h, c);
    const m = await models.remember(z, act, h, c, new Float32Array(count).fill(step === 0 ? 1 : 0));
    const noise = random.noise(count, sizes.z);
    z = draw(m, sizes.mixtures, sizes.z, tau, noise) as Float32Array<ArrayBuffer>;
    seen = about.dream.controller_z === "mean" ? mean(m, sizes.mixtures, sizes.z, tau) : z;
    [h, c] = [m.h, m.c];
    for (let b = 0; b < count; b++) {
      if (!alive[b]) continue;
      scores[b]! += about.dream.reward === "survival" ? 1 : (m.reward?.[b] ?? 0);
      lengths[b]!++;
      alive[b] = !isOver(about, m.done?.[b], noise.end[b]!);
    }
  }
  return { scores, lengths };
}

