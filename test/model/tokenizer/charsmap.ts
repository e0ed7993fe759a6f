/** A `precompiled_charsmap` as SentencePiece compiles it: a double-array trie of the keys' bytes, then the replacements. */
export function charsmap(map: Readonly<Record<string, string>>): string {
  const utf8 = new TextEncoder();
  const blob: number[] = [];
  interface Node {
    next: Map<number, Node>;
    value?: number;
  }
  const root: Node = { next: new Map() };
  for (const [key, text] of Object.entries(map)) {
    let node = root;
    for (const byte of utf8.encode(key)) {
      if (!node.next.has(byte)) node.next.set(byte, { next: new Map() });
      node = node.next.get(byte)!;
    }
    node.value = blob.length;
    blob.push(...utf8.encode(text), 0);
  }
  const units: number[] = [0];
  const taken = new Set([0]);
  /** Two nodes with one base would share their children. */
  const bases = new Set<number>();
  const place = (node: Node, at: number, label: number): void => {
    const labels = [...(node.value === undefined ? [] : [0]), ...node.next.keys()];
    // A child stands at base ^ its label.
    let base = 1;
    while (bases.has(base) || labels.some((one) => taken.has(base ^ one)) || (at ^ base) > 0x1fffff) base++;
    bases.add(base);
    for (const one of labels) taken.add(base ^ one);
    units[at] = (((at ^ base) << 10) | (node.value === undefined ? 0 : 0x100) | label) >>> 0;
    if (node.value !== undefined) units[base] = (node.value | 0x80000000) >>> 0;
    for (const [one, child] of node.next) place(child, base ^ one, one);
  };
  place(root, 0, 0);
  const words = Uint32Array.from({ length: Math.max(...taken) + 256 }, (_, i) => units[i] ?? 0);
  const bytes = [...new Uint8Array(Uint32Array.of(words.byteLength).buffer), ...new Uint8Array(words.buffer), ...blob];
  return btoa(String.fromCharCode(...bytes));
}
