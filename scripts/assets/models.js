// Make of a file's bytes what can be drawn: splats, a mesh or points.
import { SplatFileType, SplatMesh } from "@sparkjsdev/spark";
import {
  BufferAttribute, DoubleSide, LoadingManager, Matrix4, Mesh, MeshStandardMaterial, Points, PointsMaterial, setConsoleFunction, Vector3,
} from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { PLYLoader } from "three/addons/loaders/PLYLoader.js";
import { checkGlb, checkPly, checkSplat, Unreadable } from "./headers.js";
import { gzipped } from "./spz.js";

const NAMES = { glb: "GLB", ply: "PLY", splat: ".splat", spz: "SPZ" };
const WHITE = 0xffffff;
const PLAIN = 0xb8bdc7;
const VISIBLE_OPACITY = 0.1;
const SAMPLE_MOST = 20000;
const DEVIATIONS = 2;
const SAID_MOST = 160;

/**
 * Return {kind, count, object, sample, up}: a three.js object, where some of its parts are, each as [x, y, z, radius], and
 * which of its axes points up by the word of its format.
 * Throws Unreadable. `bytes` are left as they are.
 */
export async function model(bytes, format) {
  if (!NAMES[format]) throw new Unreadable(`This view does not read ${format}; it reads ${Object.values(NAMES).join(", ")}.`);
  try {
    const made = await READERS[format](bytes);
    if (!made.count || !made.sample.length) throw new Unreadable(`This ${NAMES[format]} holds nothing that can be shown.`);
    return made;
  } catch (error) {
    if (error instanceof Unreadable) throw error;
    throw new Unreadable(`This ${NAMES[format]} cannot be read: ${said(error)}`, { cause: error });
  }
}

/** Return what a library says, which may be as long as the file. */
export function said(error) {
  const text = String(error?.message ?? error).replace(/^THREE\.\w+: /, "");
  return text.length > SAID_MOST ? `${text.slice(0, SAID_MOST)}…` : text;
}

const READERS = {
  async ply(bytes) {
    const { encoding, names, faces } = checkPly(bytes);
    if (names.includes("packed_position") || (names.includes("f_dc_0") && names.includes("rot_0"))) {
      if (names.includes("scale_0") && !names.includes("scale_2")) {
        throw new Unreadable("This PLY holds flat splats, with two scales each, which this view does not read.");
      }
      if (encoding === "binary_little_endian") return splats(bytes, SplatFileType.PLY, "-y");
      throw new Unreadable(`This PLY holds splats as ${encoding}; this view reads them as binary_little_endian.`);
    }
    return surface(bytes, faces);
  },
  async spz(bytes) {
    const { bytes: packed, up } = await gzipped(bytes);
    return splats(packed, SplatFileType.SPZ, up);
  },
  async splat(bytes) {
    checkSplat(bytes);
    return splats(bytes, SplatFileType.SPLAT, "-y");
  },
  async glb(bytes) {
    checkGlb(bytes);
    return scene(bytes);
  },
};

async function splats(bytes, fileType, up) {
  const object = new SplatMesh({ fileBytes: bytes, fileType, raycastable: false, editable: false });
  await object.initialized;
  const count = object.numSplats;
  const sample = [];
  const step = Math.ceil(count / SAMPLE_MOST);
  object.forEachSplat((index, center, scales, _turn, opacity) => {
    if (index % step === 0 && opacity >= VISIBLE_OPACITY) add(sample, center, DEVIATIONS * Math.max(...scales));
  });
  return { kind: "splats", count, object, sample, up };
}

/** Return the mesh of a PLY with faces, or its points. */
function surface(bytes, faces) {
  const geometry = parsed(bytes);
  const vertexColors = geometry.hasAttribute("color");
  const color = vertexColors ? WHITE : PLAIN;
  const indices = checkedIndex(geometry);
  // A PLY without faces gives no index; one whose faces are all empty gives an empty one; and one whose faces have
  // texture coordinates gives none, but three vertices a triangle.
  if (geometry.index ? !indices : !faces) {
    finite(geometry.setIndex(null), 1);
    return finished(new Points(geometry, new PointsMaterial({ vertexColors, color })));
  }
  finite(geometry, 3);
  if (!geometry.hasAttribute("normal")) geometry.computeVertexNormals();
  return finished(new Mesh(geometry, new MeshStandardMaterial({ vertexColors, color, roughness: 0.8 })));
}

/** Return the geometry of a PLY; what is wrong with its numbers is not for the console. */
function parsed(bytes) {
  setConsoleFunction(() => {});
  try {
    return single(new PLYLoader().parse(bytes.slice().buffer));
  } finally {
    setConsoleFunction(null);
  }
}

/** Make numbers of 64 bits, which no graphics card takes, ones of 32; positions from the first, or they would lose much. */
function single(geometry) {
  for (const [name, { array, itemSize }] of Object.entries(geometry.attributes)) {
    if (!(array instanceof Float64Array)) continue;
    const places = name === "position" ? array : [];
    const first = Array.from({ length: itemSize }, (_, axis) => places.find((value, at) => at % itemSize === axis && Number.isFinite(value)) ?? 0);
    geometry.setAttribute(name, new BufferAttribute(Float32Array.from(array, (value, at) => value - first[at % itemSize]), itemSize));
  }
  geometry.computeBoundingSphere();
  return geometry;
}

