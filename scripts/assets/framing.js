// Where the camera stands: at three quarters, so that all but the outermost hundredth is in the picture.
import { Box3, Matrix4, Quaternion, Vector3 } from "three";

const OUTERMOST = 0.01;
const MARGIN = 1.15;
const CLOSEST = 0.1;
const FROM = new Vector3(0.75, 0.5, 1).normalize();
const X = new Vector3(1, 0, 0);
const TURNS = { y: 0, "-y": Math.PI, z: -Math.PI / 2, "-z": Math.PI / 2 };

/** Return the box around what is at these places without the outermost hundredth at either end of each axis. */
export function robustBox(sample) {
  const low = [];
  const high = [];
  const cut = Math.floor(sample.length * OUTERMOST);
  for (const axis of [0, 1, 2]) {
    low.push(Float64Array.from(sample, (place) => place[axis] - place[3]).sort()[cut]);
    high.push(Float64Array.from(sample, (place) => place[axis] + place[3]).sort().at(-1 - cut));
  }
  return new Box3(new Vector3(...low), new Vector3(...high));
}

/** Return the turn that makes this axis of the object (y, -y, z or -z) point up. */
export function turn(up) {
  if (!(up in TURNS)) throw new Error(`up is y, -y, z or -z, not ${up}`);
  return new Quaternion().setFromAxisAngle(X, TURNS[up]);
}

/** Put the camera where what is at these places and lies in the box, scaled and turned like the object, just fits. */
export function frame(camera, sample, box, placed) {
  const axes = new Matrix4().lookAt(FROM, new Vector3(), camera.up);
  const [right, up] = [new Vector3().setFromMatrixColumn(axes, 0), new Vector3().setFromMatrixColumn(axes, 1)];
  const high = Math.tan((camera.fov * Math.PI) / 360);
  const wide = high * camera.aspect;
  const at = new Vector3();
  let distance = CLOSEST;
  const scale = placed.getMaxScaleOnAxis();
  for (const place of sample) {
    const radius = place[3];
    at.fromArray(place);
    if ([0, 1, 2].some((axis) => place[axis] - radius < box.min.getComponent(axis) || place[axis] + radius > box.max.getComponent(axis))) continue;
    at.applyMatrix4(placed);
    const around = radius * scale;
    const needed = Math.max((Math.abs(at.dot(right)) + around) / wide, (Math.abs(at.dot(up)) + around) / high);
    distance = Math.max(distance, needed + at.dot(FROM));
  }
  camera.position.copy(FROM).multiplyScalar(distance * MARGIN);
}
