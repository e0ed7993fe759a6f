import type { Hardware } from "./hardware.ts";

/** Every figure with the source of its field, or else with `source`. */
function device(source: string, figures: Omit<Hardware, "sources">, others: Record<string, string> = {}): Hardware {
  const fields = Object.keys(figures).filter((field) => field !== "name" && field !== "unverified");
  return { ...figures, sources: { ...Object.fromEntries(fields.map((field) => [field, source])), ...others } };
}

/** The middle of what one kernel launch was measured to take from its call to its start. */
const LAUNCH = { launchUs: 5 };
const LAUNCH_SOURCE = { launchUs: "4 to 6 us a launch without graphs on an RTX 5070 Ti, susun-blog.com/blog/pegainfer-3-cuda-graph; taken for all NVIDIA devices" };
const PCIE4 = { linkGBs: "PCI Express 4.0 x16, 32 GB/s each way: glennklockwood.com/garden/processors/A100" };

const A100 = "glennklockwood.com/garden/processors/A100, from NVIDIA's A100 datasheet and Ampere whitepaper (dense rates, SXM4, NVLink 300 GB/s each way)";
const A100_CACHE = { cacheMB: "L2 of 41,943,040 bytes, device query at upb-pc2.atlassian.net, NVIDIA A100 40GB with NVLINK" };
const FSD = "en.wikichip.org, Tesla FSD chip";
const PI = "circuitdigest.com, The new Raspberry Pi 5";

/**
 * Devices that memwall knows, by name: peaks as published. A source is the page where the figure was read; it names the maker's own document
 * where the page does. `unverified` fields are those for which no page was found.
 */
