/** The blocks of a page of the documentation, as one program: a block may use what the blocks before it declare. */

const IMPORT = /^import (type )?\{([^}]*)\} from "([^"]+)";?$/gm

/** Returns the import statements of the blocks, with each name once. */
const mergedImports = (blocks: ReadonlyArray<string>): string => {
  const names = new Map<string, Set<string>>()
  for (const block of blocks) {
    for (const [, type, list, module] of block.matchAll(IMPORT)) {
      const ofModule = names.get(module!) ?? new Set()
      names.set(module!, ofModule)
      for (const name of list!.split(",").map((text) => text.trim())) {
        if (name !== "") ofModule.add(type === undefined ? name : `type ${name}`)
      }
    }
  }
  return Array.from(names, ([module, list]) => {
    const values = [...list].filter(
      (name) => !list.has(name.replace(/^type /, "")) || !name.startsWith("type ")
    )
    return `import { ${values.join(", ")} } from "${module}"`
  }).join("\n")
}

/** Wraps a block that yields effects outside of a function. */
const toStatements = (block: string, index: number): string => {
  const rest = block.replaceAll(IMPORT, "")
  return /^(const [^=]+= |return )?\(?yield\* /m.test(rest)
    ? `export const fragment${index} = Effect.gen(function* () {\n${rest}\n})`
    : rest
}

/** Whether a page is one program: its first block imports the library and makes a task. */
export const isProgram = (blocks: ReadonlyArray<string>): boolean =>
  blocks[0] !== undefined && /^import .* from "chicory/m.test(blocks[0]) && /Task\.make/.test(blocks[0])

/** Returns the module of a page's blocks. */
export const toProgram = (blocks: ReadonlyArray<string>): string =>
  `${mergedImports(blocks)}\n${blocks.map(toStatements).join("\n")}\nexport {}\n`
