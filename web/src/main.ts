// The page: unpacks what it carries, then wires buttons, keys and sliders to the player.
import "./style.css";
import { measure, replay, survey, type Replay } from "./api.ts";
import { open, unpack } from "./container.ts";
import { Controls, isTyping } from "./controls.ts";
import { Models } from "./models.ts";
import { Latents, Starts, drawTimeline, tell, timeline } from "./panels.ts";
import { Player, type Driver } from "./player.ts";
import { Recording } from "./recording.ts";
import { View, byId } from "./view.ts";

async function main(): Promise<void> {
  const [runtime, packed] = await Promise.all([unpack("runtime"), unpack("agent")]);
  const agent = open(packed);
  const models = await Models.load(runtime, agent);
  const recording = await Recording.load(models, agent);
  const controls = new Controls(agent.about, agent.page.press, () => player.give("you"));
  const player: Player = new Player(models, agent, recording, controls, () => changed());
  const view = new View(player, agent, controls);
  const starts = new Starts(player);
  const latents = new Latents(player, agent);
  const changed = () => {
    view.show();
    latents.show();
  };
  if (!recording) for (const id of ["pair", "beside", "world-key"]) byId(id).hidden = true;
  document.querySelector(".stage")!.classList.toggle("alone", !recording);
  if (!recording) document.querySelector<HTMLElement>("[data-driver=recording]")!.hidden = true;
  byId("main").hidden = false;
  await player.begin(0);
  byId("status").hidden = true;
  wire(player, starts);
  shortcuts(player, starts);
  player.run();
  tell(agent, controls, performance.now());
  document.documentElement.dataset.ready = `${performance.now()}`;
  Object.assign(window, {
    worldModels: {
      about: agent.about,
      player,
      replay: (given: Replay) => player.do(() => undefined).then(() => replay(models, given)),
      measure: (steps: number) => measure(models, agent.floats("starts.mu"), steps),
      survey: (count: number, tau: number, seed: number) => survey(models, agent, count, tau, seed),
    },
  });
  await starts.follow();
  await timeline(player);
}

function wire(player: Player, starts: Starts): void {
  const click = (id: string, what: () => unknown) => byId(id).addEventListener("click", () => void what());
  click("pause", () => pause(player));
  click("step", () => player.oneStep());
  click("again", () => player.again());
  click("over-again", () => player.again());
  click("theme", theme);
  for (const button of document.querySelectorAll<HTMLButtonElement>("[data-driver]")) {
    button.addEventListener("click", () => player.give(button.dataset.driver as Driver));
  }
  for (const button of document.querySelectorAll<HTMLButtonElement>("[data-speed]")) {
    button.addEventListener("click", () => void player.do(() => void (player.speed = Number(button.dataset.speed))));
  }
  const tau = byId<HTMLInputElement>("tau");
  tau.addEventListener("input", () => warm(player, Number(tau.value)));
  warm(player, player.tau);
  if (player.recording) {
    const scrub = byId<HTMLInputElement>("scrub");
    scrub.max = `${player.recording.steps - 1}`;
    scrub.addEventListener("input", () => player.show(Number(scrub.value)));
    click("dream-on", () => player.dreamOn(player.shown));
    click("recording-play", () => {
      const plays = !player.recordingPlays;
      player.show(plays && player.shown >= player.recording!.steps - 1 ? 0 : player.shown);
      player.recordingPlays = plays;
    });
  }
  addEventListener("resize", () => {
    drawTimeline(player);
    void player.do(() => undefined);
  });
  matchMedia("(prefers-color-scheme: light)").addEventListener("change", named);
  named();
  void starts;
}

function pause(player: Player): void {
  void player.do(() => {
    player.paused = !player.paused;
    return player.dream.over && !player.paused ? void player.again() : undefined;
  });
}

function warm(player: Player, tau: number): void {
  player.tau = Math.min(3, Math.max(0.1, Math.round(tau * 20) / 20));
  byId<HTMLInputElement>("tau").value = `${player.tau}`;
  byId("tau-value").textContent = player.tau.toFixed(2);
}

function shortcuts(player: Player, starts: Starts): void {
  const keys: Record<string, () => unknown> = {
    " ": () => pause(player),
    p: () => pause(player),
    ".": () => player.oneStep(),
    r: () => player.again(),
    n: () => starts.anywhere(),
    c: () => player.give(player.driver === "C" ? "you" : "C"),
    "[": () => warm(player, player.tau - 0.05),
    "]": () => warm(player, player.tau + 0.05),
    m: () => player.recording && player.dreamOn(player.shown),
  };
  addEventListener("keydown", (event) => {
    const target = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (isTyping(target) && !(target instanceof HTMLInputElement && target.type === "range" && event.key !== " ")) return;
    if (event.key === " " && target instanceof Element && target.closest("button, summary, a")) return;
    const key = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!key) return;
    event.preventDefault();
    void key();
  });
}

function isLight(): boolean {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "light" : matchMedia("(prefers-color-scheme: light)").matches;
}

function theme(): void {
  document.documentElement.dataset.theme = isLight() ? "dark" : "light";
  named();
  dispatchEvent(new Event("resize"));
}

function named(): void {
  byId("theme").textContent = isLight() ? "Dark" : "Light";
}

main().catch((error: unknown) => {
  const text = error instanceof Error ? error.message : String(error);
  const status = byId("status");
  status.hidden = false;
  status.textContent = `The dream cannot start: ${text}. A browser of 2023 or later is needed (WebAssembly with SIMD, DecompressionStream).`;
});
