// Numbers as text: `PackedArray` of pipelines/serving/trust.py.

export interface Packed {
  readonly shape: readonly number[];
  readonly dtype: "float32" | "float16" | "int8";
  readonly scale: number;
  readonly data: string;
}

/** The bytes of base64. */
export function bytesOf(data: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
}

/** The numbers, in C order: `scale` times what is stored. */
export function unpack(packed: Packed): Float64Array {
  const bytes = bytesOf(packed.data);
  const n = packed.shape.reduce((a, b) => a * b, 1);
  const numbers = new Float64Array(n);
  const view = new DataView(bytes.buffer);
  const width = { float32: 4, float16: 2, int8: 1 }[packed.dtype];
  if (bytes.length !== n * width) {
    throw new RangeError(`${bytes.length} bytes for ${n} numbers of ${packed.dtype}`);
  }
  for (let i = 0; i < n; i++) {
    const stored =
      packed.dtype === "float32"
        ? view.getFloat32(i * 4, true)
        : packed.dtype === "float16"
          ? halfToNumber(view.getUint16(i * 2, true))
          : view.getInt8(i);
    numbers[i] = stored * packed.scale;
  }
  return numbers;
}

/** An IEEE 754 binary16 number (2019, section 3.4): 1 bit of sign, 5 of exponent, 10 of fraction. */
export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
