// Pillow's antialiased bilinear and bicubic resizes, to the last bit.
//
// Training saw pictures that Pillow had made smaller. A canvas makes them smaller in another way on
// every browser, and the answers drift; so the page does it itself, as Pillow does.
//
// References: Pillow 13, src/libImaging/Resample.c: bilinear_filter, bicubic_filter, precompute_coeffs,
// normalize_coeffs_8bpc, ImagingResampleHorizontal_8bpc, ImagingResampleVertical_8bpc; and its pull
// request 9549, since which pictures that lose much more height than width are resized downwards first.
// The bicubic kernel: Keys 1981, "Cubic convolution interpolation for digital image processing", a = -1/2.

/** Bits after the point in a weight: 32 for the sum, less 8 for the pixel and 2 for its sign and carry. */
const PRECISION_BITS = 32 - 8 - 2;
const HALF = 1 << (PRECISION_BITS - 1);

/** RGB, row after row. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
}

/** A picture that gives some rows at a time, so that a photo of 50 megapixels needs no 200 MB. */
export interface Rows {
  readonly width: number;
  readonly height: number;
  /** RGBA of the rows from `top` up to, not including, `bottom`. */
  read(top: number, bottom: number): Uint8Array | Uint8ClampedArray;
}

/** A part of the resized picture, in its pixels. */
export interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** What an input pixel weighs, by its distance from the middle of an output pixel. */
interface Kernel {
  /** From this distance on, nothing. */
  readonly support: number;
  weigh(distance: number): number;
}

/** As bundle.json names them. */
export const KERNELS = {
  bilinear: { support: 1, weigh: (x) => (x < 1 ? 1 - x : 0) },
  bicubic: {
    support: 2,
    weigh: (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0),
  },
} as const satisfies Record<string, Kernel>;
export type Interpolation = keyof typeof KERNELS;

/** For each output pixel: where its input starts, how many pixels it has, and their weights. */
export interface Weights {
  readonly first: Int32Array;
  readonly count: Int32Array;
  readonly stride: number;
  readonly values: Int32Array;
}

/** A kernel's weights along one side, for the output pixels from `start` on. */
export function weightsAlong(kernel: Kernel, inPx: number, outPx: number, start: number, n: number): Weights {
  const scale = inPx / outPx;
  const filterScale = Math.max(scale, 1);
  const support = kernel.support * filterScale;
  const stride = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(n);
  const count = new Int32Array(n);
  const values = new Int32Array(n * stride);
  const weights = new Float64Array(stride);
  const inverse = 1 / filterScale;
  for (let i = 0; i < n; i++) {
    const center = (start + i + 0.5) * scale;
    const low = Math.max(0, Math.trunc(center - support + 0.5));
    const high = Math.min(inPx, Math.trunc(center + support + 0.5));
    let sum = 0;
    for (let x = low; x < high; x++) {
      const weight = kernel.weigh(Math.abs((x - center + 0.5) * inverse));
      weights[x - low] = weight;
      sum += weight;
    }
    for (let x = 0; x < high - low; x++) {
      const weight = sum === 0 ? weights[x]! : weights[x]! / sum;
      values[i * stride + x] = Math.trunc(Math.sign(weight) * 0.5 + weight * (1 << PRECISION_BITS));
    }
    first[i] = low;
    count[i] = high - low;
  }
  return { first, count, stride, values };
}

/** Rows that are read at a time: 1 MB of a picture that is 4,000 pixels wide. */
const STRIP_ROWS = 64;

/** A part of `rows` resized to `width` x `height`; only that part is computed. */
export function resize(rows: Rows, width: number, height: number, by: Interpolation, box?: Box): Picture {
  const part = box ?? { left: 0, top: 0, width, height };
  const across = weightsAlong(KERNELS[by], rows.width, width, part.left, part.width);
  const down = weightsAlong(KERNELS[by], rows.height, height, part.top, part.height);
  const rgb = isDownFirst(rows, width, height)
    ? downThenAcross(rows, across, down)
    : acrossThenDown(rows, across, down);
  return { width: part.width, height: part.height, rgb };
}

