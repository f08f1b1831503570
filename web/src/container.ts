// What the page carries: text in base64 of gzip of a container, read without any request.

/** One tensor that a graph takes or gives. */
export interface Port {
  name: string;
  dtype: string;
  shape: (string | number)[];
}

/** agent.json: see wm/release/export.py. */
export interface About {
  name: string;
  world: string;
  sizes: { z: number; h: number; act: number; mixtures: number };
  graphs: Record<"decoder" | "memory" | "controller", { inputs: Port[]; outputs: Port[] }>;
  /** `choices`: how many numbers belong to each choice, of which exactly one is 1; none where numbers are free. */
  action: { names: string[]; low: number[]; high: number[]; choices: number[] };
  controller_reads: ("z" | "h" | "c")[];
  dream: {
    tau: number;
    max_steps: number;
    end: { rule: "none" } | { rule: "threshold"; logit: number; shift: number } | { rule: "drawn"; shift: number };
    controller_z: "sample" | "mean";
    reward: "head" | "survival";
  };
  steps_a_second: number;
}

/** What only the page needs: see wm/release/demo.py. */
export interface PageData {
  world_name: string;
  press: number[];
  scored: string;
  recording: { steps: number; columns: number; score: number; seed: number } | null;
  carries: { what: string; licence: string }[];
}

export interface Agent {
  about: About;
  page: PageData;
  bytes(part: string): Uint8Array;
  floats(part: string): Float32Array;
}

/** The bytes that the inert script element `id` holds; the element is gone afterwards. */
export async function unpack(id: string): Promise<ArrayBuffer> {
  const element = document.getElementById(id);
  const text = element?.textContent?.trim() ?? "";
  if (!text) throw new Error(`this page carries no ${id}`);
  element!.remove();
  const stream = new Blob([fromBase64(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const native = (Uint8Array as unknown as { fromBase64?: (text: string) => Uint8Array<ArrayBuffer> }).fromBase64;
  if (native) return native.call(Uint8Array, text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** Length of the header (uint32, then 4 bytes of nothing), the header as JSON, the parts; each begins at a multiple of 8. */
export function open(buffer: ArrayBuffer): Agent {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length))) as {
    about: About;
    page: PageData;
    parts: Record<string, { at: number; bytes: number }>;
  };
  const place = (part: string): [number, number] => {
    const found = header.parts[part];
    if (!found) throw new Error(`this page carries no ${part}`);
    return [8 + length + found.at, found.bytes];
  };
  return {
    about: header.about,
    page: header.page,
    bytes: (part) => new Uint8Array(buffer, ...place(part)),
    floats: (part) => {
      const [at, bytes] = place(part);
      return new Float32Array(buffer, at, bytes / 4);
    },
  };
}
