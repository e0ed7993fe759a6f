import type { Hardware } from "./hardware.ts";

/** Every field of `figures` with the same source, but for those that `others` names. */
function device(source: string, figures: Omit<Hardware, "sources">, others: Record<string, string> = {}): Hardware {
  const sources = Object.fromEntries(Object.keys(figures).filter((field) => field !== "name").map((field) => [field, source]));
  return { ...figures, sources: { ...sources, ...others } };
}

/** Measured on a V100: a short kernel launched alone takes 9.6 us, of which 2.9 us are work. */
const LAUNCH = { launchUs: 6.7 };
const LAUNCH_SOURCE = { launchUs: "NVIDIA Technical Blog, Getting Started with CUDA Graphs (2019): 9.6 us a kernel less 2.9 us of work, V100, no graphs" };
const PCIE4 = { linkGBs: "PCI Express 4.0 x16: 32 GB/s each way before encoding" };

const ADA = "NVIDIA Ada GPU Architecture whitepaper, appendix A (dense rates)";
const A100 = "NVIDIA A100 Tensor Core GPU datasheet, SXM (dense rates)";
const L40S = "NVIDIA L40S datasheet (dense rates)";
const A6000 = "NVIDIA RTX A6000 datasheet and GA102 whitepaper (dense rates)";
const V100 = "NVIDIA Tesla V100 datasheet and whitepaper, SXM2 32 GB";
const ORIN = "NVIDIA Jetson AGX Orin Series Technical Brief v1.2, 64 GB module (GPU only, dense rates: half the sparse ones)";
const FSD = "Tesla, Compute and Redundancy Solution for the Full Self-Driving Computer, Hot Chips 31 (2019), one chip";

/** Devices that memwall knows, by name. Figures are peaks as published. */
export const HARDWARE: readonly Hardware[] = [
  device(
    "NVIDIA H100 Tensor Core GPU datasheet and Hopper whitepaper, SXM5 (dense rates; NVLink 900 GB/s both ways)",
    { name: "h100-sxm", bandwidthGBs: 3352, capacityGB: 80, peaks: { fp32: 66.9, fp16: 989.4, int8: 1978.9 }, linkGBs: 450, cacheMB: 50, tdpWatts: 700, ...LAUNCH },
    LAUNCH_SOURCE,
  ),
  device(
    A100,
    { name: "a100-80g", bandwidthGBs: 2039, capacityGB: 80, peaks: { fp32: 19.5, fp16: 312, int8: 624, int4: 1248 }, linkGBs: 300, cacheMB: 40, tdpWatts: 400, ...LAUNCH },
    LAUNCH_SOURCE,
  ),
  device(
    A100,
    { name: "a100-40g", bandwidthGBs: 1555, capacityGB: 40, peaks: { fp32: 19.5, fp16: 312, int8: 624, int4: 1248 }, linkGBs: 300, cacheMB: 40, tdpWatts: 400, ...LAUNCH },
    LAUNCH_SOURCE,
  ),
  device(
    L40S,
    { name: "l40s", bandwidthGBs: 864, capacityGB: 48, peaks: { fp32: 91.6, fp16: 362.05, int8: 733, int4: 733 }, linkGBs: 32, cacheMB: 96, tdpWatts: 350, ...LAUNCH },
    { ...PCIE4, ...LAUNCH_SOURCE, cacheMB: ADA },
  ),
  device(
    A6000,
    { name: "a6000", bandwidthGBs: 768, capacityGB: 48, peaks: { fp32: 38.7, fp16: 154.8, int8: 309.7, int4: 619.3 }, linkGBs: 56.25, cacheMB: 6, tdpWatts: 300, ...LAUNCH },
    LAUNCH_SOURCE,
  ),
  device(
    V100,
    { name: "v100", bandwidthGBs: 900, capacityGB: 32, peaks: { fp32: 15.7, fp16: 125 }, linkGBs: 150, cacheMB: 6, tdpWatts: 300, ...LAUNCH },
    LAUNCH_SOURCE,
  ),
  device(
    ADA,
    { name: "rtx-4090", bandwidthGBs: 1008, capacityGB: 24, peaks: { fp32: 82.6, fp16: 165.2, int8: 660.6, int4: 1321.2 }, linkGBs: 32, cacheMB: 72, tdpWatts: 450, ...LAUNCH },
    { ...PCIE4, ...LAUNCH_SOURCE },
  ),
  device("AMD Instinct MI300X datasheet (dense rates; seven Infinity Fabric links of 64 GB/s each way)", {
    ...{ name: "mi300x", bandwidthGBs: 5300, capacityGB: 192, peaks: { fp32: 163.4, fp16: 1307.4, int8: 2614.9 }, linkGBs: 448, cacheMB: 256, tdpWatts: 750 },
  }),
  device(
    "Apple, M2 Ultra press release (2023): 800 GB/s, 192 GB, 27.2 TFLOPS GPU; its GPU has one rate for both float formats",
    { name: "m2-ultra", bandwidthGBs: 800, capacityGB: 192, peaks: { fp32: 27.2 } },
  ),
  device(ORIN, { name: "orin", bandwidthGBs: 204.8, capacityGB: 64, peaks: { fp32: 5.3, fp16: 42.5, int8: 85 }, cacheMB: 4, tdpWatts: 60 }),
  device(
    FSD,
    { name: "tesla-fsd-hw3", bandwidthGBs: 63.5, capacityGB: 8, peaks: { fp32: 0.6, int8: 73.7 }, cacheMB: 64, tdpWatts: 36 },
    { bandwidthGBs: `${FSD}: LPDDR4-4266 at 128 bits, quoted as 63.5 GB/s (68.3 by the pins)`, cacheMB: `${FSD}: 2 x 32 MB of SRAM` },
  ),
  device(
    "AMD Ryzen 9 7950X product page; AVX-512: 16 cores x 4.5 GHz x 32 fp32 or 128 int8 operations a cycle",
    { name: "ddr5-desktop", bandwidthGBs: 89.6, capacityGB: 64, peaks: { fp32: 2.3, int8: 9.2 }, cacheMB: 64, tdpWatts: 170 },
    { bandwidthGBs: "JEDEC DDR5-5600, two channels of 64 bits", capacityGB: "two 32 GB modules" },
  ),
  device(
    "Arm Cortex-A76 Software Optimization Guide: 4 cores x 2.4 GHz x 16 fp32 or 64 int8 operations a cycle",
    { name: "raspberry-pi-5", bandwidthGBs: 17.1, capacityGB: 8, peaks: { fp32: 0.154, int8: 0.614 }, cacheMB: 2, tdpWatts: 12 },
    Object.fromEntries(["bandwidthGBs", "capacityGB", "cacheMB", "tdpWatts"].map((field) => [field, "Raspberry Pi 5 product brief: LPDDR4X-4267 at 32 bits, 8 GB model"])),
  ),
];

export const HARDWARE_NAMES: readonly string[] = HARDWARE.map(({ name }) => name);
