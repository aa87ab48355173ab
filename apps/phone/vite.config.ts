import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { build, defineConfig, type Plugin } from "vite";

const OUT = "dist";
/** What ships in the bundle, and so what must be named. */
const SHIPPED = ["onnxruntime-web", "onnxruntime-common", "@noble/hashes"];
/** Smaller files gain nothing; pictures are compressed already. */
const COMPRESSED = /\.(html|js|mjs|css|svg|wasm|webmanifest|txt)$/;
/** Brotli at 11 takes two minutes for the WebAssembly file and saves another tenth. */
const QUALITY = 9;

function files(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      return entry.isDirectory() ? files(path) : [path];
    })
    .sort();
}

const sha256 = (data: Buffer | string): string => createHash("sha256").update(data).digest("hex");

/** After the page is written: licences, the service worker with its list, compressed copies. */
function finish(): Plugin {
  return {
    name: "fieldlens-finish",
    apply: "build",
    async closeBundle() {
      writeFileSync(join(OUT, "licences.txt"), licences());
      const shell = files(OUT).map((path) => relative(OUT, path).replaceAll("\\", "/"));
      const hashes = shell.map((path) => [path === "index.html" ? "./" : path, sha256(readFileSync(join(OUT, path)))]);
      await build({
        configFile: false,
        logLevel: "warn",
        publicDir: false,
        define: {
          __SHELL__: JSON.stringify(hashes),
          __SHELL_HASH__: JSON.stringify(sha256(JSON.stringify(hashes)).slice(0, 16)),
        },
        build: {
          outDir: OUT,
          emptyOutDir: false,
          lib: { entry: "src/sw.ts", formats: ["es"], fileName: () => "sw.js" },
        },
      });
      for (const path of files(OUT).filter((name) => COMPRESSED.test(name))) compress(path);
    },
  };
}

function licences(): string {
  const parts = SHIPPED.map((name) => {
    const folder = join("node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const text = ["LICENSE", "LICENSE.txt", "LICENSE.md"].map((file) => join(folder, file)).find(existsSync);
    return `${name} ${version} (${license})\n\n${text ? readFileSync(text, "utf8") : MIT_OF_ONNX_RUNTIME}`;
  });
  return `Fieldlens: Apache-2.0\n\n${parts.join("\n\n----\n\n")}`;
}

/** The packages name MIT and leave out its text; this is the notice of their source repository. */
const MIT_OF_ONNX_RUNTIME = `MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
`;

function compress(path: string): void {
  const bytes = readFileSync(path);
  const params = {
    [constants.BROTLI_PARAM_QUALITY]: QUALITY,
    [constants.BROTLI_PARAM_LGWIN]: 24,
    [constants.BROTLI_PARAM_SIZE_HINT]: statSync(path).size,
  };
  writeFileSync(`${path}.br`, brotliCompressSync(bytes, { params }));
  writeFileSync(`${path}.gz`, gzipSync(bytes, { level: 9 }));
}

export default defineConfig({
  base: "./",
  // The runtime's own copy of its WebAssembly loader would be a second one, and needs blob: URLs.
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", "module", "browser", "import"] },
  build: { outDir: OUT, target: "es2022", assetsInlineLimit: 0, chunkSizeWarningLimit: 1000 },
  worker: { format: "es" },
  plugins: [finish()],
});
