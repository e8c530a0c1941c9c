// The 3D view of the report: window.RunnerViewer.open(element, options) shows one file and lets one turn it.
//
// Nothing is asked for: decoders and workers are in here, the bytes come from the page. A view draws when something
// changed and rests otherwise.
import { SparkRenderer } from "@sparkjsdev/spark";
import {
  Color, DirectionalLight, Group, HemisphereLight, PerspectiveCamera, PMREMGenerator, Scene, Vector3, WebGLRenderer,
} from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { RoomEnvironment } from "three/addons/environments/RoomEnvironment.js";
import { frame, robustBox, turn } from "./framing.js";
import { free, model, said } from "./models.js";

const FIELD_DEGREES = 40;
const PIXELS_MOST = 2;
const FARTHEST = 1000;
const METAL = 0.3;

/**
 * Show a file in an element and return its View; rejects with an Error that says why it cannot be shown.
 * `bytes`: Uint8Array; `format`: ply, spz, glb or splat; `up`: y, -y, z or -z, or what the format has; `background`: #rrggbb.
 */
async function open(element, { bytes, format, up, background = "#ffffff" }) {
  if (up) turn(up);
  const shown = await model(bytes, format);
  try {
    return new View(element, shown, up ?? shown.up, background);
  } catch (error) {
    free(shown.object);
    throw new Error(said(error), { cause: error });
  }
}

class View {
  #element;
  #object;
  #sample;
  #box;
  #placed = new Group();
  #renderer;
  #camera;
  #controls;
  #scene = new Scene();
  #turned = new Group();
  #spark = null;
  #watch;
  #frame = 0;
  #moved = false;
  #disposed = false;
  #settle;

