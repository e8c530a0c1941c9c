// Say which packages are in the bundles, and under what licences: the text of LICENSES.txt.
import { existsSync, readFileSync } from "node:fs";

const HEAD = `Third-party code in the HTML report

charts.js.gz and viewer.js.gz in this folder are built by "make assets" from these packages.
`;

/** Packages that another one carries inside its own files, so that the bundler does not see them. */
const INSIDE = { "@sparkjsdev/spark": ["fflate"] };

const TEXTS = {
  echarts: ["NOTICE", "LICENSE", "licenses/LICENSE-d3"],
  tslib: ["CopyrightNotice.txt", "LICENSE.txt"],
};

/** The licences of the Rust crates that are compiled into Spark's WebAssembly, as their Cargo.toml gives them. */
const CRATES = {
  anyhow: "MIT OR Apache-2.0",
  console_error_panic_hook: "Apache-2.0 OR MIT",
  fdeflate: "MIT OR Apache-2.0",
  hashbrown: "MIT OR Apache-2.0",
  image: "MIT OR Apache-2.0",
  "image-webp": "MIT OR Apache-2.0",
  indexmap: "Apache-2.0 OR MIT",
  "js-sys": "MIT OR Apache-2.0",
  memchr: "Unlicense OR MIT",
  miniz_oxide: "MIT OR Zlib OR Apache-2.0",
  png: "MIT OR Apache-2.0",
  serde: "MIT OR Apache-2.0",
  "serde-wasm-bindgen": "MIT",
  serde_core: "MIT OR Apache-2.0",
  serde_json: "MIT OR Apache-2.0",
  smallvec: "MIT OR Apache-2.0",
  "wasm-bindgen": "MIT OR Apache-2.0",
  zip: "MIT",
  "zlib-rs": "Zlib",
};

/** Return the text for these inputs of the bundler, each a path below `modules`, and Spark's WebAssembly. */
export function licences(modules, inputs, spark) {
  const names = new Set([...inputs].map(packageOf).filter(Boolean));
  for (const name of [...names]) for (const inside of INSIDE[name] ?? []) names.add(inside);
  const packages = [...names].sort().map((name) => section(modules, name));
  return [HEAD, ...packages, crates(spark)].join(`\n${"=".repeat(100)}\n\n`);
}

function packageOf(path) {
  return /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1];
}

function section(modules, name) {
  const { version, license } = JSON.parse(readFileSync(`${modules}${name}/package.json`, "utf8"));
  const texts = TEXTS[name] ?? ["LICENSE"];
  const missing = texts.filter((file) => !existsSync(`${modules}${name}/${file}`));
  if (missing.length) throw new Error(`${name} has no ${missing}: name its licence's file in licences.mjs.`);
  const read = (file) => readFileSync(`${modules}${name}/${file}`, "utf8").replaceAll("\r\n", "\n").trim() + "\n";
  return [`${name} ${version} (${license})\n`, ...texts.map(read)].join("\n");
}

/** Name the crates by the paths of their sources, which the compiler leaves in the texts of their panics. */
function crates(spark) {
  const paths = spark.toString("latin1").matchAll(/registry\/src\/[^/]+\/([a-z_-][a-z0-9_-]*?)-(\d+\.\d+\.\d+)\//g);
  const found = new Map([...paths].map(([, name, version]) => [name, version]));
  const unknown = [...found.keys()].filter((name) => !CRATES[name]);
  if (unknown.length) throw new Error(`Which licence has the crate ${unknown}? Name it in licences.mjs.`);
  const lines = [...found].sort().map(([name, version]) => `    ${name} ${version} (${CRATES[name]})\n`);
  return `Rust crates inside the WebAssembly of @sparkjsdev/spark

Used under MIT where that may be chosen:

${lines.join("")}
The MIT licence, with the copyright of the authors of each crate:

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

The Apache License 2.0 stands above, with echarts. zlib-rs is under the Zlib licence, an altered compiled form:
Copyright (c) 2024 Trifecta Tech Foundation. This software is provided 'as-is', without any express or implied
warranty. In no event will the authors be held liable for any damages arising from the use of this software.
`;
}
