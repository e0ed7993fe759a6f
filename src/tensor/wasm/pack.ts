import type { WeightPacker, WeightSpec } from "../kernels.ts";
import { widenHalves } from "../float16.ts";
import { f32, type HalfDType, isHalf, Tensor } from "../tensor.ts";
import type { Device, Workspace } from "./device.ts";
import { columnOrder, type KernelOptions } from "./kernels/common.ts";
import { FLOAT_TYPES } from "./kernels/pack-floats.ts";
import { decodeHalf, encodeF16, encodeHalf, F16_LIMIT, floatTileBytes, GROUP, TILE_ROWS, tileBytes, tilesOf } from "./layout.ts";

/** Bytes of a file that a thread packs at a time. */
const PACK_CHUNK = 1 << 15;

/** Little-endian 32-bit words of any bytes; a copy where they are not aligned. */
function words(bytes: Int8Array | Uint8Array): Int32Array {
  if (bytes.byteOffset % 4 === 0 && bytes.byteLength % 4 === 0) return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 2);
  const copy = new Uint8Array((bytes.byteLength + 3) & ~3);
  copy.set(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  return new Int32Array(copy.buffer);
}

/**
 * Writes weights into their final place as rows arrive. Vectors (norm weights, biases) stay as they are; f32 matrices lie 8 rows side by
 * side; int8 and int4 matrices in tiles, f16 and bf16 ones like f32, all see layout.ts. File blocks pass through `staging`.
 */
export function wasmPacker(device: Device, staging: Workspace, method: KernelOptions, spec: WeightSpec): WeightPacker {
  const { name, dtype, shape } = spec;
  if (dtype === "sparse") throw new RangeError(`${name}: these kernels have no 2:4 sparse weights`);
  if (shape.length < 2) return plainPacker(device, spec);
  if (isHalf(dtype)) return halfPacker(device, staging, dtype, spec);
  if (dtype !== "f32" && spec.group % GROUP !== 0 && spec.group < shape[1]) throw new RangeError(`${name}: groups of ${spec.group} columns: these kernels want multiples of ${GROUP}`);
  return dtype === "f32" ? f32Packer(device, spec) : tilePacker(device, staging, method, spec);
}

function checkedRows(spec: WeightSpec, done: number, rows: Tensor): number {
  const cols = spec.shape[spec.shape.length - 1];
  if (rows.dtype !== spec.dtype || rows.cols !== cols || done + rows.rows > spec.shape[0]) {
    throw new RangeError(`${spec.name}: expected at most ${spec.shape[0] - done} more rows of ${cols} ${spec.dtype}, found [${rows.shape}] ${rows.dtype}`);
  }
  return rows.rows;
}

function missing(spec: WeightSpec, done: number): never {
  throw new Error(`${spec.name}: expected ${spec.shape[0]} rows, packed ${done}`);
}

function plainPacker(device: Device, { name, shape, dtype }: WeightSpec): WeightPacker {
  if (dtype !== "f32") throw new TypeError(`${name}: a vector must be f32, found ${dtype}`);
  const count = shape[0] ?? 1;
  const { address, buffer } = device.alloc(count * 4, name);
  const data = new Float32Array(buffer, address, count);
  let done = 0;
  return {
    write(rows) {
      data.set(rows.f32, done);
      done += rows.f32.length;
    },
    finish() {
      if (done !== count) throw new Error(`${name}: expected ${count} values, packed ${done}`);
      return new Tensor({ dtype: "f32", shape, data, name });
    },
  };
}

function f32Packer(device: Device, spec: WeightSpec): WeightPacker {
  const [rowCount, cols] = spec.shape;
  const bytes = Math.ceil(rowCount / TILE_ROWS) * floatTileBytes("f32", cols);
  const { address, buffer } = device.alloc(bytes, spec.name);
  const data = new Float32Array(buffer, address, bytes / 4);
  let done = 0;
  return {
    write(rows) {
      const count = checkedRows(spec, done, rows);
      const from = rows.f32;
      for (let i = 0; i < count; i++, done++) {
        let to = (done >> 3) * TILE_ROWS * cols + (done & 7);
        for (let c = i * cols; c < (i + 1) * cols; c++, to += TILE_ROWS) data[to] = from[c];
      }
    },
    finish() {
      if (done !== rowCount) missing(spec, done);
      return new Tensor({ dtype: "packed", format: "f32", shape: spec.shape, data: new Uint8Array(data.buffer, address, bytes), name: spec.name });
    },
  };
}

