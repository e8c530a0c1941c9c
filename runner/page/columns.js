// Unpack what the page carries: the data in columns, the bundles, the pictures.

const TYPES = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f32: Float32Array, f64: Float64Array };
const NONE = 0xffff;
const NO_PROMPT = 0xffffffff;

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let place = 0; place < binary.length; place++) bytes[place] = binary.charCodeAt(place);
  return bytes;
}

/** Return the text that stands packed in an element, and take it out of the page. */
async function unpacked(id) {
  const element = byId(id);
  const packed = new Blob([bytesOf(element.textContent)]);
  element.textContent = "";
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

function columnsOf(node) {
  if (node === null || typeof node !== "object") return node;
  if (typeof node.t === "string" && typeof node.b === "string") {
    const bytes = bytesOf(node.b);
    return new TYPES[node.t](bytes.buffer, bytes.byteOffset, bytes.byteLength / TYPES[node.t].BYTES_PER_ELEMENT);
  }
  return Object.fromEntries(Object.entries(node).map(([name, value]) => [name, columnsOf(value)]));
}

/** Return the data: what stands in columns becomes typed arrays, all else stays what it is. */
async function readData() {
  const told = JSON.parse(await unpacked("data"));
  for (const name of ["attempts", "idle", "rows"]) told[name] = shallow(told[name]);
  told.pictures = shallow(told.pictures);
  for (const name of ["thumbnail", "prompt", "model"]) told.pictures[name] = shallow(told.pictures[name]);
  told.pictureOf = new Int32Array(told.rows.keys.length).fill(-1);
  told.pictures.row.forEach((row, place) => {
    if (row < told.pictureOf.length) told.pictureOf[row] = place;
  });
  return told;
}

function shallow(node) {
  return Object.fromEntries(Object.entries(node).map(([name, value]) => [name, value?.b === undefined ? value : columnsOf(value)]));
}

/** Run a bundle that stands packed in the page. */
async function runBundle(id) {
  const text = await unpacked(id);
  const script = make("script");
  script.nonce = nonce;
  script.textContent = text;
  document.head.append(script);
}

/** Return the URL of a picture ("thumbnail" or "prompt") of a row: in the page, else beside it, else "". */
function pictureUrl(told, row, which) {
  const place = told.pictureOf[row];
  if (place < 0) return "";
  const placed = told.pictures[which];
  if (placed.until[place]) {
    const shelf = byId("thumbnails").firstChild;
    return `data:image/webp;base64,${shelf.data.slice(placed.from[place], placed.until[place])}`;
  }
  const name = placedName(told, placed, place);
  return name ? told.root + placed.folder + name : "";
}

/** Return what a file beside the page is called, "" if there is none: most are called by a digest. */
function placedName(told, placed, place) {
  const number = placed.digest[place];
  if (!number) return placed.names[place] ?? "";
  const bytes = told.pictures.digests.subarray(32 * (number - 1), 32 * number);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("") + placed.ending;
}

/** Return the URL of a row's result as seen from the page, "" if it has none. */
function fileUrl(told, row) {
  const { rows } = told;
  if (!rows.has_file[row]) return "";
  const name = rows.files[row] ?? encodeURIComponent(`${rows.keys[row]}.${rows.formats[rows.format[row]]}`);
  return told.root + name;
}

function flagsOf(told, row) {
  const flags = told.pictures.flags[row] ?? [];
  return told.rows.missing[row] ? [["missing", "The file is not there any more, or not as it was saved."], ...flags] : flags;
}
