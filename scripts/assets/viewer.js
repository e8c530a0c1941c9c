// The 3D view of the report: window.RunnerViewer.open(element, options) shows one file and lets one turn it.
//
// Nothing is asked for: decoders and workers are in here, the bytes come from the page. A view draws when something
// changed and rests otherwise.
import { SparkRenderer } from "@sparkjsdev/spark";
import { Color, Group, PerspectiveCamera, PMREMGenerator, Scene, Vector3, WebGLRenderer } from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { RoomEnvironment } from "three/addons/environments/RoomEnvironment.js";
import { frame, robustBox, turn } from "./framing.js";
import { free, model } from "./models.js";

const FIELD_DEGREES = 40;
const PIXELS_MOST = 2;
const FARTHEST = 1000;

/**
 * Show a file in an element and return its View; rejects with an Error that says why it cannot be shown.
 * `bytes`: Uint8Array; `format`: ply, spz, glb or splat; `up`: y, -y, z or -z; `background`: #rrggbb.
 */
async function open(element, { bytes, format, up = "y", background = "#ffffff" }) {
  turn(up);
  const shown = await model(bytes, format);
  try {
    return new View(element, shown, up, background);
  } catch (error) {
    free(shown.object);
    throw error;
  }
}

class View {
  #element;
  #object;
  #size;
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
    this.drawn = new Promise((resolve) => (this.#settle = resolve));
    this.#element = element;
    this.#object = object;
    this.#renderer = renderer(kind);
    this.#camera = new PerspectiveCamera(FIELD_DEGREES, 1, 0.01, FARTHEST);
    this.#controls = new OrbitControls(this.#camera, this.#renderer.domElement);
    this.#place(sample, up, background);
    this.#listen();
    element.append(this.#renderer.domElement);
    this.#resize();
  }

  /** Turn the object so that this axis of it (y, -y, z or -z) points up, and look at it anew. */
  setUp(axis) {
    this.#turned.quaternion.copy(turn(axis));
    this.reset();
  }

  /** Look at it as in the beginning. */
  reset() {
    this.#moved = false;
    this.#controls.reset();
    this.#controls.target.set(0, 0, 0);
    frame(this.#camera, this.#size, this.#turned.quaternion);
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

  /** Put the object into the scene, its middle at the origin, scaled so that it is about 1 wide. */
  #place(sample, up, background) {
    const box = robustBox(sample);
    const middle = box.getCenter(new Vector3());
    const scale = 1 / (box.getSize(new Vector3()).length() || 1);
    this.#size = box.getSize(new Vector3()).multiplyScalar(scale).addScalar(0.02);
    const placed = new Group();
    placed.scale.setScalar(scale);
    placed.position.copy(middle).multiplyScalar(-scale);
    placed.add(this.#object);
    this.#turned.quaternion.copy(turn(up));
    this.#turned.add(placed);
    this.#scene.add(this.#turned);
    this.#scene.background = new Color(background);
    if (this.kind === "mesh") this.#scene.environment = environment(this.#renderer);
    if (this.kind === "points") sizePoints(this.#object, this.count);
    if (this.kind !== "splats") return;
    const onDirty = () => this.#ask();
    this.#spark = new SparkRenderer({ renderer: this.#renderer, onDirty, enableLod: false });
    this.#scene.add(this.#spark);
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

/** Return the light of a plain room: what is metal would be black without anything to mirror. */
function environment(renderer) {
  const maker = new PMREMGenerator(renderer);
  const room = new RoomEnvironment();
  const { texture } = maker.fromScene(room, 0.04);
  room.dispose();
  maker.dispose();
  return texture;
}

/** Make points so large that neighbours about touch if they lie on a surface; the object is about 1 wide. */
function sizePoints(object, count) {
  const size = Math.min(0.03, Math.max(0.003, 0.6 / Math.sqrt(count)));
  object.traverse((part) => {
    if (part.isPoints) part.material.size = size;
  });
}

window.RunnerViewer = { open };