function halfPacker(device: Device, staging: Workspace, dtype: HalfDType, spec: WeightSpec): WeightPacker {
  const { name } = spec;
  const [rowCount, cols] = spec.shape;
  const tile = floatTileBytes(dtype, cols);
  const bytes = Math.ceil(rowCount / TILE_ROWS) * tile;
  const { address, buffer } = device.alloc(bytes, name);
  const data = new Uint16Array(buffer, address, bytes / 2);
  let done = 0;
  /** Takes over where some f16 has no form of 16 bits: rare, as weights are. */
  let wide: WeightPacker | undefined;

  /** Where row `row` begins; its columns are TILE_ROWS apart. */
  const place = (row: number): number => (row >> 3) * TILE_ROWS * cols + (row & 7);
  const widen = (): WeightPacker => {
    const packer = f32Packer(device, { ...spec, dtype: "f32" });
    for (let row = 0; row < done; row++) {
      const first = place(row);
      packer.write(f32([1, cols], Float32Array.from({ length: cols }, (_, c) => decodeHalf(data[first + c * TILE_ROWS]))));
    }
    device.heap.free(address);
    return packer;
  };
  return {
    writeBlocks(type, rows, read) {
      if (wide || type !== dtype.toUpperCase() || cols % 4 !== 0 || done % TILE_ROWS !== 0) return false;
      if (done + rows > rowCount) throw new RangeError(`${name}: expected at most ${rowCount - done} more rows, found ${rows}`);
      const size = rows * cols * 2;
      const from = staging.ensure(size + 4);
      staging.ints[0] = 0;
      read(new Uint8Array(staging.ints.buffer, from + 4, size));
      device.params.set([from + 4, address + (done >> 3) * tile, rows, cols, 0, 0, from]);
      device.runAll(device.kernel(`pack_${dtype}`), Math.ceil(rows / TILE_ROWS), Math.max(1, Math.floor(PACK_CHUNK / tile)));
      if (staging.ints[0] !== 0) return false;
      done += rows;
      return true;
    },
    write(rows) {
      const count = checkedRows(spec, done, rows);
      const from = rows.data as Uint16Array;
      if (!wide && dtype === "f16" && from.some((bits) => (bits & 0x7fff) >= F16_LIMIT)) wide = widen();
      if (wide) {
        const floats = f32(rows.shape);
        widenHalves(dtype, from, floats.f32);
        wide.write(floats);
        done += count;
        return;
      }
      for (let i = 0; i < count; i++, done++) {
        let to = place(done);
        for (let c = i * cols; c < (i + 1) * cols; c++, to += TILE_ROWS) data[to] = dtype === "f16" ? encodeF16(from[c]) : from[c];
      }
    },
    finish() {
      if (wide) return wide.finish();
      if (done !== rowCount) missing(spec, done);
      return new Tensor({ dtype: "packed", format: dtype, shape: spec.shape, data: new Uint8Array(data.buffer, address, bytes), name });
    },
  };
}

