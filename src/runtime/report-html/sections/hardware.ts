import { barChart } from "../bars.ts";
import type { HardwareRow, ReportData } from "../data.ts";
import { bytesCell, digits, joules, numberCell, orNone, percent, shareCell } from "../format.ts";
import { figure, table, words } from "../html.ts";
import { linear, logarithmic } from "../scale.ts";
import { chart, numbers, type Section, section } from "../section.ts";

const ENERGIES = [
  { what: "arithmetic", colour: "c1" },
  { what: "cache", colour: "c2" },
  { what: "dram", colour: "c0" },
] as const;

/** The same workload under other roofs: speed, and energy. */
export function hardwareSections(data: ReportData): Section[] {
  return [speedSection(data), energySection(data)];
}

function speedSection({ hardware, model, run }: ReportData): Section {
  const fitting = hardware.filter(({ tokensPerSecond }) => tokensPerSecond !== null);
  const best = [...fitting].sort((a, b) => b.tokensPerSecond! - a.tokensPerSecond!)[0];
  const bound = fitting.filter((row) => row.bound === "memory").length;
  const see = best
    ? `At best ${best.hw} would decode ${digits(best.tokensPerSecond!)} tokens a second; memory bandwidth is what binds ${bound} of the ${fitting.length} devices that hold ${model.name}.`
    : `${model.name} fits into none of these devices.`;
  const rows = fitting.map((row) => ({ label: `${row.hw}, ${digits(row.bandwidthGBs)} GB/s`, value: `${digits(row.tokensPerSecond!)} tokens/s`, parts: [{ size: row.tokensPerSecond!, colour: "c0" }] }));
  const speeds = fitting.map((row) => row.tokensPerSecond!);
  return section(
    ...(["hardware", "Other hardware"] as const),
    `${see} These are ceilings for ${run.promptTokens} prompt tokens and ${run.tokens} decoded, one sequence: each op takes the longer of its flops at the peak and its bytes at full bandwidth.`,
    rows.length === 0 ? "" : chart((width) => barChart(width, see, rows, (from, to) => logarithmic([Math.min(...speeds) * 0.5, ...speeds], from, to, width > 500 ? 6 : 4), "tokens/s (log)")),
    numbers("The devices as numbers", table("Projected onto hardware", ["device", "bandwidth", "needs", "fits", "time per token, ms", "tokens/s", "first token, ms", "bound by", "MBU", "MFU", "figures without a source"], hardware.map(cells))),
  );
}

function cells({ hw, bandwidthGBs, neededBytes, fits, tpotMs, tokensPerSecond, ttftMs, bound, mbu, mfu, unverified }: HardwareRow) {
  return [
    ...[words(hw), numberCell(bandwidthGBs, "GB/s"), bytesCell(neededBytes), words(fits ? "yes" : "no")],
    ...[orNone(tpotMs, numberCell), orNone(tokensPerSecond, numberCell), orNone(ttftMs, numberCell)],
    ...[words(bound ?? "does not fit"), orNone(mbu, shareCell), orNone(mfu, shareCell), words(unverified.join(", ") || "none")],
  ];
}

function energySection({ hardware, energySource }: ReportData): Section {
  const known = hardware.flatMap(({ hw, energy }) => (energy ? [{ hw, energy }] : []));
  const first = known[0];
  const see = first
    ? `On ${first.hw}, ${percent(first.energy.dram / first.energy.total)} of the ${joules(first.energy.total)} that a token takes is spent on moving bytes to and from memory, ${percent(first.energy.arithmetic / first.energy.total)} on arithmetic.`
    : "No device holds the model, so there is no energy to tell of.";
  const most = Math.max(0, ...known.map(({ energy }) => energy.total));
  const unit = most >= 1 ? { name: "J", size: 1 } : most >= 1e-3 ? { name: "mJ", size: 1e-3 } : { name: "µJ", size: 1e-6 };
  const rows = known.map(({ hw, energy }) => ({
    label: hw,
    value: joules(energy.total),
    parts: ENERGIES.map(({ what, colour }) => ({ size: energy[what] / unit.size, colour, title: `${what}: ${joules(energy[what])}` })),
  }));
  const cell = (value: number) => figure(value, joules(value));
  return section(
    ...(["energy", "Energy per token"] as const),
    `${see} Energies per operation and byte: ${energySource}; newer processes need less of both.`,
    rows.length === 0 ? "" : chart((width) => barChart(width, see, rows, (from, to) => linear(most / unit.size, from, to), `per decoded token, ${unit.name}`), ENERGIES.map(({ what, colour }) => ({ name: what === "dram" ? "DRAM" : what, colour }))),
    numbers("The energies as numbers", table("Energy per decoded token", ["device", "arithmetic", "cache", "DRAM", "all"], hardware.map(({ hw, energy }) => [words(hw), ...(["arithmetic", "cache", "dram", "total"] as const).map((what) => orNone(energy && energy[what], cell))]))),
  );
}