  constructor(element, { kind, count, object, sample }, up, background) {
    this.kind = kind;
    this.count = count;
    this.up = up;
    this.drawn = new Promise((resolve) => (this.#settle = resolve));
    this.#element = element;
    this.#object = object;
    this.#sample = sample;
    this.#box = robustBox(sample);
    this.#renderer = renderer(kind);
    this.#camera = new PerspectiveCamera(FIELD_DEGREES, 1, 0.01, FARTHEST);
    this.#controls = new OrbitControls(this.#camera, this.#renderer.domElement);
    this.#place();
    this.#turned.quaternion.copy(turn(up));
    this.#scene.background = new Color(background);
    this.#light();
    this.#listen();
    element.append(this.#renderer.domElement);
    this.#resize();
  }

  /** Turn the object so that this axis of it (y, -y, z or -z) points up, and look at it anew. */
  setUp(axis) {
    this.#turned.quaternion.copy(turn(axis));
    this.up = axis;
    this.reset();
  }

  /** Look at it as in the beginning. */
  reset() {
    this.#moved = false;
    this.#controls.reset();
    this.#controls.target.set(0, 0, 0);
    this.#turned.updateMatrixWorld(true);
    frame(this.#camera, this.#sample, this.#box, this.#placed.matrixWorld);
    this.#controls.update();
    this.#ask();
  }

  /** Take the canvas away and free all it held. */
  dispose() {
    if (this.#disposed) return;
    this.#disposed = true;
    cancelAnimationFrame(this.#frame);
    this.#watch.disconnect();
    this.#controls.dispose();
    this.#renderer.domElement.remove();
    this.#settle();
    // Spark's sorting cannot be stopped half-way without an error that nobody could catch.
    if (!this.#spark?.sorting) this.#free();
    else Object.assign(this.#spark, { sortDirty: false, dirty: false, onDirty: () => setTimeout(() => this.#free()) });
  }

  #free() {
    this.#spark?.dispose();
    free(this.#scene);
    free(this.#object);
    this.#scene.environment?.dispose();
    this.#renderer.dispose();
    this.#renderer.forceContextLoss();
  }

  /** Put the object into the scene, its middle at the origin, scaled so that its diagonal is 1. */
  #place() {
    const scale = 1 / (this.#box.getSize(new Vector3()).length() || 1);
    this.#placed.scale.setScalar(scale);
    this.#box.getCenter(this.#placed.position).multiplyScalar(-scale);
    this.#placed.add(this.#object);
    this.#turned.add(this.#placed);
    this.#scene.add(this.#turned);
    if (this.kind === "points") sizePoints(this.#object, this.count);
  }

  /** Light a mesh; splats and points shine, but splats need what sorts them. */
  #light() {
    if (this.kind === "splats") {
      this.#spark = new SparkRenderer({ renderer: this.#renderer, onDirty: () => this.#ask(), enableLod: false });
      this.#scene.add(this.#spark);
    }
    if (this.kind !== "mesh") return;
    if (metallic(this.#object)) {
      this.#scene.environment = room(this.#renderer);
      return;
    }
    const lamp = new DirectionalLight(0xffffff, 1.6);
    lamp.position.set(-0.6, 0.8, 1);
    this.#camera.add(lamp);
    this.#scene.add(this.#camera, new HemisphereLight(0xffffff, 0x9a9a9a, 1.9));
  }

  #listen() {
    const canvas = this.#renderer.domElement;
    canvas.style.cssText = "display:block;width:100%;height:100%;touch-action:none;cursor:grab";
    Object.assign(this.#controls, { enableDamping: true, dampingFactor: 0.15, minDistance: 0.05, maxDistance: 20 });
    this.#controls.addEventListener("start", () => (this.#moved = true));
    this.#controls.addEventListener("change", () => this.#ask());
    canvas.addEventListener("webglcontextrestored", () => this.#ask());
    this.#watch = new ResizeObserver(() => this.#resize());
    this.#watch.observe(this.#element);
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.#element;
    if (this.#disposed || !width || !height) return;
    this.#renderer.setPixelRatio(Math.min(devicePixelRatio, PIXELS_MOST));
    this.#renderer.setSize(width, height, false);
    this.#camera.aspect = width / height;
    if (!this.#moved) this.reset();
    this.#draw();
  }

  /** Have a frame drawn soon. */
  #ask() {
    if (this.#frame || this.#disposed) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#controls.update();
      this.#draw();
    });
  }

  #draw() {
    if (this.#disposed || !this.#element.clientWidth) return;
    const distance = this.#controls.getDistance();
    this.#camera.near = distance * 0.02;
    this.#camera.far = distance + FARTHEST;
    this.#camera.updateProjectionMatrix();
    this.#renderer.render(this.#scene, this.#camera);
    const { sorting, sortDirty, dirty, activeSplats } = this.#spark ?? { activeSplats: 1 };
    if (!sorting && !sortDirty && !dirty && activeSplats) this.#settle();
  }
}

function renderer(kind) {
  const canvas = document.createElement("canvas");
  // Smooth edges cost splats much and show nothing on them.
  const context = canvas.getContext("webgl2", { antialias: kind !== "splats", powerPreference: "high-performance" });
  if (!context) throw new Error("This browser has no WebGL 2 (or it is switched off), so it cannot show 3D.");
  return new WebGLRenderer({ canvas, context });
}

/** Say whether some of it is of metal, which is black where it has nothing to mirror. */
function metallic(object) {
  let found = false;
  object.traverse((part) => {
    found ||= [part.material ?? []].flat().some(({ metalness }) => metalness > METAL);
  });
  return found;
}

/** Return a plain room to mirror. It takes seconds where a processor draws, so only what needs it gets it. */
function room(renderer) {
  const maker = new PMREMGenerator(renderer);
  const scene = new RoomEnvironment();
  const { texture } = maker.fromScene(scene, 0.04);
  scene.dispose();
  maker.dispose();
  return texture;
}

/** Make points so large that they hide what is behind if they lie on a surface; the object's diagonal is 1. */
function sizePoints(object, count) {
  const size = Math.min(0.04, Math.max(0.004, 2.4 / Math.sqrt(count)));
  object.traverse((part) => {
    if (!part.isPoints) return;
    // three.js counts a point's size as if the field of view were 90°; those of a glTF it draws a pixel large.
    Object.assign(part.material, { size: size / Math.tan((FIELD_DEGREES * Math.PI) / 360), sizeAttenuation: true });
  });
}

window.RunnerViewer = { open };
