import { expect, it } from "vitest";
import { Pace, Steady } from "../src/live.ts";

it("pace is measured over the last answers", () => {
  const pace = new Pace();
  expect(pace.add(0)).toBeNull();
  expect(pace.add(100)).toBe(10);
  for (let now = 300; now <= 3000; now += 200) pace.add(now);
  expect(pace.add(3100 + 100)).toBeCloseTo(5, 0);
});

it("only a label that stays is read out, and only once", () => {
  const steady = new Steady();
  expect(steady.add("a", 0)).toBe(false);
  expect(steady.add("b", 1000)).toBe(false);
  expect(steady.add("a", 1100)).toBe(false);
  expect(steady.add("a", 2599)).toBe(false);
  expect(steady.add("a", 2600)).toBe(true);
  expect(steady.add("a", 9000)).toBe(false);
  expect(steady.add("b", 9100)).toBe(false);
  expect(steady.add("b", 10_600)).toBe(true);
});
