// The 3D view: where a model comes from, and the viewer that is unpacked when the first one is looked at.

// ``up``: which axis the reader chose to point up, by what else it would be: "splats -y" → "z".
const models = { waiting: new Map(), viewer: null, up: {} };
const FORMATS_3D = ["ply", "spz", "glb"];

// A page that was opened from a disk may not read a file beside it, but it may run one: models come as such files.
window.runnerModel = (sha256, format, base64) => {
  models.waiting.get(sha256)?.({ bytes: bytesOf(base64), format });
  models.waiting.delete(sha256);
};

function hasModel(told, row) {
  const place = told.pictureOf[row];
  return place >= 0 && (told.pictures.model.until[place] > 0 || placedName(told, told.pictures.model, place) !== "");
}

/** Tell whether a result is for the 3D view: by what was seen in it, or else by its format. */
function is3d(told, row) {
  const place = told.pictureOf[row];
  const kind = place < 0 ? "other" : told.pictures.kinds[told.pictures.kind[place]];
  if (kind !== "other") return ["splats", "mesh", "points"].includes(kind);
  return told.states[told.rows.state[row]] === "saved" && FORMATS_3D.includes(told.rows.formats[told.rows.format[row]]);
}

/** Return a row's model as {bytes, format, up}. Rejects in words if it is not to be had. */
async function modelOf(told, row) {
  const model = await bytesOfModel(told, row);
  // By its format an SPZ has y up, but models of splats are as PLYs of splats are.
  return { ...model, up: model.format === "spz" ? "-y" : undefined };
}

function bytesOfModel(told, row) {
  const place = told.pictureOf[row];
  const { model } = told.pictures;
  if (model.until[place]) {
    const coded = byId("models").firstChild.data.slice(model.from[place], model.until[place]);
    return Promise.resolve({ bytes: bytesOf(coded), format: model.formats[model.format[place]] });
  }
  const name = placedName(told, model, place);
  if (!name) return Promise.reject(new Error("There is no small model of this result."));
  return new Promise((resolve, reject) => {
    const sha256 = name.split("/").pop().replace(/\.js$/, "");
    const failed = (why) => {
      script.remove();
      if (models.waiting.get(sha256) === resolve) models.waiting.delete(sha256);
      reject(new Error(`${why} Open the result itself instead.`)); // which means nothing if it arrived
    };
    models.waiting.set(sha256, resolve);
    const script = make("script", { src: told.root + model.folder + name });
    script.nonce = nonce;
    script.addEventListener("load", () => failed("Its model beside this page (.runner/pictures) is damaged."));
    script.addEventListener("error", () => failed("Its model is not beside this page (.runner/pictures)."));
    document.head.append(script);
  });
}

async function viewer() {
  models.viewer ??= runBundle("viewer");
  await models.viewer;
  return window.RunnerViewer;
}

/** Open a 3D view in an element: a row's model, or a file from the reader's disk. Rejects in words. */
async function openModel(element, { bytes, format, up }) {
  const shown = await viewer();
  const view = await shown.open(element, { bytes, format, up, background: hexOf(theme.colour("stage")) });
  view.frame = `${view.kind} ${view.up}`;
  if (models.up[view.frame]) view.setUp(models.up[view.frame]);
  return view;
}

function hexOf(colour) {
  const pen = make("canvas", { width: 1, height: 1 }).getContext("2d");
  pen.fillStyle = colour;
  return pen.fillStyle;
}

/** Return the format of a file from its first bytes, else from its name. */
function formatOf(bytes, name) {
  const begin = String.fromCharCode(...bytes.subarray(0, 4));
  if (begin.startsWith("ply")) return "ply";
  if (begin === "glTF") return "glb";
  if (begin === "NGSP" || begin === "\x28\xb5\x2f\xfd" || begin.startsWith("\x1f\x8b")) return "spz";
  return name.split(".").pop().toLowerCase();
}
