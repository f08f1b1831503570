// The mixture of Gaussians that M expects: drawing from it, its mean, how surprising a z is (paper, A.2).
import type { Expectation } from "./models.ts";

const HALF_LOG_TWO_PI = 0.5 * Math.log(2 * Math.PI);

/** The noise of one step of B dreams: uniform in [0, 1) and normal, each [B, Z]; `end` uniform, [B]. */
export interface Noise {
  uniform: Float32Array;
  normal: Float32Array;
  end: Float32Array;
}

/** Weights of dimension d of dream b at temperature tau, into `weights` [K]: softmax of log_pi / tau. */
function weigh(logPi: Float32Array, first: number, z: number, tau: number, weights: Float64Array): void {
  let largest = -Infinity;
  for (let k = 0; k < weights.length; k++) largest = Math.max(largest, logPi[first + k * z]! / tau);
  let total = 0;
  for (let k = 0; k < weights.length; k++) total += weights[k] = Math.exp(logPi[first + k * z]! / tau - largest);
  for (let k = 0; k < weights.length; k++) weights[k]! /= total;
}

/** The next z [B, Z]: the component is the first whose cumulative weight reaches `uniform`; sigma is scaled by sqrt(tau). */
export function draw(m: Expectation, k: number, z: number, tau: number, noise: Noise): Float32Array {
  const next = new Float32Array(noise.normal.length), weights = new Float64Array(k), spread = Math.sqrt(tau);
  for (let i = 0; i < next.length; i++) {
    const first = Math.floor(i / z) * k * z + (i % z);
    weigh(m.logPi, first, z, tau, weights);
    let component = 0;
    for (let sum = weights[0]!; component < k - 1 && noise.uniform[i]! > sum; sum += weights[component]!) component++;
    const at = first + component * z;
    next[i] = m.mu[at]! + Math.exp(m.logSigma[at]!) * spread * noise.normal[i]!;
  }
  return next;
}

/** The mixture's mean at temperature tau, [B, Z]. */
export function mean(m: Expectation, k: number, z: number, tau: number): Float32Array {
  const out = new Float32Array(m.mu.length / k), weights = new Float64Array(k);
  for (let i = 0; i < out.length; i++) {
    const first = Math.floor(i / z) * k * z + (i % z);
    weigh(m.logPi, first, z, tau, weights);
    for (let j = 0; j < k; j++) out[i]! += weights[j]! * m.mu[first + j * z]!;
  }
  return out;
}

/** -log p(z) a dimension, in nats, of the one dream that `m` is about: how little M expected z [Z]. */
export function surprise(m: Expectation, k: number, z: Float32Array): number {
  let total = 0;
  for (let d = 0; d < z.length; d++) {
    let largest = -Infinity;
    const terms: number[] = [];
    for (let j = 0; j < k; j++) {
      const at = j * z.length + d;
      const scaled = (z[d]! - m.mu[at]!) * Math.exp(-m.logSigma[at]!);
      terms.push(m.logPi[at]! - 0.5 * scaled * scaled - m.logSigma[at]! - HALF_LOG_TWO_PI);
      largest = Math.max(largest, terms[j]!);
    }
    total -= largest + Math.log(terms.reduce((sum, term) => sum + Math.exp(term - largest), 0));
  }
  return total / z.length;
}

/** Random numbers that a seed decides: sfc32 (Doty-Humphrey, PractRand), normal ones by Box and Muller. */
export class Random {
  private state: Uint32Array;

  constructor(seed: number) {
    this.state = new Uint32Array([seed, seed ^ 0x9e3779b9, 0x243f6a88, 1]);
    for (let i = 0; i < 15; i++) this.uniform();
  }

  uniform(): number {
    const s = this.state;
    const sum = (s[0]! + s[1]! + s[3]!) >>> 0;
    s[3]!++;
    s[0] = s[1]! ^ (s[1]! >>> 9);
    s[1] = s[2]! + (s[2]! << 3);
    s[2] = ((s[2]! << 21) | (s[2]! >>> 11)) + sum;
    return sum / 4294967296;
  }

  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  noise(dreams: number, z: number): Noise {
    return {
      uniform: Float32Array.from({ length: dreams * z }, () => this.uniform()),
      normal: Float32Array.from({ length: dreams * z }, () => this.normal()),
      end: Float32Array.from({ length: dreams }, () => this.uniform()),
    };
  }
}