export const HARDWARE: readonly Hardware[] = [
  device(
    "NVIDIA's table as shown at archive-lib.hpctech.co.jp/gpuproduct/nvidia-h100.html (SXM5; NVLink 900 GB/s both ways)",
    { name: "h100-sxm", bandwidthGBs: 3350, capacityGB: 80, peaks: { fp32: 66.9, fp16: 989.4, int8: 1978.9 }, linkGBs: 450, cacheMB: 50, tdpWatts: 700, ...LAUNCH },
    { ...LAUNCH_SOURCE, peaks: "glennklockwood.com/garden/processors/h100 (dense rates)" },
  ),
  device(
    A100,
    { name: "a100-80g", bandwidthGBs: 2039, capacityGB: 80, peaks: { fp32: 19.5, fp16: 312, int8: 624, int4: 1248 }, linkGBs: 300, cacheMB: 40, tdpWatts: 400, ...LAUNCH },
    { ...LAUNCH_SOURCE, ...A100_CACHE },
  ),
  device(
    A100,
    { name: "a100-40g", bandwidthGBs: 1555, capacityGB: 40, peaks: { fp32: 19.5, fp16: 312, int8: 624, int4: 1248 }, linkGBs: 300, cacheMB: 40, tdpWatts: 400, ...LAUNCH },
    { ...LAUNCH_SOURCE, ...A100_CACHE },
  ),
  device(
    "NVIDIA's table as shown at mullet.se, L40/L40S (PCI Express 4.0 x16: 64 GB/s both ways)",
    { name: "l40s", bandwidthGBs: 864, capacityGB: 48, peaks: { fp32: 91.6, fp16: 362.05, int8: 733, int4: 1466 }, linkGBs: 32, cacheMB: 48, tdpWatts: 350, ...LAUNCH },
    {
      ...LAUNCH_SOURCE,
      peaks: "mullet.se, L40/L40S (fp32, fp16, FP8 733); int8 733 and int4 1466: hmc-tech.com, L40S (dense rates)",
      cacheMB: "computizer.com, L40S: L2 cache 48 MB (the whole AD102 chip has 96)",
    },
  ),
  device(
    "servethehome.com, NVIDIA RTX A6000 48GB (NVLink 112.5 GB/s both ways)",
    { name: "a6000", bandwidthGBs: 768, capacityGB: 48, peaks: { fp32: 38.7, fp16: 154.8, int8: 309.7, int4: 619.3 }, linkGBs: 56.25, cacheMB: 6, tdpWatts: 300, ...LAUNCH },
    {
      ...LAUNCH_SOURCE,
      peaks: "fp32: sysrqmts.com, RTX A6000; fp16 and int8: github.com/hahnyuan/LLM-Viewer hardwares/hardware_params.py (dense rates); int4 twice int8, as on the A40 of the same chip",
      cacheMB: "sysrqmts.com, RTX A6000: L2 cache 6 MB",
    },
  ),
  device(
    "Dell EMC Ready Solutions for AI, Deep Learning with NVIDIA, reference guide p. 17: V100-SXM2 (manualshelf.com; NVLink 150 GB/s each way)",
    { name: "v100", bandwidthGBs: 900, capacityGB: 32, peaks: { fp32: 15.7, fp16: 125 }, linkGBs: 150, cacheMB: 6, tdpWatts: 300, ...LAUNCH },
    { ...LAUNCH_SOURCE, peaks: "gist.github.com/syhw/b8067966a498b604b4750e9458f36804: V100 (NVLink)", capacityGB: "sysrqmts.com, Tesla V100 of 32 GB", cacheMB: "sysrqmts.com, Tesla V100: L2 cache 6 MB" },
  ),
  device(
    "waredb.com/processor/nvidia-geforce-rtx-4090 (dense rates, fp16 with fp32 sums)",
    { name: "rtx-4090", bandwidthGBs: 1008, capacityGB: 24, peaks: { fp32: 82.6, fp16: 165.2, int8: 660.6, int4: 1321.2 }, linkGBs: 32, cacheMB: 72, tdpWatts: 450, ...LAUNCH },
    { ...PCIE4, ...LAUNCH_SOURCE, tdpWatts: "thefpsreview.com, GeForce RTX 4090: TGP 450 W" },
  ),
  device(
    "deploybase.ai/articles/mi300x-vs-h100",
    { name: "mi300x", bandwidthGBs: 5300, capacityGB: 192, peaks: { fp32: 163.4, fp16: 1307.4, int8: 2614.9 }, linkGBs: 448, cacheMB: 256, tdpWatts: 750 },
    {
      peaks: "deploybase.ai/articles/mi300x-vs-h100: fp32 163.4, FP8 2610, whose rate int8 has; fp16 half of it, 1.31 PFLOPS at bigdatasupply.com/nvidia-h100-vs-amd-mi300x; the last digits from memory",
      linkGBs: "gpu.blog/gpus/instinct-mi300x-mi300x: Infinity Fabric, 896 GB/s both ways",
      cacheMB: "servethehome.com, AMD Instinct MI300X: 256 MB of Infinity Cache",
    },
  ),
  device(
    "apple.com/newsroom/2023/06/apple-introduces-m2-ultra",
    { name: "m2-ultra", bandwidthGBs: 800, capacityGB: 192, peaks: { fp32: 27.2 }, unverified: ["peaks"] },
    { peaks: "27.2 TFLOPS for the GPU of 76 cores, from memory; one rate for both float formats" },
  ),
  device(
    "NVIDIA's Jetson AGX Orin technical brief as quoted at mzph.cn/web/30785.shtml",
    { name: "orin", bandwidthGBs: 204.8, capacityGB: 64, peaks: { fp32: 5.3, fp16: 42.5, int8: 85 }, cacheMB: 4, tdpWatts: 60, unverified: ["bandwidthGBs"] },
    {
      bandwidthGBs: "256 bits of LPDDR5-6400, from memory",
      peaks: "the brief at mzph.cn: fp32 5.3, int8 170 sparse, which is 85 dense, GPU only; fp16 half of int8",
      tdpWatts: "module data sheet p. 7, up to 60 W, as quoted at forums.developer.nvidia.com/t/324194",
    },
  ),
  device(
    FSD,
    { name: "tesla-fsd-hw3", bandwidthGBs: 63.5, capacityGB: 8, peaks: { fp32: 0.6, int8: 73.7 }, cacheMB: 64, tdpWatts: 36 },
    {
      bandwidthGBs: `${FSD}: 128 bits of LPDDR4-4266, which is 68.3 GB/s or 63.6 GiB/s: the 63.5 of the known ceiling are GiB/s, kept so that it can be compared`,
      peaks: `int8: ${FSD}, two units of 36.86; fp32: after1989.com, Tesla's Autonomy Day, GPU 600 GFLOPS`,
      cacheMB: `${FSD}: 32 MiB of SRAM in each of two units`,
    },
  ),
  device(
    "AMD Ryzen 9 7950X, from memory",
    { name: "ddr5-desktop", bandwidthGBs: 89.6, capacityGB: 64, peaks: { fp32: 2.3, int8: 9.2 }, cacheMB: 64, tdpWatts: 170, unverified: ["peaks", "cacheMB", "tdpWatts"] },
    {
      bandwidthGBs: "by definition: two channels of 64 bits at 5600 MT/s (DDR5-5600)",
      capacityGB: "an assumption: two modules of 32 GB",
      peaks: "from memory: 16 cores x 4.5 GHz x 32 fp32 or 128 int8 operations a cycle",
    },
  ),
  device(
    `${PI}: 32 bits at 4267 MT/s, four Cortex-A76 at 2.4 GHz, 2 MB of L3`,
    { name: "raspberry-pi-5", bandwidthGBs: 17.1, capacityGB: 8, peaks: { fp32: 0.154, int8: 0.614 }, cacheMB: 2, tdpWatts: 12, unverified: ["peaks"] },
    {
      capacityGB: "pcmasters.de, Raspberry Pi 5: the model of 8 GB",
      peaks: `${PI}: 4 cores x 2.4 GHz; x 16 fp32 or 64 int8 operations a cycle, from memory`,
      tdpWatts: "en.mashdigi.com, Raspberry Pi 5: 12 W",
    },
  ),
];

export const HARDWARE_NAMES: readonly string[] = HARDWARE.map(({ name }) => name);
