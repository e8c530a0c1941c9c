// Check that a file is whole before a library takes it: they trust the counts that a file claims.

const SIZES = {
  char: 1, uchar: 1, int8: 1, uint8: 1, short: 2, ushort: 2, int16: 2, uint16: 2,
  int: 4, uint: 4, int32: 4, uint32: 4, float: 4, float32: 4, double: 8, float64: 8,
};
const HEADER_MOST_BYTES = 65536;
const CORNERS = ["vertex_indices", "vertex_index"];
const SPLAT_BYTES = 32;
const UNREAD = ["KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_texture_basisu"];

/** A file that cannot be shown, with a sentence that says why. */
export class Unreadable extends Error {}

export const number = (count) => count.toLocaleString("en");

/** Return the encoding of a PLY, the names of its vertices' properties and its count of faces, as {encoding, names, faces}. */
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
  const face = elements.find(({ name, names }) => name === "face" && names.some((one) => CORNERS.includes(one)));
  return { encoding, names: elements.find(({ name }) => name === "vertex")?.names ?? [], faces: face?.count ?? 0 };
}

/** Add it to its element, with the fewest bytes it can take: in text a digit and a space, of a list its length. */
function addProperty(element, words, encoding) {
  if (!element) throw new Unreadable("The header of this PLY makes no sense.");
  element.names.push(words.at(-1));
  element.bytes += encoding === "ascii" ? 2 : (SIZES[words[1] === "list" ? words[2] : words[1]] ?? NaN);
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
