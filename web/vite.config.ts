// Builds one file: the page with its script, its style and the runtime inside. An agent is put in later, by Python.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { constants, gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";
import { viteSingleFile } from "vite-plugin-singlefile";

const RUNTIME = new URL("node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm", import.meta.url);

/**
 * The runtime looks for its WebAssembly beside itself; it is given the bytes, so the bundler need not embed them too.
 * Where the page is a frame of another one it has no address of its own (about:srcdoc), from which the runtime could look
 * for anything, and its origin is none: it is told what a page from a disk has.
 */
const noSecondRuntime: Plugin = {
  name: "no-second-runtime",
  enforce: "pre",
  transform(code, id) {
    if (!id.includes("onnxruntime-web")) return undefined;
    return code
      .replaceAll(/new URL\("ort-wasm-simd-threaded\.wasm",\s*import\.meta\.url\)\.href/g, '"runtime.wasm"')
      .replaceAll("import.meta.url", '"file:///page.html"')
      .replaceAll("location.origin", '"file://"');
  },
};

/** Puts the WebAssembly in as inert text, and writes a content policy that allows this script and no request at all. */
const seal: Plugin = {
  name: "seal",
  enforce: "post",
  generateBundle: {
    order: "post", // after the script has come into the page
    handler(_, bundle) {
      const page = bundle["index.html"];
      if (page?.type !== "asset") throw new Error("there is no index.html to seal");
      const html = String(page.source);
      const scripts = [...html.matchAll(/<script type="module"[^>]*>([\s\S]*?)<\/script>/g)].map((found) => found[1]!);
      if (scripts.length !== 1 || !scripts[0]) throw new Error(`expected one script with text in the page, found ${scripts.length}`);
      const hash = createHash("sha256").update(scripts[0]!).digest("base64");
      const policy = [
        "default-src 'none'",
        `script-src 'sha256-${hash}' 'wasm-unsafe-eval'`,
        "style-src 'unsafe-inline'",
        "img-src blob: data:",
        "base-uri 'none'",
        "form-action 'none'",
      ].join("; ");
      const packed = gzipSync(readFileSync(RUNTIME), { level: constants.Z_BEST_COMPRESSION }).toString("base64");
      page.source = html
        .replace("%POLICY%", () => policy)
        .replace("%RUNTIME%", () => packed);
    },
  },
};

export default defineConfig({
  plugins: [noSecondRuntime, viteSingleFile({ removeViteModuleLoader: true }), seal],
  build: { target: "es2022", modulePreload: false, reportCompressedSize: false },
});
