import { axes, mark, plotBox, svg, text } from "../chart.ts";
import type { ReportData, RooflinePoint } from "../data.ts";
import { bytesCell, countCell, digits, numberCell, percent, rate } from "../format.ts";
import { table, tag, words } from "../html.ts";
import { logarithmic } from "../scale.ts";
import { chart, kindColour, kindIndex, kindLegend, numbers, type Section, section } from "../section.ts";

const placed = ({ intensity, gflops }: RooflinePoint) => intensity > 0 && gflops > 0;

/** Every op of the run under the roof that bandwidth and arithmetic make. */
export function rooflineSection({ roofline, run, model }: ReportData): Section {
  const { points, bandwidthGBs, peaks } = roofline;
  const see = sentence(roofline, model.weights);
  const body = chart((width) => draw(width, roofline, see), [...kindLegend(true), { name: "hollow: prefill, filled: decode; larger: more time" }]);
  const ops = table(
    "Each op of the run, all its calls together",
    ["op", "phase", "kind", "calls", "flops", "bytes", "time, ms", "flops/byte", "GFLOP/s"],
    points.map(({ phase, name, kind, calls, flops, bytes, ms, intensity, gflops }) => [
      ...[words(name), words(phase), words(kind), countCell(calls), countCell(flops), bytesCell(bytes)],
      ...[numberCell(ms), numberCell(intensity), numberCell(gflops)],
    ]),
  );
  const roofs = table("The roof", ["limit", "value", "flops/byte where it meets the bandwidth"], [
    [words("memory"), numberCell(bandwidthGBs, "GB/s"), words("")],
    ...peaks.map(({ format, gflops }) => [words(`arithmetic, ${format}`), numberCell(gflops, "GFLOP/s"), words(digits(gflops / bandwidthGBs))]),
  ]);
  const how = run.mode === "measured" ? `Times are measured; the roof is a quick measurement of ${run.machine}.` : `Nothing was computed: each op takes the time that ${run.machine}'s roof allows.`;
  const over = points.filter((point) => placed(point) && point.gflops > 1.05 * Math.min(point.intensity * bandwidthGBs, Math.max(...peaks.map(({ gflops }) => gflops)))).length;
  const cached = over === 0 ? "" : ` ${over} of the ${points.length} ops ${over === 1 ? "stands" : "stand"} above the roof: the data came from a cache, or the roof was measured while other programs ran.`;
  return section("roofline", "Roofline", `${see} ${how}${cached}`, body, numbers("The ops as numbers", ops, roofs));
}

function sentence({ points, bandwidthGBs, peaks }: ReportData["roofline"], weights: string): string {
  const balance = peakFor(weights, peaks) / bandwidthGBs;
  const decode = points.filter(({ phase }) => phase === "decode");
  const time = (of: readonly RooflinePoint[]) => of.reduce((sum, { ms }) => sum + ms, 0);
  const left = time(decode.filter(({ intensity }) => intensity < balance)) / time(decode);
  const of = (kind: string, phase: string) => mean(points.filter((point) => point.kind === kind && point.phase === phase));
  const [gemv, gemm] = [of("gemv", "decode"), of("gemm", "prefill")];
  const compare = gemm > 0 ? `, while the prompt's gemm does ${digits(gemm)}` : "";
  return `${percent(left)} of decode's time goes to ops left of ${digits(balance)} flops a byte, where memory and not arithmetic is the limit: decode's gemv does ${digits(gemv)} flops for each byte${compare}.`;
}

/** The peak of the format that products with these weights are computed in: integers as int8, where the device has it. */
function peakFor(weights: string, peaks: ReportData["roofline"]["peaks"]): number {
  const wanted = weights.startsWith("int") ? "int8" : weights === "f32" ? "fp32" : "fp16";
  return (peaks.find(({ format }) => format === wanted) ?? peaks[0]).gflops;
}

function mean(points: readonly RooflinePoint[]): number {
  const bytes = points.reduce((sum, point) => sum + point.bytes, 0);
  return bytes === 0 ? 0 : points.reduce((sum, point) => sum + point.flops, 0) / bytes;
}

function draw(width: number, { points, bandwidthGBs, peaks }: ReportData["roofline"], label: string): string {
  const shown = points.filter(placed);
  const box = plotBox(width, width > 500 ? 460 : 340);
  const top = Math.max(...peaks.map(({ gflops }) => gflops));
  const x = logarithmic([...shown.map(({ intensity }) => intensity), (top / bandwidthGBs) * 3], box.left, box.right);
  const y = logarithmic([...shown.map(({ gflops }) => gflops), top * 1.5], box.bottom, box.top);
  const corner = (gflops: number) => x.at(gflops / bandwidthGBs).toFixed(1);
  const low = Math.max(x.ticks[0].value, y.ticks[0].value / bandwidthGBs);
  const slope = tag("path", { d: `M${x.at(low).toFixed(1)} ${y.at(low * bandwidthGBs).toFixed(1)}L${corner(top)} ${y.at(top).toFixed(1)}`, class: "roof" });
  const flats = peaks.map(({ gflops }) => tag("path", { d: `M${corner(gflops)} ${y.at(gflops).toFixed(1)}H${box.right}`, class: "roof" }));
  // From the highest down, each label below its line where the one above leaves no room.
  let free = -Infinity;
  const names = [...peaks]
    .sort((a, b) => b.gflops - a.gflops)
    .map(({ format, gflops }) => {
      const above = y.at(gflops) - 5;
      free = Math.max(above, free + 14);
      return text(box.right - 2, free > above ? Math.max(free, y.at(gflops) + 14) : above, width > 500 ? `${format} ${rate(gflops)}` : format, { class: "end halo" });
    });
  const halfway = Math.sqrt(low * (top / bandwidthGBs));
  const name = text(x.at(halfway) - 8, y.at(halfway * bandwidthGBs) - 8, `${digits(bandwidthGBs)} GB/s`, { class: "end halo" });
  const time = shown.reduce((sum, { ms }) => sum + ms, 0);
  const marks = [...shown]
    .sort((a, b) => b.ms - a.ms)
    .map(({ phase, name: op, kind, intensity, gflops, ms }) => {
      const size = (width > 500 ? 4 : 3) + 9 * Math.sqrt(time === 0 ? 0 : ms / time);
      const title = `${op}, ${phase}: ${digits(intensity)} flops/byte, ${digits(gflops)} GFLOP/s`;
      return mark(kindIndex(kind), x.at(intensity), y.at(gflops), size, `${kindColour(kind)}${phase === "prefill" ? " hollow" : ""}`, title);
    });
  return svg(box, label, axes(box, x, y, "arithmetic intensity, flops per byte (log)", "GFLOP/s (log)"), slope, ...flats, ...marks, name, ...names);
}
