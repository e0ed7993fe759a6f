import { FormatError } from "./errors.ts";
import { memorySource, type ByteSource } from "./source.ts";

/**
 * A folder of files, such as a Hugging Face model. It passes for a source, so that it can be given wherever a model's file can; having no
 * bytes of its own it cannot be read. Closing it closes the files that were opened through it.
 */
export interface ModelFolder extends ByteSource {
  /**
   * A file directly in the folder, open for reading, or undefined when there is none of that name.
   * @throws FormatError when it is there and cannot be read.
   */
  open(file: string): ByteSource | undefined;
}

/** Whether a source is a folder of files, which can be opened but not read. */
export function isFolder(source: ByteSource): source is ModelFolder {
  return "open" in source;
}

/** A folder made of a way to open its files. @param name For messages: usually the path. */
export function modelFolder(name: string, open: (file: string) => ByteSource | undefined): ModelFolder {
  const opened: ByteSource[] = [];
  return {
    name,
    size: 0,
    read() {
      throw new FormatError(name, "this is a directory, expected a file");
    },
    open(file) {
      const source = open(file);
      if (source) opened.push(source);
      return source;
    },
    close: () => opened.forEach((source) => source.close()),
  };
}

/** A folder in memory: file names and their bytes or text. */
export function memoryFolder(name: string, files: Readonly<Record<string, Uint8Array | string>>): ModelFolder {
  return modelFolder(name, (file) => {
    if (!Object.hasOwn(files, file)) return undefined;
    const content = files[file];
    return memorySource(`${name}/${file}`, typeof content === "string" ? new TextEncoder().encode(content) : content);
  });
}
