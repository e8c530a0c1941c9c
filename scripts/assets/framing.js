// Where the camera stands: at three quarters, so that all but the outermost hundredth is in the picture.
import { Box3, Matrix4, Quaternion, Vector3 } from "three";

const OUTERMOST = 0.01;
const MARGIN = 1.15;
const CLOSEST = 0.1;
const FROM = new Vector3(0.75, 0.5, 1).normalize();
const X = new Vector3(1, 0, 0);
const TURNS = { y: 0, "-y": Math.PI, z: -Math.PI / 2, "-z": Math.PI / 2 };

/** Return the box around these positions without the outermost hundredth at either end of each axis. */
export function robustBox(sample) {
  const low = [];
  const high = [];
  for (const axis of [0, 1, 2]) {
    const values = Float64Array.from(sample, (position) => position[axis]).sort();
    const cut = Math.floor(values.length * OUTERMOST);
    low.push(values[cut]);
    high.push(values[values.length - 1 - cut]);
  }
  return new Box3(new Vector3(...low), new Vector3(...high));
}

/** Return the turn that makes this axis of the object (y, -y, z or -z) point up. */
export function turn(up) {
  if (!(up in TURNS)) throw new Error(`up is y, -y, z or -z, not ${up}`);
  return new Quaternion().setFromAxisAngle(X, TURNS[up]);
}

/** Put the camera where those of these positions that lie in the box, scaled and turned like the object, just fit. */
export function frame(camera, sample, box, placed) {
  const axes = new Matrix4().lookAt(FROM, new Vector3(), camera.up);
  const [right, up] = [new Vector3().setFromMatrixColumn(axes, 0), new Vector3().setFromMatrixColumn(axes, 1)];
  const high = Math.tan((camera.fov * Math.PI) / 360);
  const wide = high * camera.aspect;
  const at = new Vector3();
  let distance = CLOSEST;
  for (const position of sample) {
    if (!box.containsPoint(at.fromArray(position))) continue;
    at.applyMatrix4(placed);
    const needed = Math.max(Math.abs(at.dot(right)) / wide, Math.abs(at.dot(up)) / high);
    distance = Math.max(distance, needed + at.dot(FROM));
  }
  camera.position.copy(FROM).multiplyScalar(distance * MARGIN);
}
