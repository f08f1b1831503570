// Keys, buttons on the screen and a gamepad as an action of any world.
import type { About } from "./container.ts";

/** One way to push one number of the action: towards its highest, or towards its lowest value. */
export interface Pedal {
  dimension: number;
  towards: number;
  key: string;
  label: string;
  arrow: string;
}

const PAIRS = [["ArrowLeft", "ArrowRight"], ["ArrowDown", "ArrowUp"], ["a", "d"], ["s", "w"], ["j", "l"], ["k", "i"]];
const SINGLES = ["ArrowUp", "ArrowDown", "w", "s", "i", "k"];
const ARROWS: Record<string, string> = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };
const ALIKE: Record<string, string> = { a: "ArrowLeft", d: "ArrowRight", w: "ArrowUp", s: "ArrowDown" };
const DEAD_ZONE = 0.15;
/** Of the way to where a key pushes, how much a step goes: a key is no hammer. */
const EASE = 0.3;

/** The pedals of a world: a number that can be negative gets a pair of keys, another gets one. */
export function pedals(about: About, press: number[]): Pedal[] {
  const taken = new Set<string>();
  const found: Pedal[] = [];
  about.action.names.forEach((name, dimension) => {
    const low = about.action.low[dimension]!, high = about.action.high[dimension]!;
    const far = high * (press[dimension] ?? 1);
    const both = low < 0 && high > 0;
    const keys = both
      ? PAIRS.find((pair) => !pair.some((key) => taken.has(key)))
      : [SINGLES.find((key) => !taken.has(key)) ?? ""];
    const [first, second] = keys ?? ["", ""];
    [first, second].forEach((key) => key && taken.add(key));
    const pedal = (towards: number, key: string, label: string): Pedal => ({
      dimension, towards, key, label, arrow: ARROWS[key] ?? key.toUpperCase(),
    });
    if (both) {
      const sides = (first ?? "") === "ArrowLeft" ? ["left", "right"] : ["down", "up"];
      found.push(pedal(low * (press[dimension] ?? 1), first ?? "", `${name} ${sides[0]}`));
      found.push(pedal(far, second ?? "", `${name} ${sides[1]}`));
    } else {
      found.push(pedal(far, first ?? "", name));
    }
  });
  return found;
}

export class Controls {
  readonly pedals: Pedal[];
  private readonly held = new Set<Pedal>();
  private readonly now: Float32Array;
  private readonly rest: Float32Array;
  private readonly byKey = new Map<string, Pedal>();

  /** `used` is called whenever a person touches a control. */
  constructor(private readonly about: About, press: number[], private readonly used: () => void) {
    this.pedals = pedals(about, press);
    for (const pedal of this.pedals) this.byKey.set(pedal.key, pedal);
    for (const [key, same] of Object.entries(ALIKE)) {
      const pedal = this.byKey.get(same);
      if (pedal && !this.byKey.has(key)) this.byKey.set(key, pedal);
    }
    this.rest = Float32Array.from(about.action.low, (low, i) => Math.min(Math.max(0, low), about.action.high[i]!));
    this.now = this.rest.slice();
    addEventListener("keydown", (event) => this.key(event, true));
    addEventListener("keyup", (event) => this.key(event, false));
    addEventListener("blur", () => this.held.clear());
  }

  /** A button on the screen that pushes a pedal while it is held. */
  bind(button: HTMLButtonElement, pedal: Pedal): void {
    const hold = (event: PointerEvent) => {
      event.preventDefault();
      button.setPointerCapture(event.pointerId);
      this.push(pedal, true);
    };
    button.addEventListener("pointerdown", hold);
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"] as const) {
      button.addEventListener(end, () => this.push(pedal, false));
    }
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    button.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") this.push(pedal, true);
    });
    button.addEventListener("keyup", () => this.push(pedal, false));
  }

  /** The action [A] of this step. */
  act(): Float32Array {
    const target = this.rest.slice();
    for (const pedal of this.held) target[pedal.dimension]! += pedal.towards - this.rest[pedal.dimension]!;
    this.pad(target);
    if (this.about.action.choices.length) return chosen(target, this.about.action.choices);
    for (let i = 0; i < target.length; i++) {
      const back = this.held.size === 0 ? 2 * EASE : EASE;
      this.now[i]! += (target[i]! - this.now[i]!) * Math.min(1, back);
      if (Math.abs(target[i]! - this.now[i]!) < 0.02) this.now[i] = target[i]!;
    }
    return this.now.slice();
  }

  /** Where an action of the other driver was, so that the hands begin there. */
  follow(act: Float32Array): void {
    this.now.set(act);
  }

  /** A gamepad's sticks and triggers, added to `target`; whether any is used. */
  pad(target?: Float32Array): boolean {
    const gamepad = navigator.getGamepads?.().find((one) => one?.connected);
    if (!gamepad) return false;
    let pair = 0, single = 0, used = false;
    this.about.action.low.forEach((low, i) => {
      const high = this.about.action.high[i]!;
      let value: number;
      if (low < 0 && high > 0) {
        value = (gamepad.axes[pair] ?? 0) * (pair % 2 ? -1 : 1);
        if (pair === 0) value += Number(gamepad.buttons[15]?.pressed ?? 0) - Number(gamepad.buttons[14]?.pressed ?? 0);
        pair++;
      } else {
        value = gamepad.buttons[[7, 6, 0, 1][single++] ?? 0]?.value ?? 0;
      }
      if (Math.abs(value) < DEAD_ZONE) return;
      used = true;
      if (target) target[i] = Math.min(high, Math.max(low, value * (value < 0 ? -low : high)));
    });
    return used;
  }

  private push(pedal: Pedal, down: boolean): void {
    if (down) {
      this.held.add(pedal);
      this.used();
    } else {
      this.held.delete(pedal);
    }
  }

  private key(event: KeyboardEvent, down: boolean): void {
    const pedal = this.byKey.get(event.key.length === 1 ? event.key.toLowerCase() : event.key);
    if (!pedal) return;
    if (down && (isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey)) return;
    if (down) event.preventDefault();
    if (!event.repeat) this.push(pedal, down);
  }
}

/** Of each choice the number that is pushed most becomes 1, the first where none is. */
function chosen(target: Float32Array, choices: number[]): Float32Array {
  const act = new Float32Array(target.length);
  let first = 0;
  for (const count of choices) {
    const part = target.subarray(first, first + count);
    act[first + part.indexOf(Math.max(...part))] = 1;
    first += count;
  }
  return act;
}

/** Whether a key belongs to the element that has the focus, e.g. the arrows to a slider. */
export function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLInputElement || target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}
