// Numbers behind a chart: thinning, scales, round numbers for axes.

/** At most `most` points: means of neighbours, with their lowest and highest value. */
export function thin(points, most) {
  const size = Math.max(1, Math.ceil(points.length / Math.max(most, 1)));
  const thinned = [];
  for (let start = 0; start < points.length; start += size) {
    const end = Math.min(start + size, points.length);
    let [sum, low, high] = [0, Infinity, -Infinity];
    for (let i = start; i < end; i++) {
      const { y } = points[i];
      sum += y;
      low = Math.min(low, y);
      high = Math.max(high, y);
    }
    thinned.push({ x: points[end - 1].x, y: sum / (end - start), low, high });
  }
  return thinned;
}

/** The point of a series, in order of x, whose x is nearest. */
export function closest(points, x) {
  let [low, high] = [0, points.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].x < x) low = middle + 1;
    else high = middle;
  }
  const [before, after] = [points[low - 1], points[low]];
  return before && x - before.x < after.x - x ? before : after;
}

/** Where values stand in a picture, and round numbers for its axes. */
export function makeScales(series, inner, margin, log, { yRange, fromZero = false }) {
  const all = series.flatMap(({ points }) => points);
  const bounds = (values) => [Math.min(...values), Math.max(...values)];
  let [x0, x1] = all.length ? bounds(all.map((p) => p.x)) : [0, 1];
  if (fromZero) x0 = Math.min(x0, 0);
  if (x0 === x1) [x0, x1] = [x0 - 0.5, x1 + 0.5];
  const unknown = log ? [1, 10] : [0, 1];
  let [y0, y1] = yRange ?? (all.length ? bounds(all.flatMap((p) => [p.low, p.high])) : unknown);
  if (!yRange && !log) y0 = Math.min(0, y0);
  if (y0 === y1) y1 = y0 + (Math.abs(y0) || 1);
  const along = log ? Math.log10 : (value) => value;
  return {
    x: (value) => margin.left + (inner.width * (value - x0)) / (x1 - x0),
    fromX: (px) => x0 + ((px - margin.left) * (x1 - x0)) / inner.width,
    y: (value) =>
      margin.top + inner.height * (1 - (along(value) - along(y0)) / (along(y1) - along(y0))),
    xTicks: ticks(x0, x1, Math.max(2, inner.width / 70)).filter(Number.isInteger),
    yTicks: log ? logTicks(y0, y1) : ticks(y0, y1, 4),
  };
}

/** About `most` round numbers from low to high. */
function ticks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  );
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    found.push(10 ** power);
  const inside = found.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  return inside.length > 1 ? inside : [low, high];
}