/** Take out what has a corner at no place: of triangles, 3 `corners` each, or of points, 1. */
function finite(geometry, corners) {
  const positions = geometry.getAttribute("position");
  if (!positions || positions.array.every(Number.isFinite)) return;
  const lost = (vertex) => !Number.isFinite(positions.getX(vertex) + positions.getY(vertex) + positions.getZ(vertex));
  const kept = [];
  const size = geometry.index?.count ?? positions.count;
  for (let place = 0; place + corners <= size; place += corners) {
    const named = Array.from({ length: corners }, (_, corner) => geometry.index?.getX(place + corner) ?? place + corner);
    if (!named.some(lost)) kept.push(...named);
  }
  if (!kept.length) throw new Unreadable("This PLY holds nothing that can be shown: its positions are no numbers.");
  const [x, y, z] = [positions.getX(kept[0]), positions.getY(kept[0]), positions.getZ(kept[0])];
  for (let vertex = 0; vertex < positions.count; vertex++) if (lost(vertex)) positions.setXYZ(vertex, x, y, z);
  geometry.setIndex(kept);
  geometry.computeBoundingSphere();
}

async function scene(bytes) {
  // Pictures that lie elsewhere are not asked for.
  const manager = new LoadingManager().setURLModifier((url) => (/^(blob|data):/.test(url) ? url : "data:,"));
  const loaded = await new GLTFLoader(manager).parseAsync(bytes.slice().buffer, "");
  const object = loaded.scene ?? loaded.scenes[0];
  object.traverse((part) => {
    for (const material of [part.material ?? []].flat()) colour(material, loaded.parser.associations);
  });
  return finished(object);
}

/** Give a part without a material the colour that it has in its thumbnail: by glTF it is white, as the page may be. */
function colour(material, associations) {
  const stands = associations.get(material)?.materials !== undefined;
  if (!stands && !material.vertexColors && material.color?.getHex() === WHITE) material.color.set(PLAIN);
}

function finished(object) {
  let [triangles, points] = [0, 0];
  const parts = [];
  object.updateMatrixWorld(true);
  object.traverse((part) => {
    if (!part.isMesh && !part.isPoints) return;
    const size = checkedIndex(part.geometry) || part.geometry.getAttribute("position")?.count || 0;
    if (part.isMesh) triangles += Math.floor(size / 3) * (part.count ?? 1);
    else points += size;
    for (const material of [part.material].flat()) amend(material);
    parts.push(part);
  });
  const sample = parts.length ? sampled(parts) : [];
  return { kind: triangles ? "mesh" : "points", count: triangles || points, object, sample, up: "y" };
}

/** Show a material as it was most likely meant. */
function amend(material) {
  // What a generator makes has often a back side where its front should be.
  material.side = DoubleSide;
  // A rough metal is what glTF means where nobody said anything.
  if (material.metalness === 1 && material.roughness === 1 && !material.metalnessMap) material.metalness = 0;
}

/** Return how long a geometry's index is, 0 if it has none. The graphics card would not say that one is wrong. */
function checkedIndex(geometry) {
  const index = geometry.index;
  const most = geometry.getAttribute("position")?.count ?? 0;
  for (let place = 0; place < (index?.count ?? 0); place++) {
    if (index.getX(place) >= most) throw new Unreadable(`This mesh is damaged: a face names vertex ${index.getX(place)} of ${most}.`);
  }
  return index?.count ?? 0;
}

function sampled(parts) {
  const sample = [];
  const position = new Vector3();
  const all = parts.reduce((sum, part) => sum + (part.geometry.getAttribute("position")?.count ?? 0) * (part.count ?? 1), 0);
  const step = Math.ceil(all / SAMPLE_MOST);
  for (const part of parts) {
    const positions = part.geometry.getAttribute("position");
    const copies = copiesOf(part);
    for (let place = 0; place < (positions?.count ?? 0) * copies.length; place += step) {
      const vertex = place % positions.count;
      // A mesh knows where skin and morph targets put a vertex.
      if (part.isMesh) part.getVertexPosition(vertex, position);
      else position.fromBufferAttribute(positions, vertex);
      add(sample, position.applyMatrix4(copies[Math.floor(place / positions.count)]), 0);
    }
  }
  return sample;
}

/** Return where a part stands, once or more often. */
function copiesOf(part) {
  if (!part.isInstancedMesh) return [part.matrixWorld];
  return Array.from({ length: part.count }, (_, copy) => {
    const matrix = new Matrix4();
    part.getMatrixAt(copy, matrix);
    return matrix.premultiply(part.matrixWorld);
  });
}

function add(sample, { x, y, z }, radius) {
  if (Number.isFinite(x + y + z + radius)) sample.push([x, y, z, radius]);
}

/** Give back what the graphics card and the decoder of pictures hold. */
export function free(object) {
  object.traverse((part) => {
    if (part === object && part instanceof SplatMesh) part.dispose();
    part.geometry?.dispose();
    for (const material of [part.material ?? []].flat()) {
      for (const value of Object.values(material)) {
        if (!value?.isTexture) continue;
        value.dispose();
        value.image?.close?.();
      }
      material.dispose();
    }
  });
}
