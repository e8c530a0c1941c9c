// Make of a file's bytes what can be drawn: splats, a mesh or points.
import { SplatFileType, SplatMesh } from "@sparkjsdev/spark";
import {
  DoubleSide, LoadingManager, Mesh, MeshStandardMaterial, Points, PointsMaterial, Vector3,
} from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { PLYLoader } from "three/addons/loaders/PLYLoader.js";
import { checkGlb, checkPly, checkSplat, checkSpz, Unreadable } from "./headers.js";

const NAMES = { glb: "GLB", ply: "PLY", splat: ".splat", spz: "SPZ" };
const PLAIN = 0xb8b8b8;
const VISIBLE_OPACITY = 0.1;
const SAMPLE_MOST = 20000;

/**
 * Return {kind, count, object, sample}: a three.js object and the positions of some of its parts, as they stand in it.
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
    const why = String(error?.message ?? error).replace(/^THREE\.\w+: /, "");
    throw new Unreadable(`This ${NAMES[format]} cannot be read: ${why}`, { cause: error });
  }
}

const READERS = {
  async ply(bytes) {
    const { encoding, names } = checkPly(bytes);
    if (names.includes("packed_position") || (names.includes("f_dc_0") && names.includes("rot_0"))) {
      if (encoding === "binary_little_endian") return splats(bytes, SplatFileType.PLY);
      throw new Unreadable(`This PLY holds splats as ${encoding}; this view reads them as binary_little_endian.`);
    }
    return surface(bytes);
  },
  async spz(bytes) {
    await checkSpz(bytes);
    return splats(bytes, SplatFileType.SPZ);
  },
  async splat(bytes) {
    checkSplat(bytes);
    return splats(bytes, SplatFileType.SPLAT);
  },
  async glb(bytes) {
    checkGlb(bytes);
    return scene(bytes);
  },
};

async function splats(bytes, fileType) {
  const object = new SplatMesh({ fileBytes: bytes, fileType, raycastable: false, editable: false });
  await object.initialized;
  const count = object.numSplats;
  const sample = [];
  const step = Math.ceil(count / SAMPLE_MOST);
  object.forEachSplat((index, center, _scales, _turn, opacity) => {
    if (index % step === 0 && opacity >= VISIBLE_OPACITY) add(sample, center);
  });
  return { kind: "splats", count, object, sample };
}

/** Return the mesh of a PLY with faces, or its points. */
function surface(bytes) {
  const geometry = new PLYLoader().parse(bytes.slice().buffer);
  const vertexColors = geometry.hasAttribute("color");
  const color = vertexColors ? 0xffffff : PLAIN;
  if (!geometry.index) return finished(new Points(geometry, new PointsMaterial({ vertexColors, color })));
  const indices = checkedIndex(geometry);
  // A PLY without faces gives no index; one whose faces are all empty gives an empty one.
  if (!indices) return finished(new Points(geometry.setIndex(null), new PointsMaterial({ vertexColors, color })));
  if (!geometry.hasAttribute("normal")) geometry.computeVertexNormals();
  return finished(new Mesh(geometry, new MeshStandardMaterial({ vertexColors, color, roughness: 0.8 })));
}

async function scene(bytes) {
  // Pictures that lie elsewhere are not asked for.
  const manager = new LoadingManager().setURLModifier((url) => (/^(blob|data):/.test(url) ? url : "data:,"));
  const loaded = await new GLTFLoader(manager).parseAsync(bytes.slice().buffer, "");
  return finished(loaded.scene ?? loaded.scenes[0]);
}

function finished(object) {
  let [triangles, points] = [0, 0];
  const parts = [];
  object.updateMatrixWorld(true);
  object.traverse((part) => {
    if (!part.isMesh && !part.isPoints) return;
    const size = checkedIndex(part.geometry) || part.geometry.getAttribute("position")?.count || 0;
    if (part.isMesh) triangles += Math.floor(size / 3);
    else points += size;
    for (const material of [part.material].flat()) amend(material);
    parts.push(part);
  });
  const sample = parts.length ? sampled(parts) : [];
  return { kind: triangles ? "mesh" : "points", count: triangles || points, object, sample };
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
  const all = parts.reduce((sum, part) => sum + (part.geometry.getAttribute("position")?.count ?? 0), 0);
  const step = Math.ceil(all / SAMPLE_MOST);
  for (const part of parts) {
    const positions = part.geometry.getAttribute("position");
    for (let place = 0; place < (positions?.count ?? 0); place += step) {
      add(sample, position.fromBufferAttribute(positions, place).applyMatrix4(part.matrixWorld));
    }
  }
  return sample;
}

function add(sample, { x, y, z }) {
  if (Number.isFinite(x + y + z)) sample.push([x, y, z]);
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
