// Accuracies, intervals and paired counts, and how they are written. Fractions until written.

const Z = 1.959963984540054; // 97.5% of the normal distribution
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

// Of one task's accuracy.
const wilson = (correct, total) => {
  const p = correct / total;
  const shrunk = 1 / (1 + (Z * Z) / total);
  const middle = shrunk * (p + (Z * Z) / (2 * total));
  const half = shrunk * Z * Math.sqrt((p * (1 - p)) / total + (Z / (2 * total)) ** 2);
  return [middle - half, middle + half];
};

// Of one task's paired difference, Bonett and Price (2012): two images are added, one that
// each alone has right.
const pairedInterval = (onlyFirst, onlySecond, total) => {
  const n = total + 2;
  const middle = (onlyFirst - onlySecond) / n;
  const half = Z * Math.sqrt(((onlyFirst + onlySecond + 2) / n - middle * middle) / n);
  return [middle - half, middle + half];
};

const unpackBytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

const BITS = Uint8Array.from({ length: 256 }, (_, byte) => {
  let bits = 0;
  for (let rest = byte; rest; rest >>= 1) bits += rest & 1;
  return bits;
});

// How many images only the first, and only the second, has right; both as packed bits.
const countPairs = (first, second) => {
  let onlyFirst = 0, onlySecond = 0;
  for (let i = 0; i < first.length; i++) {
    onlyFirst += BITS[first[i] & ~second[i] & 255];
    onlySecond += BITS[second[i] & ~first[i] & 255];
  }
  return { onlyFirst, onlySecond };
};

// The mean over tasks of paired differences, [{onlyFirst, onlySecond, total}], and its interval
// by the normal approximation; images are independent, tasks are those of the suite.
const meanDifference = (pairs) => {
  let mean = 0, variance = 0;
  for (const { onlyFirst, onlySecond, total } of pairs) {
    const difference = (onlyFirst - onlySecond) / total;
    mean += difference;
    variance += ((onlyFirst + onlySecond) / total - difference * difference) / total;
  }
  const half = (Z * Math.sqrt(variance)) / pairs.length;
  mean /= pairs.length;
  return { mean, interval: [mean - half, mean + half] };
};
