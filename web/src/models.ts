// V's decoder, M and C, run by ONNX Runtime on one thread. Every array is flat, for B dreams side by side.
import * as ort from "onnxruntime-web/wasm";
import type { About, Agent } from "./container.ts";

/** What M makes of a step: its next state and what it expects, mixture arrays [B, K, Z], heads [B] or null. */
export interface Expectation {
  h: Float32Array;
  c: Float32Array;
  logPi: Float32Array;
  mu: Float32Array;
  logSigma: Float32Array;
  reward: Float32Array | null;
  done: Float32Array | null;
}

export class Models {
  private readonly readsRestart: boolean;

  private constructor(
    readonly about: About,
    private readonly decoder: ort.InferenceSession,
    private readonly memory: ort.InferenceSession,
    private readonly controller: ort.InferenceSession,
  ) {
    this.readsRestart = about.graphs.memory.inputs.some((port) => port.name === "restart");
  }

  /** `runtime`: the WebAssembly of ONNX Runtime. */
  static async load(runtime: ArrayBuffer, agent: Agent): Promise<Models> {
    ort.env.wasm.wasmBinary = runtime;
    ort.env.wasm.numThreads = 1;
    ort.env.logLevel = "error";
    const session = (part: string) =>
      ort.InferenceSession.create(agent.bytes(part), { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
    const decoder = await session("decoder.onnx");
    const memory = await session("memory.onnx");
    const controller = await session("controller.onnx");
    return new Models(agent.about, decoder, memory, controller);
  }

  /** C's actions [B, A] from the states [B, ...]. */
  async act(z: Float32Array, h: Float32Array, c: Float32Array): Promise<Float32Array> {
    const states = { z, h, c };
    const { sizes, controller_reads: reads } = this.about;
    const feeds = Object.fromEntries(
      reads.map((name) => [name, rows(states[name], name === "z" ? sizes.z : sizes.h)] as const),
    );
    const out = await this.controller.run(feeds, ["act"]);
    return out.act!.data as Float32Array;
  }

  /** One step of M; `restart` is 1 at an episode's first frame, [B]. */
  async remember(
    z: Float32Array,
    act: Float32Array,
    h: Float32Array,
    c: Float32Array,
    restart: Float32Array,
  ): Promise<Expectation> {
    const { sizes } = this.about;
    const feeds: Record<string, ort.Tensor> = {
      z: rows(z, sizes.z),
      act: rows(act, sizes.act),
      h: rows(h, sizes.h),
      c: rows(c, sizes.h),
    };
    if (this.readsRestart) feeds.restart = new ort.Tensor("float32", restart, [restart.length]);
    const out = await this.memory.run(feeds);
    const of = (name: string) => out[name]?.data as Float32Array;
    return {
      h: of("h_next"),
      c: of("c_next"),
      logPi: of("log_pi"),
      mu: of("mu"),
      logSigma: of("log_sigma"),
      reward: out.reward ? of("reward") : null,
      done: out.done ? of("done") : null,
    };
  }

  /** V's pictures, [B, 64, 64, 3]. */
  async decode(z: Float32Array): Promise<Uint8Array> {
    const out = await this.decoder.run({ z: rows(z, this.about.sizes.z) });
    return out.frame!.data as Uint8Array;
  }
}

function rows(array: Float32Array, width: number): ort.Tensor {
  return new ort.Tensor("float32", array, [array.length / width, width]);
}
