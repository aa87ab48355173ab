import { createHash, randomBytes } from "node:crypto";
import { deflateSync } from "node:zlib";
import { describe, expect, it, vi } from "vitest";
import { isDeep, type Range, readDeep } from "../src/deep_png.ts";
import { sha256 } from "../src/sha256.ts";
import { MAX_FILE_BYTES, sniff as sniffWithin } from "../src/sniff.ts";
import { golden } from "./files.ts";

const sniff = (bytes: Uint8Array) => sniffWithin(bytes, { maxAspect: 20, canScale: true });
const text = (s: string): number[] => [...s].map((character) => character.charCodeAt(0));
const be16 = (n: number): number[] => [(n >> 8) & 255, n & 255];
const be32 = (n: number): number[] => [(n >>> 24) & 255, (n >> 16) & 255, (n >> 8) & 255, n & 255];
const le = (n: number, bytes: number): number[] => be32(n).reverse().slice(0, bytes);
const chunk = (name: string, data: readonly number[]): number[] => [...be32(data.length), ...text(name), ...data, 0, 0, 0, 0];

const PNG = [0x89, ...text("PNG\r\n"), 0x1a, 0x0a];
const ihdr = (w: number, h: number, depth = 8, type = 2): number[] => chunk("IHDR", [...be32(w), ...be32(h), depth, type, 0, 0, 0]);
const jpeg = (w: number, h: number, end: readonly number[] = [0xff, 0xd9]): number[] => [
  0xff, 0xd8, 0xff, 0xe0, ...be16(4), 0, 0,
  0xff, 0xc0, ...be16(8), 8, ...be16(h), ...be16(w), 1,
  0xff, 0xda, ...be16(2), 1, 2, 3, ...end,
];
const progressive = (w: number, h: number, nScans: number): number[] => [
  0xff, 0xd8, 0xff, 0xc2, ...be16(17), 8, ...be16(h), ...be16(w), 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0,
  ...Array(nScans).fill([0xff, 0xda, ...be16(2), 1, 2, 3]).flat(), 0xff, 0xd9,
];
const box = (name: string, data: readonly number[]): number[] => [...be32(data.length + 8), ...text(name), ...data];
const avif = (w: number, h: number, flags = 0): number[] => [
  ...box("ftyp", [...text("avif"), ...be32(0)]),
  ...box("meta", [0, 0, 0, 0, ...box("iprp", box("ipco", [
    ...box("ispe", [...be32(0), ...be32(w), ...be32(h)]), ...box("av1C", [0x81, 0, flags, 0]),
  ]))]),
];
const riff = (...chunks: readonly number[][]): number[] => {
  const body = [...text("WEBP"), ...chunks.flat()];
  return [...text("RIFF"), ...le(body.length, 4), ...body];
};
const part = (name: string, data: readonly number[]): number[] => [...text(name), ...le(data.length, 4), ...data, ...(data.length % 2 ? [0] : [])];
const gifFrame = [0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 1, 0, 0];
const gif = (n: number): number[] => [...text("GIF89a"), 1, 0, 1, 0, 0, 0, 0, ...Array(n).fill(gifFrame).flat(), 0x3b];

describe("what may enter", () => {
  it.each([
    [[...golden("preprocess_input.png")], "PNG"],
    [jpeg(10, 20), "JPEG"],
    [riff(part("VP8L", [0x2f, ...le(9 | (9 << 14), 4)])), "WEBP"],
    [riff(part("VP8 ", [0, 0, 0, 0x9d, 1, 0x2a, ...le(10, 2), ...le(10, 2)])), "WEBP"],
    [[...text("BM"), ...Array(12).fill(0), ...le(40, 4), ...le(5, 4), ...be32(-5).reverse(), 0, 0], "BMP"],
    [gif(1), "GIF"],
    [jpeg(12_000, 9_000), "JPEG"],
    [avif(640, 480), "AVIF"],
  ])("is known by its content (%#)", (bytes, format) => {
    expect(sniff(new Uint8Array(bytes)).format).toBe(format);
  });

  it.each([
    [[], "refusal.empty"],
    [text("this is a text and no picture"), "refusal.notAnImage"],
    [text("<svg xmlns='http://www.w3.org/2000/svg'/>"), "refusal.notAnImage"],
    [[0, 0, 0, 24, ...text("ftypheic")], "refusal.heic"],
    [[0, 0, 0, 24, ...text("ftypavis")], "refusal.frames"],
    [[...text("II"), 42, 0, 1, 2, 3, 4], "refusal.otherFormat"],
    [[...Array(128).fill(0), ...text("DICM"), 2, 0], "refusal.otherFormat"],
    [[0, 0, 0, 12, ...text("jP  "), 13, 10], "refusal.otherFormat"],
    [[0xff, 0x4f, 0xff, 0x51, 0, 47], "refusal.otherFormat"],
    [[0, 0, 0, 12, ...text("JXL "), 13, 10], "refusal.otherFormat"],
    [avif(640, 480, 0x40), "refusal.otherFormat"],
    [avif(9_000, 9_000), "refusal.tooManyPixels"],
    [avif(640, 480).slice(0, -3), "refusal.damaged"],
    [[0xff, 0xd8, 0xff], "refusal.damaged"],
    [jpeg(10, 20, [1, 2, 3]), "refusal.damaged"],
    [jpeg(0, 20), "refusal.damaged"],
    [jpeg(20_000, 20_000), "refusal.tooManyPixels"],
    [jpeg(65_000, 16), "refusal.aspect"],
    [progressive(9_000, 8_000, 2), "refusal.scans"],
    [progressive(1_000, 900, 2_000), "refusal.scans"],
    [[...PNG, ...ihdr(1, 40_000), ...chunk("IEND", [])], "refusal.aspect"],
    [[...PNG, ...ihdr(6_000, 6_000, 16, 0), ...chunk("IEND", [])], "refusal.tooManyPixels"],
    [[...PNG, ...ihdr(4_000, 4_000, 16), ...chunk("IEND", [])], "refusal.tooManyPixels"],
    [[...PNG, ...ihdr(9, 9)], "refusal.damaged"],
    [[...PNG, ...ihdr(90_000, 9_000), ...chunk("IEND", [])], "refusal.tooManyPixels"],
    [[...PNG, ...ihdr(9, 9), ...chunk("acTL", [...be32(2), ...be32(0)]), ...chunk("IEND", [])], "refusal.frames"],
    [riff(part("ANMF", [1]), part("ANMF", [1])), "refusal.frames"],
    [riff(part("VP8X", Array(10).fill(255))), "refusal.tooManyPixels"],
    [riff(part("VP8L", [0x2f, 0, 0, 0, 0])).slice(0, -4), "refusal.damaged"],
    [gif(2), "refusal.frames"],
    [gif(1).slice(0, -1), "refusal.damaged"],
    [text("BM"), "refusal.damaged"],
  ])("is refused for its reason (%#)", (bytes, key) => {
    expect(() => sniff(new Uint8Array(bytes))).toThrow(expect.objectContaining({ key }));
  });

  it("is refused by its size before it is read", () => {
    expect(() => sniff(new Uint8Array(MAX_FILE_BYTES + 1))).toThrow(expect.objectContaining({ key: "refusal.tooLarge" }));
  });

  it("never hangs or breaks on random bytes behind a known start", () => {
    for (const start of [[0xff, 0xd8, 0xff], PNG, text("GIF89a"), text("BM"), [...text("RIFF"), 9, 0, 0, 0, ...text("WEBP")]]) {
      for (let i = 0; i < 300; i++) {
        const bytes = new Uint8Array([...start, ...randomBytes(i)]);
        try {
          sniff(bytes);
        } catch (error) {
          expect(error).toMatchObject({ name: "Refusal" });
        }
      }
    }
  });
});

