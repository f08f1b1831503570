// What is on the screen: pictures, numbers and curves of a player.
import type { Agent } from "./container.ts";
import type { Controls } from "./controls.ts";
import { type Curve, plot } from "./curves.ts";
import type { Moment } from "./dream.ts";
import { KEPT, type Player } from "./player.ts";

/** The element with this id, which is in index.html. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page lacks #${id}`);
  return found as T;
}

const SMOOTH = 25;
const ENDS = { end: "M dreams that the episode has ended.", time: "The time of an episode is over.", "": "" };

/** Puts a picture [64, 64, 3] on a canvas. */
export function paint(canvas: HTMLCanvasElement, picture: Uint8Array): void {
  const image = new ImageData(64, 64);
  for (let i = 0, j = 0; i < picture.length; i += 3, j += 4) {
    image.data[j] = picture[i]!;
    image.data[j + 1] = picture[i + 1]!;
    image.data[j + 2] = picture[i + 2]!;
    image.data[j + 3] = 255;
  }
  canvas.getContext("2d")!.putImageData(image, 0, 0);
}

/** The mean of the last few values: a world pays now and then, M spreads it. */
function smooth(values: number[]): number[] {
  return values.map((_, i) => {
    const last = values.slice(Math.max(0, i - SMOOTH + 1), i + 1);
    return last.reduce((sum, value) => sum + value, 0) / last.length;
  });
}

export class View {
  private readonly dream = byId<HTMLCanvasElement>("dream");
  private readonly real = byId<HTMLCanvasElement>("real");
  private readonly kept = byId<HTMLCanvasElement>("kept");
  private readonly curves: Record<keyof Moment, Curve>;
  private readonly bars: HTMLElement[] = [];
  private painted: Uint8Array | null = null;
  private shown = -1;

  constructor(
    private readonly player: Player,
    private readonly agent: Agent,
    controls: Controls,
  ) {
    const curve = (id: string, low: number, high: number, fill: boolean): Curve => ({
      canvas: byId<HTMLCanvasElement>(id), low, high, colour: "--dream", fill,
    });
    this.curves = {
      reward: curve("reward-curve", 0, 1, true),
      end: curve("end-curve", 0, 1, true),
      surprise: curve("surprise-curve", 0, 1, false),
    };
    this.makePedals(controls);
    this.makeBars();
  }

  /** Everything that may have changed. */
  show(): void {
    const { player } = this;
    const { dream } = player;
    if (player.picture && player.picture !== this.painted) paint(this.dream, player.picture);
    this.painted = player.picture;
    byId("score").textContent = dream.score.toFixed(this.agent.about.dream.reward === "survival" ? 0 : 1);
    byId("steps").textContent = `${dream.steps}`;
    byId("pause").textContent = player.paused ? "Go on" : "Pause";
    byId("over").hidden = !dream.over;
    byId("over-text").textContent = ENDS[dream.over];
    for (const button of document.querySelectorAll<HTMLButtonElement>("[data-driver]")) {
      button.setAttribute("aria-pressed", String(button.dataset.driver === player.driver));
      if (button.dataset.driver === "recording") button.disabled = !player.linked;
    }
    for (const button of document.querySelectorAll<HTMLButtonElement>("[data-speed]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.speed) === player.speed));
    }
    this.showBars();
    this.showMoments();
    void this.showRecording();
  }

  private makePedals(controls: Controls): void {
    for (const pedal of controls.pedals) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "pedal";
      button.innerHTML = "<b></b><span></span>";
      button.querySelector("b")!.textContent = pedal.arrow;
      button.querySelector("span")!.textContent = pedal.label;
      controls.bind(button, pedal);
      byId("pedals").append(button);
    }
  }

  private makeBars(): void {
    const { names, low, high } = this.agent.about.action;
    names.forEach((name, i) => {
      const row = document.createElement("div");
      row.className = "action";
      row.innerHTML = '<span></span><div class="track"><i></i></div><output></output>';
      row.querySelector("span")!.textContent = name;
      row.classList.toggle("signed", low[i]! < 0 && high[i]! > 0);
      byId("actions").append(row);
      this.bars.push(row);
    });
  }

  private showBars(): void {
    const { low, high } = this.agent.about.action;
    this.bars.forEach((row, i) => {
      const value = this.player.act[i] ?? 0, span = high[i]! - low[i]!;
      const zero = Math.min(Math.max(-low[i]! / span, 0), 1), at = (value - low[i]!) / span;
      const bar = row.querySelector("i")!;
      bar.style.left = `${100 * Math.min(zero, at)}%`;
      bar.style.width = `${100 * Math.abs(at - zero)}%`;
      row.querySelector("output")!.textContent = value.toFixed(2).replace("-", "−");
    });
  }

  private showMoments(): void {
    const { moments, recording, linked, dream } = this.player;
    const last = moments.at(-1);
    byId("reward-value").textContent = last ? last.reward.toFixed(2).replace("-", "−") : "–";
    byId("end-value").textContent = last?.end == null ? "–" : `${(100 * last.end).toFixed(1)} %`;
    byId("surprise-value").textContent = last ? last.surprise.toFixed(2).replace("-", "−") : "–";
    const from = dream.steps - moments.length;
    const behind = linked && recording ? recording.moments.slice(from, dream.steps) : [];
    if (behind.length) while (behind.length < moments.length) behind.push({ reward: NaN, end: NaN, surprise: NaN });
    for (const key of ["reward", "end", "surprise"] as const) {
      const of = (all: Moment[]) => all.map((one) => one[key] ?? NaN);
      plot(this.curves[key], of(moments), KEPT, key === "reward" ? smooth(of(behind)) : of(behind));
    }
  }

  private async showRecording(): Promise<void> {
    const { recording, shown, linked, models } = this.player;
    if (!recording) return;
    byId("recording-play").setAttribute("aria-pressed", String(this.player.recordingPlays));
    byId("recording-play").textContent = this.player.recordingPlays ? "Stop the recording" : "Play the recording";
    if (shown === this.shown) return;
    this.shown = shown;
    const scrub = byId<HTMLInputElement>("scrub");
    scrub.value = `${shown}`;
    byId("moment").textContent =
      `step ${shown} of ${recording.steps - 1}, score ${recording.scoreAt(shown).toFixed(0)}`;
    recording.drawFrame(this.real.getContext("2d")!, shown);
    if (linked) void recording.listen(shown);
    paint(this.kept, await models.decode(recording.latent(shown)));
  }
}
