// Build the two bundles of the HTML report into runner/page/vendor, with the licences of all that is in them.
//
// Equal sources and lock give equal bytes: nothing here depends on the time, the folder or the machine.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync, gzipSync } from "node:zlib";
import { licences } from "./licences.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const VENDOR = fileURLToPath(new URL("../../runner/page/vendor/", import.meta.url));
const BUNDLES = ["charts", "viewer"];
const SOURCE = /(\.m?js|^package(-lock)?\.json)$/;

const inputs = new Set();
let spark;
mkdirSync(VENDOR, { recursive: true });
for (const name of BUNDLES) writeFileSync(`${VENDOR}${name}.js.gz`, gzipped(await bundle(name)));
writeFileSync(`${VENDOR}LICENSES.txt`, licences(`${HERE}node_modules/`, inputs, spark));
writeFileSync(`${VENDOR}SHA256SUMS`, sums());

/** Return a bundle's text: a classic script for the browsers of 2023 and later. */
async function bundle(name) {
  const built = await build({
    absWorkingDir: HERE,
    entryPoints: [`${name}.js`],
    bundle: true,
    minify: true,
    format: "iife",
    target: ["chrome115", "firefox115", "safari16.4"],
    charset: "utf8",
    legalComments: "none",
    logLevel: "warning",
    metafile: true,
    write: false,
    plugins: [{ name: "packed-wasm", setup: packWasm }],
  });
  for (const { inputs: parts } of Object.values(built.metafile.outputs)) {
    for (const [path, { bytesInOutput }] of Object.entries(parts)) if (bytesInOutput > 0) inputs.add(path);
  }
  return built.outputFiles[0].text;
}

/**
 * Pack the WebAssembly inside Spark once more: as base64 of gzip it takes a quarter less of the packed bundle than
 * as plain base64, which hides from gzip what repeats. Spark waits for its module anyway.
 */
function packWasm(steps) {
  steps.onLoad({ filter: /spark\.module\.js$/ }, ({ path }) => {
    const text = readFileSync(path, "utf8");
    const plain = /const WASM = decode64\("([^"]+)"\)\.buffer;\s*const WASM_MODULE = WebAssembly\.compile\(WASM\);/;
    const found = plain.exec(text);
    if (!found) throw new Error("Spark holds its WebAssembly in another way than before: look at packWasm.");
    spark = Buffer.from(found[1], "base64");
    const unpacked = 'new Blob([PACKED]).stream().pipeThrough(new DecompressionStream("gzip"))';
    const packed =
      `const PACKED = decode64("${gzipped(spark).toString("base64")}");\n` +
      `const WASM_MODULE = new Response(${unpacked}).arrayBuffer().then((bytes) => WebAssembly.compile(bytes));`;
    // Developer tools would look for the map of a worker that has no place.
    const contents = text.replace(plain, () => packed).replaceAll(/\\n\/\/# sourceMappingURL=[\w.-]+/g, "");
    return { contents, loader: "js" };
  });
}

/** Return the gzip of it. Node writes no time and no name into it, but the system's number: that is set to "unknown". */
function gzipped(content) {
  const packed = gzipSync(content, { level: 9 });
  packed[9] = 255;
  if (packed.readUInt32LE(4) !== 0 || !gunzipSync(packed).equals(Buffer.from(content))) throw new Error("gzip");
  return packed;
}

/** Return the SHA-256 of the sources and of what was built of them: a test tells when they no longer belong together. */
function sums() {
  const sources = readdirSync(HERE).filter((name) => SOURCE.test(name)).map((name) => [`scripts/assets/${name}`, HERE + name]);
  const built = readdirSync(VENDOR).filter((name) => name !== "SHA256SUMS");
  const files = [...sources, ...built.map((name) => [`runner/page/vendor/${name}`, VENDOR + name])].sort();
  const line = ([name, path]) => `${createHash("sha256").update(readFileSync(path)).digest("hex")}  ${name}\n`;
  return files.map(line).join("");
}
