/** How batches and times are written as a script's arguments. */
import { wholeMillis } from "../internal/millis.ts"

/** Neighbouring items with the same head. */
export interface Group<In> {
  readonly head: ReadonlyArray<string>
  readonly items: ReadonlyArray<In>
}

/** Groups neighbouring items that have the same head; the order of the items stays. */
export const groupByHead = <In>(
  items: ReadonlyArray<In>,
  headOf: (item: In) => ReadonlyArray<string>
): ReadonlyArray<Group<In>> => {
  const groups: Array<{ readonly head: ReadonlyArray<string>; readonly items: Array<In> }> = []
  let last: { readonly head: ReadonlyArray<string>; readonly items: Array<In> } | undefined
  for (const item of items) {
    const head = headOf(item)
    if (last !== undefined && head.every((text, i) => text === last!.head[i])) {
      last.items.push(item)
      continue
    }
    last = { head, items: [item] }
    groups.push(last)
  }
  return groups
}

/** Encodes a batch as groups of neighbours with the same head: the head, the number of items, the items. */
export const encodeGroups = <In>(
  items: ReadonlyArray<In>,
  headOf: (item: In) => ReadonlyArray<string>,
  pushItem: (args: Array<string>, item: In) => void
): ReadonlyArray<string> => {
  const args: Array<string> = []
  for (const group of groupByHead(items, headOf)) {
    args.push(...group.head, `${group.items.length}`)
    for (const item of group.items) pushItem(args, item)
  }
  return args
}

/** Encodes a number of milliseconds; `undefined` and infinity are written as an empty text. */
export const millis = (value: number | undefined): string =>
  value === undefined || value === Infinity ? "" : `${wholeMillis(value)}`
