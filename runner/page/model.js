// The 3D view: where a model comes from, and the viewer that is unpacked when the first one is looked at.

const models = { waiting: new Map(), viewer: null, up: { splats: "-y", points: "y", mesh: "y" } };

// A page that was opened from a disk may not read a file beside it, but it may run one: models come as such files.
window.runnerModel = (sha256, format, base64) => {
  models.waiting.get(sha256)?.({ bytes: bytesOf(base64), format });
  models.waiting.delete(sha256);
};

function hasModel(told, row) {
  const place = told.pictureOf[row];
  return place >= 0 && (told.pictures.model.until[place] > 0 || placedName(told, told.pictures.model, place) !== "");
}

function is3d(told, row) {
  const place = told.pictureOf[row];
  return place >= 0 && ["splats", "mesh", "points"].includes(told.pictures.kinds[told.pictures.kind[place]]);
}

/** Return a row's model as {bytes, format}. Rejects in words if it is not to be had. */
function modelOf(told, row) {
  const place = told.pictureOf[row];
  const { model } = told.pictures;
  if (model.until[place]) {
    const coded = byId("models").firstChild.data.slice(model.from[place], model.until[place]);
    return Promise.resolve({ bytes: bytesOf(coded), format: model.formats[model.format[place]] });
  }
  const name = placedName(told, model, place);
  if (!name) return Promise.reject(new Error("There is no small model of this result."));
  return new Promise((resolve, reject) => {
    models.waiting.set(name.split("/").pop().replace(/\.js$/, ""), resolve);
    const script = make("script", { src: told.root + model.folder + name });
    script.nonce = nonce;
    script.addEventListener("load", () => script.remove());
    script.addEventListener("error", () => {
      script.remove();
      reject(new Error("Its model is not beside this page (.runner/pictures). Open the result itself instead."));
    });
    document.head.append(script);
  });
}

async function viewer() {
  models.viewer ??= runBundle("viewer");
  await models.viewer;
  return window.RunnerViewer;
}

/** Open a 3D view in an element: a row's model, or a file from the reader's disk. Rejects in words. */
async function openModel(element, { bytes, format }, up) {
  const shown = await viewer();
  return shown.open(element, { bytes, format, up, background: hexOf(theme.colour("stage")) });
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
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) return "spz";
  return name.split(".").pop().toLowerCase();
}
