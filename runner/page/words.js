// Say figures and moments as a person reads them; the same words as the page's static parts.

const THIN = "\u202f";
const numberWords = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const asNumber = (value) => numberWords.format(value);

function asFigure(value) {
  if (!value) return "0";
  if (value < 0.1) return String(Number(value.toPrecision(2)));
  if (value < 10) return value.toFixed(2);
  return value < 100 ? value.toFixed(1) : asNumber(value);
}

function asLength(seconds) {
  if (seconds < 0.0005) return `0${THIN}s`;
  if (seconds < 0.0995) return `${Number((1000 * seconds).toPrecision(2))}${THIN}ms`;
  if (seconds < 9.95) return `${seconds.toFixed(2)}${THIN}s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)}${THIN}s`;
  const whole = Math.round(seconds);
  for (const [unit, long, smaller, short] of [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]]) {
    if (whole >= long) return `${Math.floor(whole / long)}${THIN}${unit} ${Math.floor((whole % long) / short)}${THIN}${smaller}`;
  }
  return `${whole}${THIN}s`;
}

function asSize(many) {
  if (many < 1000) return `${Math.round(many)}${THIN}B`;
  for (const unit of ["kB", "MB", "GB"]) {
    many /= 1000;
    if (many < 1000) return `${many >= 100 ? many.toFixed(0) : many >= 10 ? many.toFixed(1) : many.toFixed(2)}${THIN}${unit}`;
  }
  return `${(many / 1000).toFixed(2)}${THIN}TB`;
}

function asPercent(share) {
  const whole = Math.round(100 * share);
  if (whole === 0 && share > 0) return `<${THIN}1${THIN}%`;
  if (whole === 100 && share < 1) return `>${THIN}99${THIN}%`;
  return `${whole}${THIN}%`;
}

const several = (many, one, more = `${one}s`) => `${asNumber(many)} ${many === 1 ? one : more}`;

const two = (value) => String(value).padStart(2, "0");

function asClock(ms, digits = 0) {
  const at = new Date(ms);
  const rest = digits ? `.${String(at.getMilliseconds()).padStart(3, "0").slice(0, digits)}` : "";
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}${rest}`;
}

const monthNames = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

/** Return a moment in the reader's own time. */
function asMoment(iso, { seconds = false } = {}) {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return iso;
  const end = seconds ? `:${two(at.getSeconds())}` : "";
  return `${at.getDate()} ${monthNames[at.getMonth()]} ${at.getFullYear()}, ${two(at.getHours())}:${two(at.getMinutes())}${end}`;
}

function quantile(sorted, share) {
  if (!sorted.length) return 0;
  const place = (sorted.length - 1) * share;
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
}
