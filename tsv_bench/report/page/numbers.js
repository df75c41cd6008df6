// Accuracies, paired counts and their intervals, and how numbers are written.
// Fractions in [0, 1] until they are written, then percent.
//
// Uses: nothing of the other scripts.
// Gives: NONE, isNumber, percent, signed, bounds, megabytes, seconds to all;
//   unpackBytes, countPairs, pairedInterval, meanInterval to compare.js.

const Z = 1.959963984540054; // 97.5% quantile of the normal distribution
const NONE = "\u2013";
const isNumber = (value) => typeof value === "number";

const percent = (fraction, digits = 1) =>
  isNumber(fraction) ? (100 * fraction).toFixed(digits) : NONE;

const signed = (fraction, digits = 1) => {
  if (!isNumber(fraction)) return NONE;
  const text = (100 * fraction).toFixed(digits);
  if (Number(text) === 0) return text.replace("-", "+").replace(/^(?!\+)/, "+");
  return fraction > 0 ? "+" + text : text.replace("-", "\u2212");
};

const bounds = ([low, high], write = percent) => `[${write(low)}, ${write(high)}]`;

const megabytes = (bytes) => {
  if (!isNumber(bytes)) return NONE;
  const size = bytes / 1e6;
  return size >= 100 ? size.toFixed(0) : size >= 10 ? size.toFixed(1) : size.toFixed(2);
};

const seconds = (time) => (isNumber(time) ? time.toFixed(time < 10 ? 1 : 0) : NONE);

const unpackBytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

// The number of ones in each byte.
const BITS = Uint8Array.from({ length: 256 }, (_, byte) => {
  let bits = 0;
  for (let rest = byte; rest; rest >>= 1) bits += rest & 1;
  return bits;
});

// Count the images that only the first, and only the second, has right; both are packed bits.
const countPairs = (first, second) => {
  let onlyFirst = 0, onlySecond = 0;
  for (let i = 0; i < first.length; i++) {
    onlyFirst += BITS[first[i] & ~second[i] & 255];
    onlySecond += BITS[second[i] & ~first[i] & 255];
  }
  return { onlyFirst, onlySecond };
};

// The 95% interval of one task's paired difference by Bonett and Price (2012), as in
// report/tables/statistics.py: two images are added, one that each alone has right.
const pairedInterval = (onlyFirst, onlySecond, total) => {
  const n = total + 2;
  const middle = (onlyFirst - onlySecond) / n;
  const half = Z * Math.sqrt(((onlyFirst + onlySecond + 2) / n - middle * middle) / n);
  return [middle - half, middle + half];
};

// The 95% interval of the mean over tasks of paired differences, [{onlyFirst, onlySecond, total}].
// An approximation by the normal distribution: a bootstrap would keep the reader waiting.
const meanInterval = (pairs) => {
  let sum = 0, variance = 0;
  for (const { onlyFirst, onlySecond, total } of pairs) {
    const difference = (onlyFirst - onlySecond) / total;
    sum += difference;
    variance += ((onlyFirst + onlySecond) / total - difference * difference) / total;
  }
  const [mean, half] = [sum / pairs.length, (Z * Math.sqrt(variance)) / pairs.length];
  return [mean - half, mean + half];
};
