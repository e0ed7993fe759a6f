/**
 * Bytes as printable characters, so that any bytes can be a token's name (Radford et al. 2019, GPT-2's encoder.py): by byte, itself where it
 * is a printable Latin-1 character, else the next free character from U+0100 on.
 */
export const BYTE_CHARACTERS: readonly string[] = byteCharacters();
export const CHARACTER_BYTES: ReadonlyMap<string, number> = new Map(BYTE_CHARACTERS.map((character, byte) => [character, byte]));

function byteCharacters(): string[] {
  let free = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCharCode(printable ? byte : free++);
  });
}

const utf8 = new TextEncoder();

/** A text's UTF-8 bytes as such characters: " é" is "ĠÃ©". */
export function spelled(text: string): string {
  if (/^[!-~]*$/.test(text)) return text;
  if (text.length <= 64) return spelledBytes(utf8.encode(text));
  // Joined in pieces: one string grown character by character would be a deep rope.
  const bytes = utf8.encode(text);
  const pieces: string[] = [];
  for (let i = 0; i < bytes.length; i += 4096) pieces.push(spelledBytes(bytes.subarray(i, i + 4096)));
  return pieces.join("");
}

function spelledBytes(bytes: Uint8Array): string {
  let out = "";
  for (let i = 0; i < bytes.length; i++) out += BYTE_CHARACTERS[bytes[i]];
  return out;
}

/** The bytes that a name spells, or undefined when one of its characters stands for no byte. */
export function bytesOf(name: string): Uint8Array | undefined {
  const bytes = new Uint8Array(name.length);
  for (let i = 0; i < name.length; i++) {
    const byte = CHARACTER_BYTES.get(name[i]);
    if (byte === undefined) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}