function tilePacker(device: Device, staging: Workspace, method: KernelOptions, spec: WeightSpec): WeightPacker {
  const { name } = spec;
  const format = spec.dtype as "int8" | "int4";
  const order = columnOrder(method, format);
  // Unsigned weights are signed ones plus 128: their uppermost bits the other way round.
  const flip = format === "int8" && method.dot === "u8s8" ? 0x80808080 | 0 : 0;
  const [rowCount, cols] = spec.shape;
  const { tiles, groups } = tilesOf(rowCount, cols);
  const values = format === "int8" ? 256 : 128;
  let half = true;
  let stride = tileBytes(format, half);
  const claim = () => {
    const { address, buffer } = device.alloc(tiles * groups * stride, spec.name);
    return new Int32Array(buffer, address, (tiles * groups * stride) / 4);
  };
  let target = claim();
  let halves = new Uint16Array(target.buffer, target.byteOffset, target.length * 2);
  let floats = new Float32Array(target.buffer, target.byteOffset, target.length);
  let done = 0;

  /** Some scale needs 32 bits: move what is there to wider tiles. Once per tensor at most, and rare. */
  const widen = (): void => {
    const old = target;
    const narrow = stride >> 2;
    half = false;
    stride = tileBytes(format, half);
    const wide = stride >> 2;
    target = claim();
    floats = new Float32Array(target.buffer, target.byteOffset, target.length);
    for (let tile = 0; tile < ((done >> 3) + 1) * groups; tile++) {
      const [from, to] = [tile * narrow, tile * wide];
      target.set(old.subarray(from, from + values / 4), to);
      for (let row = 0; row < TILE_ROWS; row++) floats[to + values / 4 + row] = decodeHalf(halves[2 * from + values / 2 + row]);
    }
    device.heap.free(old.byteOffset);
    halves = new Uint16Array(target.buffer, target.byteOffset, target.length * 2);
  };

  const writeScale = (row: number, group: number, scale: number): void => {
    const tile = (row >> 3) * groups + group;
    if (half) {
      const bits = encodeHalf(scale);
      if (bits >= 0) {
        halves[(tile * stride + values) / 2 + (row & 7)] = bits;
        return;
      }
      widen();
    }
    floats[(tile * stride + values) / 4 + (row & 7)] = scale;
  };

  /** One row of whole groups: 8 words of 4 columns for int8, 4 words of canonical nibbles for int4. */
  const writeRow = (row: number, source: Int32Array, at: number): void => {
    const step = stride >> 2;
    const tile = (row >> 3) * groups * stride;
    if (order === "pairs") {
      for (let group = 0, to = tile / 2 + (row & 7); group < groups; group++, at += 8, to += stride >> 1) {
        for (let word = 0; word < 8; word++) {
          const columns = source[at + word] ^ flip;
          halves[to + 16 * word] = columns;
          halves[to + 16 * word + 8] = columns >> 16;
        }
      }
      return;
    }
    let to = tile / 4 + (row & 7);
    if (format === "int8") {
      for (let group = 0; group < groups; group++, at += 8, to += step) {
        for (let word = 0; word < 8; word++) target[to + 8 * word] = source[at + word] ^ flip;
      }
      return;
    }
    for (let group = 0; group < groups; group++, at += 4, to += step) {
      const [a, b, c, d] = [source[at], source[at + 1], source[at + 2], source[at + 3]];
      target[to] = (a & 0x0f0f0f0f) | ((b & 0x0f0f0f0f) << 4);
      target[to + 8] = (c & 0x0f0f0f0f) | ((d & 0x0f0f0f0f) << 4);
      target[to + 16] = ((a >>> 4) & 0x0f0f0f0f) | (b & 0xf0f0f0f0);
      target[to + 24] = ((c >>> 4) & 0x0f0f0f0f) | (d & 0xf0f0f0f0);
    }
  };

  const padded = new Uint8Array(groups * GROUP);
  const own = format === "int8" ? "Q8_0" : "Q4_0";
  const groupBytes = (type: string): number => (type === own ? (format === "int8" ? 34 : 18) : type === "F32" ? 128 : 64);
  return {
    writeBlocks(type, rows, read) {
      const float = (FLOAT_TYPES as readonly string[]).indexOf(type);
      if ((type === own ? !half : float < 0) || spec.group !== GROUP || cols % GROUP !== 0 || done % TILE_ROWS !== 0) return false;
      if (done + rows > rowCount) throw new RangeError(`${name}: expected at most ${rowCount - done} more rows, found ${rows}`);
      // Scales that are a largest value over 127 or 7 have 32 bits.
      if (half && float >= 0) widen();
      const rowBytes = groups * groupBytes(type);
      const bytes = rows * rowBytes;
      const address = staging.ensure(bytes + 4);
      staging.ints[0] = 0;
      read(new Uint8Array(staging.ints.buffer, address + 4, bytes));
      device.params.set([address + 4, target.byteOffset + (done >> 3) * groups * stride, rows, groups, stride, flip, address, float]);
      device.runAll(device.kernel(`${float < 0 ? "pack" : "round"}_${format}`), Math.ceil(rows / TILE_ROWS), Math.max(1, Math.floor(PACK_CHUNK / (TILE_ROWS * rowBytes))));
      if (staging.ints[0] !== 0) return false;
      done += rows;
      return true;
    },
    write(rows) {
      const count = checkedRows(spec, done, rows);
      const perRow = Math.ceil(cols / spec.group);
      const bytes = rows.data as Int8Array | Uint8Array;
      const whole = cols % GROUP === 0;
      const source = whole ? words(bytes) : words(padded);
      for (let i = 0; i < count; i++, done++) {
        for (let group = 0; group < groups; group++) writeScale(done, group, rows.scales![i * perRow + Math.floor((group * GROUP) / spec.group)]);
        if (!whole) padded.set(new Uint8Array(bytes.buffer, bytes.byteOffset + i * cols, cols));
        writeRow(done, source, whole ? (i * cols) / (format === "int8" ? 4 : 8) : 0);
      }
    },
    finish() {
      if (done !== rowCount) missing(spec, done);
      const data = new Uint8Array(target.buffer, target.byteOffset, tiles * groups * stride);
      return new Tensor({ dtype: "packed", format, shape: spec.shape, data, name: spec.name });
    },
  };
}
