// Make of an SPZ in any of its containers one of version 1 to 3 in gzip, which Spark reads, and say which way is up in it.
//
// Niantic, https://github.com/nianticlabs/spz: "File Format"; 404-Repo/spz for the zstd container.
import { Decompress } from "fzstd";
import { number, Unreadable } from "./headers.js";

const MAGIC = 0x5053474e;
const HEADER_BYTES = 16;
const HARMONICS_BYTES = [0, 9, 24, 45];
const STREAMS_HEADER_BYTES = 32;
const STREAM_BYTES = 16;
const BEHIND_MOST_BYTES = 16 * 1024 ** 2;

/**
 * Return {bytes, up}. Throws Unreadable. By Niantic's word y points up (versions 1 to 3 in gzip, and 4); 404's files, in
 * one zstd frame, are PLYs of splats that were packed as they were, with y down.
 */
export async function gzipped(bytes) {
  const start = String.fromCharCode(...bytes.subarray(0, 4));
  if (start === "NGSP") return { bytes: await gzip(ofStreams(bytes)), up: "y" };
  if (start === "\x28\xb5\x2f\xfd") return { bytes: await gzip(ofFrame(bytes)), up: "-y" };
  if (!start.startsWith("\x1f\x8b")) throw new Unreadable("This is no SPZ file: it is neither gzip nor Zstandard.");
  await checkGzip(bytes);
  return { bytes, up: "y" };
}

/** Check that it is gzip around a header that says how long the rest is at least: Spark trusts its count. */
async function checkGzip(bytes) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  const header = new Uint8Array(HEADER_BYTES);
  let size = 0;
  let least = Infinity;
  while (size < least) {
    const { done, value } = await reader.read().catch(() => {
      throw new Unreadable("This SPZ is damaged or ends early: it cannot be unpacked.");
    });
    if (done) throw new Unreadable(`This SPZ ends early: it unpacks to ${number(size)} bytes.`);
    if (size < HEADER_BYTES) header.set(value.subarray(0, HEADER_BYTES - size), size);
    size += value.length;
    if (size >= HEADER_BYTES) least = unpackedSize(header);
  }
  await reader.cancel();
}

/** Return how many bytes the header and the attributes are. */
function unpackedSize(header) {
  const view = new DataView(header.buffer, header.byteOffset, HEADER_BYTES);
  if (view.getUint32(0, true) !== MAGIC) throw new Unreadable("This is no SPZ file: something else is packed in it.");
  const [version, count, degree] = [view.getUint32(4, true), view.getUint32(8, true), header[12]];
  if (version < 1 || version > 3) throw new Unreadable(`This SPZ is of version ${version}; this view reads 1 to 4.`);
  const harmonics = HARMONICS_BYTES[degree];
  if (harmonics === undefined) throw new Unreadable(`This SPZ has harmonics of degree ${degree}; this view reads 0 to 3.`);
  const position = version === 1 ? 6 : 9;
  const rotation = version === 3 ? 4 : 3;
  return HEADER_BYTES + count * (position + 1 + 3 + 3 + rotation + harmonics);
}

/** Return what one zstd frame holds: what others pack with gzip. */
function ofFrame(bytes) {
  let most = Infinity;
  const parts = unpacked(bytes, (got) => {
    if (most === Infinity && got.size >= HEADER_BYTES) most = unpackedSize(joined(got.parts)) + BEHIND_MOST_BYTES;
    return most;
  });
  const content = joined(parts);
  const least = content.length < HEADER_BYTES ? HEADER_BYTES : unpackedSize(content);
  if (content.length < least) throw new Unreadable(`This SPZ ends early: it unpacks to ${number(content.length)} bytes.`);
  return content;
}

/** Return version 4, one zstd frame an attribute, as version 3: the attributes are the same, and in the same order. */
function ofStreams(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < STREAMS_HEADER_BYTES) throw new Unreadable("This SPZ ends early: in its header.");
  const [version, streams, table] = [view.getUint32(4, true), bytes[15], view.getUint32(16, true)];
  if (version !== 4) throw new Unreadable(`This SPZ is of version ${version}; this view reads 1 to 4.`);
  const header = new Uint8Array(HEADER_BYTES);
  header.set(bytes.subarray(0, 14));
  header[4] = 3;
  let begin = table + streams * STREAM_BYTES;
  if (begin > bytes.length) throw new Unreadable("This SPZ ends early: in its table of streams.");
  let left = unpackedSize(header) - HEADER_BYTES;
  const parts = [header];
  for (let stream = 0; stream < streams; stream++) {
    const packed = Number(view.getBigUint64(table + stream * STREAM_BYTES, true));
    if (begin + packed > bytes.length) throw new Unreadable("This SPZ ends early: in one of its streams.");
    for (const part of unpacked(bytes.subarray(begin, begin + packed), () => left)) {
      parts.push(part);
      left -= part.length;
    }
    begin += packed;
  }
  if (left) throw new Unreadable(`This SPZ is damaged: its streams lack ${number(left)} bytes.`);
  return joined(parts);
}

/** Return the parts of a zstd frame's content; stops as soon as they are more than `most` says of {parts, size}. */
function unpacked(bytes, most) {
  const got = { parts: [], size: 0 };
  const frame = new Decompress((part) => {
    got.parts.push(part);
    got.size += part.length;
    if (got.size > most(got)) throw new Unreadable("This SPZ is damaged: it unpacks to more than its header implies.");
  });
  try {
    frame.push(bytes, true);
  } catch (error) {
    if (error instanceof Unreadable) throw error;
    throw new Unreadable(`This SPZ is damaged or ends early: it cannot be unpacked (${error.message}).`, { cause: error });
  }
  return got.parts;
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

async function gzip(content) {
  const packed = new Blob([content]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(packed).arrayBuffer());
}
