// The parts of the page that a person opens: first frames, z, the timeline of the recording, keys and licences.
import type { Agent } from "./container.ts";
import type { Controls } from "./controls.ts";
import { plot } from "./curves.ts";
import type { Player } from "./player.ts";
import { byId, paint } from "./view.ts";

const PAGE = 6;

/** Stored first frames, a few at a time, as buttons. */
export class Starts {
  private first = 0;
  private made = 0;

  constructor(private readonly player: Player) {
    byId("starts-count").textContent = `${player.starts}`;
    const field = byId<HTMLInputElement>("start");
    field.max = `${player.starts}`;
    field.addEventListener("change", () => this.go(Number(field.value) - 1));
    byId("earlier").addEventListener("click", () => void this.turn(-PAGE));
    byId("later").addEventListener("click", () => void this.turn(PAGE));
    byId("anywhere").addEventListener("click", () => this.anywhere());
  }

  anywhere(): void {
    void this.player.beginAnywhere().then(() => this.follow());
  }

  go(index: number): void {
    const inside = Math.min(Math.max(Math.round(index) || 0, 0), this.player.starts - 1);
    void this.player.begin(inside).then(() => this.follow());
  }

  /** Shows the page with the first frame that the dream began at. */
  async follow(): Promise<void> {
    const { start } = this.player;
    if (start < 0) return;
    byId<HTMLInputElement>("start").value = `${start + 1}`;
    this.first = Math.floor(start / PAGE) * PAGE;
    await this.show();
  }

  private async turn(by: number): Promise<void> {
    const pages = Math.ceil(this.player.starts / PAGE);
    this.first = ((this.first / PAGE + by / PAGE + pages) % pages) * PAGE;
    await this.show();
  }

  async show(): Promise<void> {
    const ticket = ++this.made;
    const count = Math.min(PAGE, this.player.starts - this.first);
    const size = this.player.models.about.sizes.z;
    const all = new Float32Array(count * size);
    for (let i = 0; i < count; i++) all.set(this.player.mean(this.first + i), i * size);
    const pictures = await this.player.models.decode(all);
    if (ticket !== this.made) return;
    byId("thumbs").replaceChildren(
      ...Array.from({ length: count }, (_, i) => {
        const index = this.first + i, button = document.createElement("button"), canvas = document.createElement("canvas");
        canvas.width = canvas.height = 64;
        paint(canvas, pictures.subarray(i * 12288, (i + 1) * 12288));
        button.type = "button";
        button.className = "thumb";
        button.setAttribute("aria-label", `Begin at first frame ${index + 1}`);
        button.setAttribute("aria-pressed", String(index === this.player.start));
        button.append(canvas);
        button.addEventListener("click", () => this.go(index));
        return button;
      }),
    );
  }
}

/** A slider for each number of z, the ones that change most in what V saw first. */
export class Latents {
  private readonly inputs: HTMLInputElement[] = [];
  private readonly panel = byId<HTMLDetailsElement>("latents");

  constructor(private readonly player: Player, agent: Agent) {
    const { z } = player.models.about.sizes;
    const mu = agent.floats(agent.page.recording ? "recording.z" : "starts.mu");
    const spread = Array.from({ length: z }, (_, d) => {
      let sum = 0, squares = 0;
      for (let i = d; i < mu.length; i += z) [sum, squares] = [sum + mu[i]!, squares + mu[i]! * mu[i]!];
      const count = mu.length / z;
      return squares / count - (sum / count) ** 2;
    });
    const order = Array.from({ length: z }, (_, d) => d).sort((a, b) => spread[b]! - spread[a]!);
    for (const dimension of order) {
      const label = document.createElement("label"), name = document.createElement("span");
      const input = document.createElement("input");
      name.textContent = `z${dimension + 1}`;
      Object.assign(input, { type: "range", min: "-4", max: "4", step: "0.01", value: "0" });
      input.addEventListener("input", () => void player.setLatent(dimension, Number(input.value)));
      label.append(name, input);
      byId("sliders").append(label);
      this.inputs[dimension] = input;
    }
    this.panel.addEventListener("toggle", () => this.show());
  }

  show(): void {
    if (!this.panel.open) return;
    this.inputs.forEach((input, d) => {
      if (document.activeElement !== input || !this.player.paused) input.value = `${this.player.dream.z[d]}`;
    });
  }
}

/** The recording's timeline: M's surprise along it, once M has listened to it in small pieces. */
export async function timeline(player: Player): Promise<void> {
  const { recording } = player;
  if (!recording) return;
  for (let heard = 0; heard < recording.steps; heard += 20) {
    await player.do(() => recording.listen(heard + 20));
    await new Promise((resume) => setTimeout(resume, 10));
    if (heard % 200 === 0) drawTimeline(player);
  }
  drawTimeline(player);
}

export function drawTimeline(player: Player): void {
  const { recording } = player;
  if (!recording) return;
  const canvas = byId<HTMLCanvasElement>("timeline");
  const values = recording.moments.map((one) => one.surprise);
  while (values.length < recording.steps) values.push(NaN);
  plot({ canvas, low: 0, high: 0.5, colour: "--world", fill: false }, values, recording.steps);
}

/** Text that only the agent knows. */
export function tell(agent: Agent, controls: Controls, ready: number): void {
  const { about, page } = agent;
  byId("reward").hidden = about.dream.reward === "survival"; // 1 at every step
  document.title = `A dream of ${page.world_name}`;
  byId("world").textContent = page.world_name;
  byId("made").textContent = `The agent ${about.name}: ${page.scored}. This page opened in ${(ready / 1000).toFixed(1)} s and asks for nothing else.`;
  byId("carries").replaceChildren(
    ...page.carries.map(({ what, licence }) => {
      const item = document.createElement("li"), name = document.createElement("b");
      name.textContent = what;
      item.append(name, `: ${licence}`);
      return item;
    }),
  );
  const keys: [string, string][] = [
    ...controls.pedals.filter((pedal) => pedal.key).map((pedal): [string, string] => [pedal.arrow, pedal.label]),
    ["P", "pause, go on (or Space)"], [".", "one step"], ["R", "again from the same beginning"], ["N", "from any first frame"],
    ["C", "let C act, or act yourself"], ["[ ]", "colder, warmer"], ["M", "let M dream on from this moment of the recording"],
  ];
  byId("keys").replaceChildren(
    ...keys.map(([key, what]) => {
      const row = document.createElement("div");
      row.innerHTML = "<dt><kbd></kbd></dt><dd></dd>";
      row.querySelector("kbd")!.textContent = key;
      row.querySelector("dd")!.textContent = what;
      return row;
    }),
  );
}
