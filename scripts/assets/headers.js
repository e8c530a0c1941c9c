// Check that a file is whole before a library takes it: they trust the counts that a file claims.

const SIZES = {
  char: 1, uchar: 1, int8: 1, uint8: 1, short: 2, ushort: 2, int16: 2, uint16: 2,
  int: 4, uint: 4, int32: 4, uint32: 4, float: 4, float32: 4, double: 8, float64: 8,
};
const HEADER_MOST_BYTES = 65536;
const SPZ_HEADER_BYTES = 16;
const SPZ_HARMONICS_BYTES = [0, 9, 24, 45];
const SPLAT_BYTES = 32;
const UNREAD = ["KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_texture_basisu"];

/** A file that cannot be shown, with a sentence that says why. */
export class Unreadable extends Error {}

const number = (count) => count.toLocaleString("en");

/** Return the encoding of a PLY and the names of its vertices' properties, as {encoding, names}. */
export function checkPly(bytes) {
  const text = new TextDecoder("latin1").decode(bytes.subarray(0, HEADER_MOST_BYTES));
  if (!/^ply\r?\n/.test(text)) throw new Unreadable("This is no PLY file: it does not begin with “ply”.");
  const end = /\nend_header\r?\n/.exec(text);
  if (!end) throw new Unreadable("This PLY has no end of its header.");
  const elements = [];
  let encoding = "";
  for (const line of text.slice(0, end.index).split(/\r?\n/)) {
    const words = line.trim().split(/\s+/);
    if (words[0] === "format") encoding = words[1];
    if (words[0] === "element") elements.push({ name: words[1], count: Number(words[2]), names: [], bytes: 0 });
    if (words[0] === "property") addProperty(elements.at(-1), words, encoding);
  }
  const body = bytes.length - end.index - end[0].length;
  const least = elements.reduce((sum, element) => sum + element.count * element.bytes, 0);
  if (!elements.every(({ count }) => Number.isSafeInteger(count) && count >= 0) || !Number.isFinite(least)) {
    throw new Unreadable("The header of this PLY makes no sense.");
  }
  // In text, the last line may do without its end.
  if (body + (encoding === "ascii" ? 1 : 0) < least) {
    throw new Unreadable(`This PLY ends early: ${number(body)} bytes follow its header, which promises ${number(least)}.`);
  }
  return { encoding, names: elements.find(({ name }) => name === "vertex")?.names ?? [] };
}

/** Add it to its element, with the fewest bytes it can take: in text a digit and a space, of a list its length. */
function addProperty(element, words, encoding) {
  if (!element) throw new Unreadable("The header of this PLY makes no sense.");
  element.names.push(words.at(-1));
  element.bytes += encoding === "ascii" ? 2 : (SIZES[words[1] === "list" ? words[2] : words[1]] ?? NaN);
}

/** Check an SPZ of version 1 to 3: gzip around a header that says how long the rest is at least. */
export async function checkSpz(bytes) {
  const start = String.fromCharCode(...bytes.subarray(0, 4));
  if (start === "NGSP" || start === "\x28\xb5\x2f\xfd") {
    throw new Unreadable("This SPZ is packed with Zstandard (version 4); this view reads those packed with gzip (1 to 3).");
  }
  if (!start.startsWith("\x1f\x8b")) throw new Unreadable("This is no SPZ file: it is not gzip.");
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  const header = new Uint8Array(SPZ_HEADER_BYTES);
  let size = 0;
  let least = Infinity;
  while (size < least) {
    const { done, value } = await reader.read().catch(() => {
      throw new Unreadable("This SPZ is damaged or ends early: it cannot be unpacked.");
    });
    if (done) throw new Unreadable(`This SPZ ends early: it unpacks to ${number(size)} bytes.`);
    if (size < SPZ_HEADER_BYTES) header.set(value.subarray(0, SPZ_HEADER_BYTES - size), size);
    size += value.length;
    if (size >= SPZ_HEADER_BYTES) least = spzSize(header);
  }
  await reader.cancel();
}

function spzSize(header) {
  const view = new DataView(header.buffer);
  if (view.getUint32(0, true) !== 0x5053474e) throw new Unreadable("This is no SPZ file: there is something else in the gzip.");
  const [version, count, degree] = [view.getUint32(4, true), view.getUint32(8, true), header[12]];
  if (version < 1 || version > 3) throw new Unreadable(`This SPZ is of version ${version}; this view reads 1 to 3.`);
  const harmonics = SPZ_HARMONICS_BYTES[degree];
  if (harmonics === undefined) throw new Unreadable(`This SPZ has harmonics of degree ${degree}; this view reads 0 to 3.`);
  const position = version === 1 ? 6 : 9;
  const rotation = version === 3 ? 4 : 3;
  return SPZ_HEADER_BYTES + count * (position + 1 + 3 + 3 + rotation + harmonics);
}

/** Check a .splat, which is nothing but records of 32 bytes. */
export function checkSplat(bytes) {
  if (bytes.length % SPLAT_BYTES) throw new Unreadable("This .splat is damaged: its size is no multiple of 32 bytes.");
}

/** Check a GLB that stands on its own: no other file, no compression that needs another decoder. */
export function checkGlb(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 20 || view.getUint32(0, true) !== 0x46546c67) throw new Unreadable("This is no GLB file.");
  const [size, length] = [view.getUint32(8, true), view.getUint32(12, true)];
  if (size > bytes.length || 20 + length > size) {
    throw new Unreadable(`This GLB ends early: it is ${number(bytes.length)} bytes long and says ${number(size)}.`);
  }
  const document = glbDocument(bytes.subarray(20, 20 + length));
  const outside = (entry) => typeof entry?.uri === "string" && !entry.uri.startsWith("data:");
  if ([document.buffers ?? []].flat().some(outside)) throw new Unreadable("This GLB needs another file beside it.");
  const needed = [document.extensionsRequired ?? []].flat().filter((name) => UNREAD.includes(name));
  if (needed.length) throw new Unreadable(`This GLB needs ${needed.join(" and ")}, which this view does not read.`);
}

function glbDocument(chunk) {
  try {
    return Object(JSON.parse(new TextDecoder().decode(chunk)));
  } catch {
    throw new Unreadable("This GLB is damaged: its description is no JSON.");
  }
}