/** Pillow's choice; the middle result is rounded, so the order shows in the last bit. */
function isDownFirst(rows: Rows, width: number, height: number): boolean {
  return height < rows.height && rows.height - height > 2 * (rows.width - width);
}

/** The input rows that any output row needs. */
function span(down: Weights): [number, number] {
  const last = down.first.length - 1;
  return [down.first[0]!, down.first[last]! + down.count[last]!];
}

function acrossThenDown(rows: Rows, across: Weights, down: Weights): Uint8Array {
  const [start, end] = span(down);
  const widthPx = across.first.length;
  const narrow = new Uint8Array((end - start) * widthPx * 3);
  for (let top = start; top < end; top += STRIP_ROWS) {
    const bottom = Math.min(end, top + STRIP_ROWS);
    const into = narrow.subarray((top - start) * widthPx * 3);
    resizeAcross(rows.read(top, bottom), rows.width, bottom - top, across, into);
  }
  return resizeDown(narrow, widthPx, start, down);
}

function downThenAcross(rows: Rows, across: Weights, down: Weights): Uint8Array {
  const [start, end] = span(down);
  const n = down.first.length;
  const line = rows.width * 4;
  const sums = new Int32Array(n * line).fill(HALF);
  for (let top = start; top < end; top += STRIP_ROWS) {
    const bottom = Math.min(end, top + STRIP_ROWS);
    const rgba = rows.read(top, bottom);
    for (let i = 0; i < n; i++) {
      const first = down.first[i]!;
      const until = Math.min(bottom, first + down.count[i]!);
      for (let y = Math.max(top, first); y < until; y++) {
        const weight = down.values[i * down.stride + y - first]!;
        const from = (y - top) * line;
        const to = i * line;
        for (let x = 0; x < line; x++) {
          sums[to + x] = (sums[to + x]! + Math.imul(rgba[from + x]!, weight)) | 0;
        }
      }
    }
  }
  const low = Uint8Array.from(sums, clip);
  const rgb = new Uint8Array(n * across.first.length * 3);
  resizeAcross(low, rows.width, n, across, rgb);
  return rgb;
}

function resizeAcross(
  rgba: Uint8Array | Uint8ClampedArray,
  widthPx: number,
  nRows: number,
  weights: Weights,
  into: Uint8Array,
): void {
  const { first, count, stride, values } = weights;
  const n = first.length;
  let at = 0;
  for (let row = 0; row < nRows; row++) {
    const rowStart = row * widthPx * 4;
    for (let i = 0; i < n; i++) {
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      let pixel = rowStart + first[i]! * 4;
      const start = i * stride;
      const end = start + count[i]!;
      for (let k = start; k < end; k++) {
        const weight = values[k]!;
        red = (red + Math.imul(rgba[pixel]!, weight)) | 0;
        green = (green + Math.imul(rgba[pixel + 1]!, weight)) | 0;
        blue = (blue + Math.imul(rgba[pixel + 2]!, weight)) | 0;
        pixel += 4;
      }
      into[at++] = clip(red);
      into[at++] = clip(green);
      into[at++] = clip(blue);
    }
  }
}

function resizeDown(narrow: Uint8Array, widthPx: number, firstRow: number, weights: Weights): Uint8Array {
  const { first, count, stride, values } = weights;
  const n = first.length;
  const line = widthPx * 3;
  const rgb = new Uint8Array(n * line);
  const sums = new Int32Array(line);
  for (let i = 0; i < n; i++) {
    sums.fill(HALF);
    for (let k = 0; k < count[i]!; k++) {
      const weight = values[i * stride + k]!;
      const rowStart = (first[i]! - firstRow + k) * line;
      for (let x = 0; x < line; x++) {
        sums[x] = (sums[x]! + Math.imul(narrow[rowStart + x]!, weight)) | 0;
      }
    }
    const rowStart = i * line;
    for (let x = 0; x < line; x++) rgb[rowStart + x] = clip(sums[x]!);
  }
  return rgb;
}

function clip(sum: number): number {
  const value = sum >> PRECISION_BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}