describe("PNG with 16 bits a channel", () => {
  const deep = (values: readonly number[], colour = 0, extra: readonly number[] = []): Uint8Array => {
    const n = { 0: 1, 2: 3, 4: 2, 6: 4 }[colour]!;
    const header = chunk("IHDR", [...be32(values.length / n), ...be32(1), 16, colour, 0, 0, 0]);
    const data = deflateSync(Buffer.from([0, ...values.flatMap(be16)]));
    return new Uint8Array([...PNG, ...header, ...extra, ...chunk("IDAT", [...data]), ...chunk("IEND", [])]);
  };
  const shown = async (png: Uint8Array, range: Range): Promise<[number[], number]> => {
    const { rows, outside } = await readDeep(png, range);
    return [[...rows.read(0, rows.height)].filter((_, i) => i % 4 !== 3), outside];
  };

  it("is shown by the model's range, whatever its own values are", async () => {
    const grey = deep([0, 2048, 4095, 4096]);
    expect(sniff(grey).format).toBe("PNG");
    expect(isDeep(grey)).toBe(true);
    expect(await shown(grey, [0, 4095])).toEqual([[0, 0, 0, 128, 128, 128, 255, 255, 255, 255, 255, 255], 0.25]);
    expect(await shown(grey, "full")).toEqual([[0, 0, 0, 8, 8, 8, 16, 16, 16, 16, 16, 16], 0]);
    // Halves go to the even neighbour, as NumPy has it.
    expect(await shown(deep([1, 3, 5]), [0, 510])).toEqual([[0, 0, 0, 2, 2, 2, 2, 2, 2], 0]);
  });

  it("has its colours and its opacity in 16 bits too", async () => {
    expect(await shown(deep([0, 2048, 5000], 2), [0, 4095])).toEqual([[0, 128, 255], 1]);
    expect(await shown(deep([0, 65535, 0, 32768, 0, 0], 4), [0, 4095])).toEqual([[0, 0, 0, 127, 127, 127, 255, 255, 255], 0]);
    expect(await shown(deep([4095, 0, 0, 32768], 6), [0, 4095])).toEqual([[255, 127, 127], 0]);
    expect(await shown(deep([7, 8], 0, chunk("tRNS", be16(7))), [0, 4095])).toEqual([[255, 255, 255, 0, 0, 0], 0]);
  });

  it("is refused without a range, and where it is cut short", async () => {
    await expect(readDeep(deep([1]), null)).rejects.toMatchObject({ key: "refusal.deep" });
    const cut = deep([1, 2, 3]);
    cut.set([0, 0], cut.length - 30);
    await expect(readDeep(cut, "full")).rejects.toMatchObject({ key: "refusal.damaged" });
  });
});

describe("SHA-256", () => {
  it.each([crypto, {}])("is the same with and without the browser's own (%#)", async (own) => {
    vi.stubGlobal("crypto", own);
    expect(await sha256(new Uint8Array([97, 98, 99]))).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const bytes = new Uint8Array(randomBytes(1000));
    expect(await sha256(bytes)).toBe(createHash("sha256").update(bytes).digest("hex"));
    vi.unstubAllGlobals();
  });
});
